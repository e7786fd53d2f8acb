//! Notices as they are, and what only looks like one.

use super::*;

const MAIL: &str = "From: support@salesforce.com\r\n\
    Subject: Your new Salesforce security token\r\n\r\n\
    Username: mariana@idalko.com\r\n\
    Security token (case-sensitive): Efdli7MO6ISYJj5Jy3tSDc5\r\n";

fn outcome(mail: &str) -> String {
    let wordings = Wordings::default();
    match read(&Mail::parse(mail.as_bytes(), &wordings), &wordings) {
        Ok(Reading { notice, .. }) => format!("{} {}", notice.username, notice.token.expose()),
        Err(why) => why.code().to_owned(),
    }
}

#[test]
fn the_mail_of_the_help_page_is_read() {
    assert_eq!(outcome(MAIL), "mariana@idalko.com Efdli7MO6ISYJj5Jy3tSDc5");
}

#[test]
fn two_tokens_are_never_guessed_between() {
    let second = MAIL.to_owned() + "Security token: AAAAbbbbCCCCddddEEEE1234\r\n";
    assert_eq!(outcome(&second), "two-tokens");
    for more in [
        "AAAAbbbbCCCCddddEEEE1234",
        "Your other token is AAAAbbbbCCCCddddEEEE1234.",
        "> Security token: AAAAbbbbCCCCddddEEEE1234",
    ] {
        let beside = format!("{MAIL}\r\n{more}\r\n");
        assert_eq!(outcome(&beside), "two-tokens", "{more}");
    }
    // Right below, and of a shape that no word-like look would give away.
    let below = MAIL.to_owned() + "Security token: 0123456789abcdef01234567\r\n";
    assert_eq!(outcome(&below), "two-tokens");
    let below = MAIL.to_owned() + "Security token: short-one\r\n";
    assert_eq!(outcome(&below), "malformed");
    for more in ["Security token: Efdli-7MO6", "Username: somebody"] {
        let beside = format!("{MAIL}\r\n{more}\r\n");
        assert_eq!(outcome(&beside), "malformed", "{more}");
    }
}

#[test]
fn a_token_in_another_part_is_a_disagreement() {
    for html in [
        "<p>Username: mariana@idalko.com Security token: AAAAbbbbCCCCddddEEEE1234</p>",
        "<p><b>AAAAbbbbCCCCddddEEEE1234</b></p>",
    ] {
        let mail = format!(
            "Subject: Your new Salesforce security token\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/alternative; boundary=b\r\n\r\n\
             --b\r\nContent-Type: text/plain\r\n\r\n{}\r\n\
             --b\r\nContent-Type: text/html\r\n\r\n{html}\r\n--b--\r\n",
            MAIL.split("\r\n\r\n").nth(1).unwrap()
        );
        assert_eq!(outcome(&mail), "two-tokens", "{html}");
    }
}

#[test]
fn a_token_that_was_cut_is_not_read() {
    for cut in [
        "Efdli7MO6ISYJj5Jy3tS Dc5",
        "Efdli7MO6ISYJj5Jy3tS\u{a0}Dc5",
        "Efdli7MO6ISYJj5Jy3tS\r\nDc5",
    ] {
        let mail = MAIL.replace("Efdli7MO6ISYJj5Jy3tSDc5", cut);
        assert_eq!(outcome(&mail), "malformed", "{cut:?}");
    }
    for cut in ["Efdli7MO6ISYJj5Jy3tS\rDc5", "Efdli7MO6ISYJj5Jy3tS\r\rDc5"] {
        let mail = MAIL.replace("Efdli7MO6ISYJj5Jy3tSDc5", cut);
        assert_eq!(outcome(&mail), "broken-encoding", "{cut:?}");
    }
    // Base64 that ends within a group, the token at the very end.
    let body = "VXNlcm5hbWU6IGFAYi5jbwpTZWN1cml0eSB0b2tlbjogRWZkbGk3TU82SVNZSmo1Snkz\r\ndFNEYzV4eQ";
    let mail = format!(
        "Subject: Your new Salesforce security token\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{body}"
    );
    assert_eq!(
        outcome(mail.strip_suffix('Q').unwrap_or_default()),
        "broken-encoding"
    );
    for whole in [mail.clone(), format!("{mail}==")] {
        assert_eq!(outcome(&whole), "a@b.co Efdli7MO6ISYJj5Jy3tSDc5xy");
    }
}

/// Every other reader takes a part with such a field for 7bit.
#[test]
fn a_field_of_a_part_in_disguise_is_not_followed() {
    let body = MAIL.split("\r\n\r\n").nth(1).unwrap().replace('@', "=40");
    let mail = |field: &str| {
        format!(
            "Subject: Your new Salesforce security token\r\n\
             Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
             {field}: quoted-printable\r\n\r\n{body}\r\n--b--\r\n"
        )
    };
    assert!(outcome(&mail("Content-Transfer-Encoding")).starts_with("mariana@"));
    for misspelt in ["Content-Trans fer-Encoding", "Content-Transfer-Encoding "] {
        assert_eq!(outcome(&mail(misspelt)), "duplicate-header", "{misspelt}");
    }
}

/// A signature knows no bare CR, and a reader sees a line end.
#[test]
fn a_bare_cr_cuts_no_line() {
    let cut = MAIL.replace("mariana@idalko.com", "mariana@idalko.com\r.attacker");
    assert_eq!(outcome(&cut), "broken-encoding");
}

#[test]
fn line_ends_are_made_as_they_were_sent() {
    for (saved, sent) in [
        ("a\nb\n", "a\r\nb\r\n"),
        ("a\r\nb\nc", "a\r\nb\r\nc"),
        ("a\r\n", "a\r\n"),
        ("a\r\r\nb\n", "a\r\r\nb\r\n"),
        ("a\rb", "a\rb"),
        ("", ""),
    ] {
        assert_eq!(as_sent(saved.as_bytes()), sent.as_bytes(), "{saved:?}");
    }
}

#[test]
fn banners_and_prefixes_do_not_hide_a_notice() {
    let banner = MAIL.replace("\r\n\r\n", "\r\n\r\n----- EXTERNAL MESSAGE -----\r\n\r\n");
    assert!(outcome(&banner).starts_with("mariana@"));
    for subject in ["TR-uat Sandbox: ", "VS Sandbox: ", "[EXTERNAL] Sandbox:  "] {
        let mail = MAIL.replace("Your new", &format!("{subject}Your new"));
        assert!(outcome(&mail).starts_with("mariana@"), "{subject}");
    }
    for subject in ["Re: ", "RE[2]: ", "Fwd: ", "[EXTERNAL] AW: "] {
        let mail = MAIL.replace("Your new", &format!("{subject}Your new"));
        assert_eq!(outcome(&mail), "quoted", "{subject}");
    }
}

#[test]
fn a_field_in_disguise_is_a_second_one() {
    for second in [
        "Date : Fri, 1 Jan 2099 00:00:00 +0000",
        "Da te: x",
        "Date: x",
        "Content-Type : text/plain; charset=UTF-8",
    ] {
        let mail = format!(
            "Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nContent-Type: text/plain\r\n{second}\r\n{MAIL}"
        );
        assert_eq!(outcome(&mail), "duplicate-header", "{second}");
    }
}

/// Each pair of tags makes the tree builder open all the earlier ones
/// again: a mail of this size took gigabytes.
#[test]
fn html_that_would_take_all_memory_is_not_rendered() {
    let bomb: String = (0..4000)
        .map(|n| format!("<b a={n}><p>"))
        .fold(String::new(), |all, one| all + &one);
    let html = |body: &str| {
        let headers =
            "Subject: Your new Salesforce security token\r\nContent-Type: text/html\r\n\r\n";
        outcome(&format!("{headers}{body}"))
    };
    assert_eq!(html(&bomb), "too-complex");
    let notice =
        "<p>Username: mariana@idalko.com</p><p>Security token: Efdli7MO6ISYJj5Jy3tSDc5</p>";
    assert!(html(notice).starts_with("mariana@"));
}

#[test]
fn a_token_mail_that_cannot_be_read_is_held_and_not_dropped() {
    let cut = MAIL.split("Username").next().unwrap_or_default();
    assert_eq!(outcome(cut), "unreadable");
    let short = MAIL.replace("Efdli7MO6ISYJj5Jy3tSDc5", "Efdli7MO6I");
    assert_eq!(outcome(&short), "malformed");
}

#[test]
fn headers_decide_what_is_fetched() {
    let senders = ["support@salesforce.com".to_owned()];
    let wordings = Wordings::default();
    let ours = b"From: <SUPPORT@salesforce.com>\r\nSubject: x\r\n\r\n";
    let forged = b"From: a@b.c\r\nSubject: Re: SECURITY token\r\n\r\n";
    let other = b"From: a@b.c\r\nSubject: lunch\r\n\r\n";
    assert!(worth_reading(ours, &senders, &wordings));
    assert!(worth_reading(forged, &senders, &wordings));
    assert!(!worth_reading(other, &senders, &wordings));
}

/// The mail with this body, under a subject that says nothing of tokens.
fn foreign(content_type: &str, body: &str) -> String {
    outcome(&format!(
        "From: support@salesforce.com\r\nSubject: =?UTF-8?B?44OI44O844Kv44Oz?=\r\n\
         Content-Type: {content_type}; charset=utf-8\r\n\r\n{body}"
    ))
}

const LINK: &str = "https://help.salesforce.com/HTViewHelpDoc?id=user_security_token.htm";

#[test]
fn the_japanese_mail_is_read() {
    for (username, token) in [
        ("ユーザ名:", "セキュリティトークン (大文字と小文字を区別):"),
        (
            "ユーザー名：",
            "セキュリティトークン（大文字と小文字を区別）：",
        ),
    ] {
        let body = format!(
            "新しいトークンです。\r\n\r\n{username} a@b.co\r\n{token} Efdli7MO6ISYJj5Jy3tSDc5\r\n\r\n{LINK}\r\n"
        );
        assert_eq!(
            foreign("text/plain", &body),
            "a@b.co Efdli7MO6ISYJj5Jy3tSDc5"
        );
    }
}

#[test]
fn a_language_that_nobody_has_shown_us_is_read_by_its_structure() {
    let french = format!(
        "Bonjour\r\n\r\nNom d'utilisateur\u{202f}: a@b.co.uat\r\n\
         Jeton de sécurité (sensible à la casse)\u{202f}: Efdli7MO6ISYJj5Jy3tSDc5\r\n\r\nVoir {LINK}\r\n"
    );
    assert_eq!(
        foreign("text/plain", &french),
        "a@b.co.uat Efdli7MO6ISYJj5Jy3tSDc5"
    );
    // Without the link to the help page it is any mail with an address in it.
    let unlinked = french.replace("user_security_token", "somewhere_else");
    assert_eq!(foreign("text/plain", &unlinked), "no-notice");
    // And a sample is a sample in every language.
    let sample = french.replace("Efdli7MO6ISYJj5Jy3tSDc5", "XXXXXXXXXXXXXXXXXXXXXXXX");
    assert_eq!(foreign("text/plain", &sample), "placeholder");
}

#[test]
fn what_is_nearly_a_notice_is_told_of_in_every_language() {
    let french = |token: &str, link: &str| {
        foreign(
            "text/plain",
            &format!("Nom d'utilisateur : a@b.co\r\nJeton : {token}\r\n\r\n{link}\r\n"),
        )
    };
    for cut in [
        "Efdli7MO6ISYJj5Jy3tSDc5.",
        "Efdli7MO6ISYJj5Jy3tSDc5 (x)",
        "Efdli7MO6ISYJj5Jy3",
        "Efdli7MO6ISYJj5Jy3tSDc5Efdli7MO6ISY",
    ] {
        assert_eq!(french(cut, LINK), "malformed", "{cut}");
    }
    // What is a word, a number or a hash is none.
    for other in [
        "internationalization",
        "+49 30 1234567",
        "0123456789abcdef01234567",
    ] {
        assert_eq!(french(other, LINK), "no-notice", "{other}");
    }
    // One token in a hundred has no digit.
    let letters = "EfdliMOxISYJjkJyrtSDcGhQ";
    assert_eq!(french(letters, LINK), format!("a@b.co {letters}"));
    // Links as gateways rewrite them.
    for link in [
        "https://gate.example/v2/url?u=https-3A__help.salesforce.com_HTViewHelpDoc-3Fid-3Duser-5Fsecurity-5Ftoken.htm",
        "https://gate.example/?url=https%3A%2F%2Fhelp.salesforce.com%2FHTViewHelpDoc%3Fid%3Duser%5Fsecurity%5Ftoken.htm",
    ] {
        let token = "Efdli7MO6ISYJj5Jy3tSDc5";
        assert_eq!(french(token, link), format!("a@b.co {token}"));
    }
    // Both labels, and the link rewritten beyond recognition.
    let japanese = "ユーザー名: a@b.co\r\nセキュリティトークン: Efdli7MO6ISYJj5Jy3tSDc5\r\n";
    assert_eq!(foreign("text/plain", japanese), "unreadable");
    let tags = format!("<p>{}<a href='{LINK}'>x</a>", "<b>x</b>".repeat(600));
    assert_eq!(foreign("text/html", &tags), "too-complex");
}

#[test]
fn the_number_of_a_scan_below_a_mail_is_no_second_token() {
    let scanned = MAIL.to_owned() + "\r\nScanned as 0a1b2c3d4e5f60718293a4b5.\r\n";
    assert!(outcome(&scanned).starts_with("mariana@"));
}

#[test]
fn html_is_read_as_it_is_seen() {
    let table = format!(
        "<table><tr><td>Benutzername:</td><td><a href='mailto:a@b.co'>a@b.co</a></td></tr>\
         <tr><td>Sicherheitstoken&nbsp;&#58;</td><td><b>Efdli7MO6ISYJj5Jy3tSDc5</b></td></tr></table>\
         <p><a href='{LINK}'>Hilfe</a></p>"
    );
    assert_eq!(
        foreign("text/html", &table),
        "a@b.co Efdli7MO6ISYJj5Jy3tSDc5"
    );
    let hidden =
        format!("{table}<p style='display:none'>Security token: AAAAbbbbCCCCddddEEEE1234</p>");
    assert_eq!(foreign("text/html", &hidden), "hidden-text");
}

#[test]
fn what_only_looks_like_one_is_ignored() {
    for (headers, why) in [
        ("Subject: Re: Your new Salesforce security token", "quoted"),
        (
            "Subject: Undelivered: your new Salesforce security token\r\nContent-Type: multipart/report; boundary=b",
            "bounce",
        ),
        ("Subject: News\r\nList-Unsubscribe: <https://x>", "bulk"),
    ] {
        let mail = format!(
            "{headers}\r\n\r\n{}",
            MAIL.split("\r\n\r\n").nth(1).unwrap()
        );
        assert_eq!(outcome(&mail), why);
    }
    assert_eq!(
        outcome("Subject: Verify your identity in Salesforce\r\n\r\nCode: 123456\r\n"),
        "no-notice"
    );
    assert_eq!(outcome(""), "not-a-mail");
}
