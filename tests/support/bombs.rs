//! Mails that are made to take time and memory, each at least as large as
//! anyone may configure to be read, or as deep as fits into that.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The largest `max-mail-size` that can be configured.
pub const LARGEST: usize = 8 * 1024 * 1024;

const HEAD: &str = "From: support@salesforce.com\r\n\
    Subject: Your new Salesforce security token\r\n";

/// A name for the table, and the mail.
type Bomb = (&'static str, Vec<u8>);

const WORDS: &str = "Username: a@b.co\r\nSecurity token: Efdli7MO6ISYJj5Jy3tSDc5\r\n";

/// Every one of them.
pub fn all() -> Vec<Bomb> {
    [structures(), headers(), texts(), pages()].concat()
}

fn text(headers: &str, body: &str) -> Vec<u8> {
    format!("{HEAD}{headers}\r\n{body}").into_bytes()
}

/// As much of `unit` as fits into the largest mail with `rest` beside it.
fn fill(unit: &str, rest: usize) -> String {
    unit.repeat((LARGEST - 2000 - rest) / unit.len())
}

fn numbered(unit: fn(usize) -> String, range: impl Iterator<Item = usize>) -> String {
    range.map(unit).fold(String::new(), |all, one| all + &one)
}

fn in_base64(inner: &str, kind: &str) -> Vec<u8> {
    let headers = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n");
    text(&headers, &STANDARD.encode(inner))
}

fn structures() -> Vec<Bomb> {
    let open = |n| format!("Content-Type: multipart/mixed; boundary=b{n}x\r\n\r\n--b{n}x\r\n");
    let close = |n| format!("\r\n--b{n}x--\r\n");
    let deep = |depth, body: &str| {
        let opened = numbered(open, 0..depth);
        format!("{HEAD}{opened}\r\n{body}").into_bytes()
    };
    let closed = "x".to_owned() + &numbered(close, (0..20_000).rev());
    let mails = "Content-Type: message/rfc822\r\n\r\n".repeat(150_000);
    let mixed = |part: String, count| {
        text(
            "Content-Type: multipart/mixed; boundary=b\r\n",
            &part.repeat(count),
        )
    };
    let small = "--b\r\nContent-Transfer-Encoding: base64\r\n\r\nYQ==\r\n";
    let large = format!("--b\r\n\r\n{}\r\n", "some words - ".repeat(310));
    vec![
        ("20,000 multiparts deep", deep(20_000, "")),
        ("20,000 multiparts deep, all closed", deep(20_000, &closed)),
        (
            "32 multiparts deep around 8 MB",
            deep(32, &fill("some words - and --more\r\n", 6000)),
        ),
        ("a boundary of 1,000,000 dashes", {
            let dashes = "-".repeat(1_000_000);
            let headers = format!("Content-Type: multipart/mixed; boundary=\"{dashes}x\"\r\n");
            text(&headers, &dashes.repeat(6))
        }),
        ("10,000 multiparts in mid-line", {
            let part = |n| format!("x--b\r\nContent-Type: multipart/x; boundary=z{n}\r\n\r\n");
            text(
                "Content-Type: multipart/mixed; boundary=b\r\n",
                &numbered(part, 0..10_000),
            )
        }),
        ("100,000 parts", mixed(small.to_owned(), 100_000)),
        ("2,000 parts around 8 MB", mixed(large, 2000)),
        (
            "150,000 mails in mails",
            format!("{HEAD}{mails}").into_bytes(),
        ),
        (
            "150,000 mails in mails, in base64",
            in_base64(&mails, "message/rfc822"),
        ),
    ]
}

fn headers() -> Vec<Bomb> {
    let many = |field: &str, count| text(&field.repeat(count), WORDS);
    let one = |name: &str, value: String| text(&format!("{name}: {value}\r\n"), WORDS);
    let signature = |names: &str| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=salesforce.com; s=s; \
             h=from{names}; bh=AAAA; b=AAAA\r\n"
        )
    };
    let seal = "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=forwarder.example; s=s; b=AAAA\r\n";
    let results = "Authentication-Results: a.example; dkim=pass\r\n";
    vec![
        ("a header field of 5 MB", one("X", "y ".repeat(2_500_000))),
        (
            "a subject of 5 MB",
            one("Subject", "=?utf-8?q?a?= ".repeat(350_000)),
        ),
        ("a From of 5 MB", one("From", "(".repeat(5_000_000))),
        (
            "100,000 header fields",
            many("X-Field: some words\r\n", 100_000),
        ),
        ("100,000 results", many(results, 100_000)),
        (
            "100,000 From",
            many("From: support@salesforce.com\r\n", 100_000),
        ),
        ("30,000 signatures", many(&signature(""), 30_000)),
        (
            "a signature over 1,000,000 fields",
            many(&signature(&":a".repeat(1_000_000)), 1),
        ),
        ("30,000 seals", many(seal, 30_000)),
        (
            "30,000 continued parameters",
            one(
                "Content-Type",
                "text/plain".to_owned() + &"; x1*1=a".repeat(30_000),
            ),
        ),
    ]
}

fn texts() -> Vec<Bomb> {
    let token = format!(
        "Username: a@b.co\r\nSecurity token: {}",
        "a1".repeat(2_500_000)
    );
    let flowed = "Content-Type: text/plain; format=flowed\r\n";
    let quoted = "Content-Transfer-Encoding: quoted-printable\r\n";
    let utf8 = "Content-Type: text/plain; charset=utf-8\r\n";
    vec![
        (
            "a mail of 25 MB",
            text("", &"all work and no play\r\n".repeat(1_200_000)),
        ),
        ("a line of 5 MB", text("", &"x".repeat(5_000_000))),
        ("a token of 5 MB", text("", &token)),
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
        ("8 MB of flowed lines", text(flowed, &fill("> x \r\n", 0))),
        (
            "8 MB of quoted-printable",
            text(quoted, &fill("=41=\r\n", 0)),
        ),
        (
            "6 MB in base64",
            in_base64(&fill("Username: a@b.co\r\n", LARGEST / 3), "text/plain"),
        ),
        ("8 MB of Japanese", text(utf8, &fill("ユーザ名", 0))),
    ]
}

fn pages() -> Vec<Bomb> {
    let html = |body: &str| text("Content-Type: text/html\r\n", body);
    let deep = format!("{}x", "<div class=a>".repeat(900));
    let styled = |selector: &str| {
        let rule = format!("{selector} {{color:white;display:none}} ");
        html(&format!("<style>{}</style>{deep}", rule.repeat(100)))
    };
    vec![
        ("8 MB of HTML text", html(&fill("words &amp; ", 0))),
        ("8 MB of tags", html(&fill("<b><p>", 0))),
        (
            "1,000 tags that mend each other",
            html(&numbered(|n| format!("<b a={n}><p>"), 0..480)),
        ),
        (
            "20,000 attributes",
            html(&format!(
                "<b{}>x",
                numbered(|n| format!(" x{n}"), 0..20_000)
            )),
        ),
        (
            "100,000 attributes behind slashes",
            html(&format!("<a{}>x", "/aa=''".repeat(100_000))),
        ),
        (
            "100,000 attributes of an end",
            html(&format!("</a q='>'{}>x", " aa".repeat(100_000))),
        ),
        ("45 parts of tags that mend each other", {
            let part = format!(
                "--b\r\nContent-Type: text/html\r\n\r\n{}\r\n",
                numbered(|n| format!("<b a={n}><p>"), 0..480)
            );
            text(
                "Content-Type: multipart/mixed; boundary=b\r\n",
                &part.repeat(45),
            )
        }),
        ("declarations for every element", {
            let rule = format!("*{{{}}}", "color:red;a:b;".repeat(LARGEST / 20));
            html(&format!("<style>{rule}</style>{}", "<b>".repeat(990)))
        }),
        ("a selector of 100,000 classes", {
            let rule = format!("{}{{color:white}}", ".a".repeat(100_000));
            html(&format!("<style>{rule}</style>{deep}"))
        }),
        ("style for every element", styled(".a")),
        (
            "style by every ancestor",
            styled("div div div div div div div u"),
        ),
        ("style by :has()", styled("div:has(div div div u)")),
        (
            "8 MB of style",
            html(&format!("<style>{}</style>x", fill(".a{b:c} ", 100))),
        ),
    ]
}
