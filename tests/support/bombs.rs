//! Mails that are made to take time and memory, each at least as large as
//! anyone may configure to be read, or as deep as fits into that.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The largest `max-mail-size` that can be configured.
pub const LARGEST: usize = 8 * 1024 * 1024;

const HEAD: &str = "From: support@salesforce.com\r\n\
    Subject: Your new Salesforce security token\r\n";

/// Every one by its name.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let text = |headers: &str, body: &str| format!("{HEAD}{headers}\r\n{body}").into_bytes();
    let html = |body: &str| text("Content-Type: text/html\r\n", body);
    let fill = |unit: &str, rest: usize| unit.repeat((LARGEST - 2000 - rest) / unit.len());
    let levels = |unit: fn(usize) -> String, depth: usize| {
        (0..depth)
            .map(unit)
            .fold(String::new(), |all, one| all + &one)
    };
    let mixed = |n| format!("Content-Type: multipart/mixed; boundary=b{n}x\r\n\r\n--b{n}x\r\n");
    let closed = |depth: usize| {
        let ends = (0..depth).rev().map(|n| format!("\r\n--b{n}x--\r\n"));
        levels(mixed, depth) + "\r\nx" + &ends.fold(String::new(), |all, one| all + &one)
    };
    let in_base64 = |inner: &str, kind: &str| {
        text(
            &format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n"),
            &STANDARD.encode(inner),
        )
    };
    let nested_mails = "Content-Type: message/rfc822\r\n\r\n".repeat(150_000);
    let signature = |names: &str| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=salesforce.com; s=s; \
             h=from{names}; bh=AAAA; b=AAAA\r\n"
        )
    };
    let words = "Username: a@b.co\r\nSecurity token: Efdli7MO6ISYJj5Jy3tSDc5\r\n";
    let sheet = |selector: &str| format!("{selector} {{color:white;display:none}} ").repeat(100);
    let deep = format!("{}x", "<div class=a>".repeat(900));
    vec![
        (
            "a mail of 25 MB",
            text("", &"all work and no play\r\n".repeat(1_200_000)),
        ),
        (
            "20,000 multiparts deep",
            format!("{HEAD}{}", levels(mixed, 20_000)).into_bytes(),
        ),
        (
            "20,000 multiparts deep, all closed",
            format!("{HEAD}{}", closed(20_000)).into_bytes(),
        ),
        ("32 multiparts deep around 8 MB", {
            let body = fill("some words - and --more\r\n", 6000);
            format!("{HEAD}{}\r\n{body}", levels(mixed, 32)).into_bytes()
        }),
        (
            "150,000 mails in mails",
            format!("{HEAD}{nested_mails}").into_bytes(),
        ),
        (
            "150,000 mails in mails, in base64",
            in_base64(&nested_mails, "message/rfc822"),
        ),
        ("100,000 parts", {
            let part = "--b\r\nContent-Transfer-Encoding: base64\r\n\r\nYQ==\r\n";
            text(
                "Content-Type: multipart/mixed; boundary=b\r\n",
                &part.repeat(100_000),
            )
        }),
        ("a line of 5 MB", text("", &"x".repeat(5_000_000))),
        (
            "a token of 5 MB",
            text(
                "",
                &format!(
                    "Username: a@b.co\r\nSecurity token: {}",
                    "a1".repeat(2_500_000)
                ),
            ),
        ),
        (
            "a header field of 5 MB",
            text(&format!("X: {}\r\n", "y ".repeat(2_500_000)), words),
        ),
        (
            "a subject of 5 MB",
            text(
                &format!("Subject: {}\r\n", "=?utf-8?q?a?= ".repeat(350_000)),
                words,
            ),
        ),
        (
            "a From of 5 MB",
            text(&format!("From: {}\r\n", "(".repeat(5_000_000)), words),
        ),
        (
            "100,000 header fields",
            text(&"X-Field: some words\r\n".repeat(100_000), words),
        ),
        (
            "100,000 results",
            text(
                &"Authentication-Results: a.example; dkim=pass\r\n".repeat(100_000),
                words,
            ),
        ),
        (
            "100,000 From",
            text(&"From: support@salesforce.com\r\n".repeat(100_000), words),
        ),
        (
            "30,000 signatures",
            text(&signature("").repeat(30_000), words),
        ),
        (
            "a signature over 1,000,000 fields",
            text(&signature(&":a".repeat(1_000_000)), words),
        ),
        (
            "30,000 seals",
            text(
                &"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=forwarder.example; s=s; b=AAAA\r\n"
                    .repeat(30_000),
                words,
            ),
        ),
        (
            "8 MB of labels",
            text("", &fill("Username: a@b.co\r\nSecurity token: x\r\n", 0)),
        ),
        ("8 MB of empty lines", text("", &fill("\r\n", 0))),
        (
            "8 MB of quotations",
            text("", &fill("> on a wrote:\r\n", 0)),
        ),
        ("8 MB of dashes", text("", &fill("- -- ---- \r\n", 0))),
        (
            "8 MB of flowed lines",
            text(
                "Content-Type: text/plain; format=flowed\r\n",
                &fill("> x \r\n", 0),
            ),
        ),
        (
            "8 MB of quoted-printable",
            text(
                "Content-Transfer-Encoding: quoted-printable\r\n",
                &fill("=41=\r\n", 0),
            ),
        ),
        (
            "6 MB in base64",
            in_base64(&fill("Username: a@b.co\r\n", LARGEST / 3), "text/plain"),
        ),
        (
            "8 MB of Japanese",
            text(
                "Content-Type: text/plain; charset=utf-8\r\n",
                &fill("ユーザ名", 0),
            ),
        ),
        ("8 MB of HTML text", html(&fill("words &amp; ", 0))),
        ("8 MB of tags", html(&fill("<b><p>", 0))),
        (
            "1,000 tags that mend each other",
            html(&levels(|n| format!("<b a={n}><p>"), 480)),
        ),
        (
            "style for every element",
            html(&format!("<style>{}</style>{deep}", sheet(".a"))),
        ),
        (
            "style by every ancestor",
            html(&format!(
                "<style>{}</style>{deep}",
                sheet("div div div div div div div u")
            )),
        ),
        (
            "style by :has()",
            html(&format!(
                "<style>{}</style>{deep}",
                sheet("div:has(div div div u)")
            )),
        ),
        (
            "8 MB of style",
            html(&format!("<style>{}</style>x", fill(".a{b:c} ", 100))),
        ),
    ]
}
