//! Properties of reading and judging, over mails that nobody thought of.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use proptest::prelude::*;
use tokenwatch::judge::{Finding, judge};
use tokenwatch::notice::{Mail, NotANotice, Reading, Wordings, as_sent, read};
use tokenwatch::sender::{Keys, Verdict};

use crate::support::dns::Dns;
use crate::support::trust;

/// How label and value stand to each other.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Beside,
    NextLine,
    BelowAGap,
    FullWidth,
    NoBreak,
}

/// How the notice is built into HTML.
#[derive(Clone, Copy, Debug)]
enum Page {
    Paragraphs,
    Breaks,
    Table,
    List,
    Preformatted,
}

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Plain,
    QuotedPrintable { width: usize },
    Base64 { width: usize, padded: bool },
    Utf16,
}

#[derive(Clone, Copy, Debug)]
enum Structure {
    Bare,
    BareHtml,
    Alternative,
    HtmlBesideExcuse,
    MixedWithAttachment,
    Nested,
    Attached,
    Flowed { delsp: bool, width: usize },
}

/// A mail by everything that it is made of.
#[derive(Clone, Debug)]
struct Shape {
    username: String,
    token: String,
    japanese: bool,
    layout: Layout,
    page: Page,
    encoding: Encoding,
    structure: Structure,
    crlf: bool,
    /// Lines of prose around the notice.
    above: Vec<String>,
    below: Vec<String>,
}

fn shape() -> impl Strategy<Value = Shape> {
    let layout = prop_oneof![
        Just(Layout::Beside),
        Just(Layout::NextLine),
        Just(Layout::BelowAGap),
        Just(Layout::FullWidth),
        Just(Layout::NoBreak),
    ];
    let page = prop_oneof![
        Just(Page::Paragraphs),
        Just(Page::Breaks),
        Just(Page::Table),
        Just(Page::List),
        Just(Page::Preformatted),
    ];
    let encoding = prop_oneof![
        Just(Encoding::Plain),
        (4_usize..77).prop_map(|width| Encoding::QuotedPrintable { width }),
        (1_usize..400, any::<bool>())
            .prop_map(|(width, padded)| Encoding::Base64 { width, padded }),
        Just(Encoding::Utf16),
    ];
    let structure = prop_oneof![
        Just(Structure::Bare),
        Just(Structure::BareHtml),
        Just(Structure::Alternative),
        Just(Structure::HtmlBesideExcuse),
        Just(Structure::MixedWithAttachment),
        Just(Structure::Nested),
        Just(Structure::Attached),
        (any::<bool>(), 5_usize..78).prop_map(|(delsp, width)| Structure::Flowed { delsp, width }),
    ];
    // Words that are prose: short, and no label.
    let prose = || proptest::collection::vec("[a-zäöü]{1,9}( [a-zäöü,.]{1,9}){0,6}\\.", 0..3);
    (
        "[a-zA-Z0-9_+-]{1,12}(\\.[a-z0-9]{1,5})?@[a-z0-9]{1,9}\\.[a-z]{2,4}(\\.[a-z]{2,8})?",
        // All letters alike would be a placeholder, and no digit no token.
        "[A-Za-z0-9]{18,30}[A-Z][0-9]",
        (
            any::<bool>(),
            layout,
            page,
            encoding,
            structure,
            any::<bool>(),
        ),
        (prose(), prose()),
    )
        .prop_map(|(username, token, kind, (above, below))| {
            let (japanese, layout, page, encoding, structure, crlf) = kind;
            Shape {
                username,
                token,
                japanese,
                layout,
                page,
                encoding,
                structure,
                crlf,
                above,
                below,
            }
        })
}

impl Shape {
    fn labels(&self) -> [(&str, &str); 2] {
        let (username, token) = if self.japanese {
            ("ユーザー名", "セキュリティトークン (大文字と小文字を区別)")
        } else {
            ("Username", "Security token (case-sensitive)")
        };
        [(username, &self.username), (token, &self.token)]
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.above {
            text.extend([line, "\n"]);
        }
        text += "\n";
        for (label, value) in self.labels() {
            let lines = match self.layout {
                Layout::Beside => format!("{label}: {value}\n"),
                Layout::NextLine => format!("{label}:\n{value}\n"),
                Layout::BelowAGap => format!("{label}:\n\n{value}\n"),
                Layout::FullWidth => {
                    format!(
                        "{}：　{value}\n",
                        label.replace('(', "（").replace(')', "）")
                    )
                }
                Layout::NoBreak => format!("{label}\u{a0}:\u{202f}{value}\n"),
            };
            text.push_str(&lines);
            // A short word right below a token would look like its second half.
            text += "\n";
        }
        text += "https://help.salesforce.com/HTViewHelpDoc?id=user_security_token.htm\n\n";
        for line in &self.below {
            text.extend([line, "\n"]);
        }
        text
    }

    fn html(&self) -> String {
        let prose = |lines: &[String]| {
            let lines = lines.iter().map(|line| format!("<p>{line}</p>\n"));
            lines.fold(String::new(), |all, one| all + &one)
        };
        let [(user, username), (label, token)] = self.labels();
        let notice = match self.page {
            Page::Paragraphs => {
                format!("<p>{user}&#58; <b>{username}</b></p><p>{label}: <i>{token}</i></p>")
            }
            Page::Breaks => {
                format!("{user}:<br>{username}<br>\n{label}&nbsp;:<br><br>{token}<br>")
            }
            Page::Table => format!(
                "<table><tr><td>{user}:</td><td>{username}</td></tr>\
                 <tr><th>{label}:</th><td><span>{token}</span></td></tr></table>"
            ),
            Page::List => {
                format!("<dl><dt>{user}:<dd>{username}<dt>{label}:<dd>{token}</dl>")
            }
            Page::Preformatted => format!("<pre>{user}: {username}\n{label}: {token}\n</pre>"),
        };
        format!(
            "<html><body>{}{notice}\n{}</body></html>\n",
            prose(&self.above),
            prose(&self.below)
        )
    }

    /// A part: its header fields, an empty line, its body.
    fn part(&self, kind: &str, content: &str) -> String {
        let charset = if matches!(self.encoding, Encoding::Utf16) {
            "UTF-16"
        } else {
            "utf-8"
        };
        let (encoding, body) = match self.encoding {
            Encoding::Plain => ("8bit", content.to_owned()),
            Encoding::QuotedPrintable { width } => {
                ("quoted-printable", quoted_printable(content, width))
            }
            Encoding::Base64 { width, padded } => {
                let content = content.replace('\n', "\r\n");
                let digits = if padded {
                    STANDARD.encode(content)
                } else {
                    STANDARD_NO_PAD.encode(content)
                };
                ("base64", wrapped(&digits, width))
            }
            Encoding::Utf16 => {
                let units = "\u{feff}".encode_utf16().chain(content.encode_utf16());
                let bytes: Vec<u8> = units.flat_map(u16::to_be_bytes).collect();
                ("base64", wrapped(&STANDARD.encode(bytes), 76))
            }
        };
        format!(
            "Content-Type: {kind}; charset={charset}\n\
             Content-Transfer-Encoding: {encoding}\n\n{body}"
        )
    }

    fn mail(&self) -> Vec<u8> {
        let multipart = |kind: &str, boundary: &str, parts: &[String]| {
            let parts = parts.iter().map(|part| format!("--{boundary}\n{part}\n"));
            let parts = parts.fold(String::new(), |all, one| all + &one);
            format!(
                "Content-Type: multipart/{kind}; boundary=\"{boundary}\"\n\n{parts}--{boundary}--\n"
            )
        };
        let plain = || self.part("text/plain", &self.text());
        let html = || self.part("text/html", &self.html());
        let alternative = || multipart("alternative", "=_alt", &[plain(), html()]);
        let subject = "Subject: Your new Salesforce\n security token\n";
        let head = format!(
            "From: support@salesforce.com <support@salesforce.com>\n{subject}MIME-Version: 1.0\n"
        );
        let mail = match self.structure {
            Structure::Bare => head + &plain(),
            Structure::BareHtml => head + &html(),
            Structure::Alternative => head + &alternative(),
            Structure::HtmlBesideExcuse => {
                let excuse = self.part("text/plain", "Please use a reader for HTML.\n");
                head + &multipart("alternative", "=_alt", &[excuse, html()])
            }
            Structure::MixedWithAttachment => {
                let attached = "Content-Type: text/plain\nContent-Disposition: attachment\n\n\
                    Security token: AAAAbbbbCCCCddddEEEE1234\n";
                head + &multipart("mixed", "=_mix", &[plain(), attached.to_owned()])
            }
            Structure::Nested => {
                let related = multipart("related", "=_rel", &[alternative()]);
                head + &multipart("mixed", "=_mix", &[related])
            }
            Structure::Attached => {
                let inner = format!("Content-Type: message/rfc822\n\n{head}{}", plain());
                let note = "Content-Type: text/plain\n\nsee below\n".to_owned();
                "From: a@example.com\nSubject: Fwd: see below\n".to_owned()
                    + &multipart("mixed", "=_out", &[note, inner])
            }
            Structure::Flowed { delsp, width } => {
                let kind = if delsp {
                    "text/plain; format=flowed; delsp=yes"
                } else {
                    "text/plain; format=flowed"
                };
                head + &self.part(kind, &flow(&self.text(), delsp, width))
            }
        };
        if self.crlf {
            mail.replace("\r\n", "\n")
                .replace('\n', "\r\n")
                .into_bytes()
        } else {
            mail.into_bytes()
        }
    }
}

fn wrapped(digits: &str, width: usize) -> String {
    let lines = digits.as_bytes().chunks(width);
    lines
        .map(|line| String::from_utf8_lossy(line).into_owned() + "\n")
        .collect()
}

/// Every octet that is no plain letter or digit encoded, and soft line breaks
/// after each `width` characters, wherever they fall.
fn quoted_printable(content: &str, width: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for byte in content.bytes() {
        let piece = match byte {
            b'\n' => {
                out.push('\n');
                column = 0;
                continue;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("={other:02X}"),
        };
        if column + piece.len() >= width {
            out += "=\n";
            column = 0;
        }
        column += piece.len();
        out += &piece;
    }
    out
}

/// Breaks lines as a writer of `format=flowed` does: after a blank, or, with
/// `delsp`, anywhere with a blank added.
fn flow(text: &str, delsp: bool, width: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut column = 0;
        let mut begun = String::new();
        for c in line.chars() {
            begun.push(c);
            column += 1;
            if column >= width && (delsp || c == ' ') && c != '\u{a0}' {
                out += &begun;
                out += if delsp { " \n" } else { "\n" };
                begun.clear();
                column = 0;
            }
        }
        out += begun.trim_end_matches(' ');
        out.push('\n');
    }
    out
}

fn reading(mail: &[u8]) -> Result<Reading, NotANotice> {
    let wordings = Wordings::default();
    let sent = as_sent(mail);
    read(&Mail::parse(&sent, &wordings), &wordings)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Round trip: whatever the shape, username and token come back.
    #[test]
    fn a_notice_of_any_shape_is_read(shape in shape()) {
        let mail = shape.mail();
        let read = reading(&mail).map_err(|why| {
            TestCaseError::fail(format!("{}\n{}", why.code(), String::from_utf8_lossy(&mail)))
        })?;
        prop_assert_eq!(read.notice.username.as_str(), &shape.username);
        prop_assert_eq!(read.notice.token.expose(), &shape.token);
        prop_assert_eq!(read.attached.is_some(), matches!(shape.structure, Structure::Attached));
    }

    /// Invariant 3: whatever is written around it, it is read right or not at all.
    #[test]
    fn a_notice_is_read_right_or_held(
        shape in shape(),
        noise in proptest::collection::vec(noise(), 1..4),
        at in proptest::collection::vec(any::<prop::sample::Index>(), 3),
    ) {
        let mail = String::from_utf8(shape.mail()).unwrap();
        let (head, body) = mail.split_once(if shape.crlf { "\r\n\r\n" } else { "\n\n" }).unwrap();
        let mut lines: Vec<String> = body.split_inclusive('\n').map(str::to_owned).collect();
        for (noise, at) in noise.iter().zip(&at) {
            let at = at.index(lines.len() + 1);
            lines.insert(at, format!("{noise}\n"));
        }
        let noisy = format!("{head}\n\n{}", lines.concat());
        // In an encoded body a line is no line of text, and where a value
        // stands below its label a line between them takes its place.
        let is_around = matches!(shape.encoding, Encoding::Plain)
            && !matches!(shape.layout, Layout::NextLine | Layout::BelowAGap)
            && matches!(shape.structure, Structure::Bare | Structure::Alternative | Structure::Nested)
            && !matches!(shape.page, Page::Breaks);
        if let (true, Ok(read)) = (is_around, reading(noisy.as_bytes())) {
            prop_assert_eq!(read.notice.username.as_str(), &shape.username, "{}", noisy);
            prop_assert_eq!(read.notice.token.expose(), &shape.token, "{}", noisy);
        }
    }

    /// Invariant 4: with whatever header fields, no mail that no key of
    /// Salesforce's has signed and no receiver of ours has passed is trusted.
    #[test]
    fn nobody_is_trusted_without_a_proof(
        shape in shape(),
        fields in proptest::collection::vec(forged_field(), 0..8),
    ) {
        let mut mail = fields.concat().into_bytes();
        mail.extend(shape.mail());
        let verdict = judged(&mail);
        prop_assert!(!matches!(verdict, Some(Verdict::Trusted(_))), "{:?}", verdict);
    }
}

/// Lines that somebody could write around a notice.
fn noise() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,60}",
        "[A-Za-z0-9]{20,32}",
        "(Username|User name|ユーザ名|Security token|Name): ?[!-~]{0,40}",
        "Security token \\(.{1,20}\\): [A-Za-z0-9]{19,33}",
        "> Security token: [A-Za-z0-9]{24}",
        "<(p|b|td|br|!--|style|div style='display:none')>.{0,30}",
        "</(p|b|td|table|body|html|style)>",
        "--=_(alt|mix|rel)(--)?.{0,3}",
        "Content-(Type|Transfer-Encoding): [a-z/0-9-]{1,20}",
        Just(String::new()),
    ]
}

/// Header fields by which a forger could hope to be believed.
fn forged_field() -> impl Strategy<Value = String> {
    let results =
        "(dkim=pass header.d=salesforce.com|dmarc=pass header.from=salesforce.com|spf=pass)";
    prop_oneof![
        format!("Authentication-Results: (evil.example|mx.example.com.evil.example|example.com)( 1)?; {results}\r\n")
            .prop_map_into_string(),
        format!("X-Authentication-Results: mx.example.com; {results}\r\n").prop_map_into_string(),
        format!("ARC-Authentication-Results: i=[1-3]; forwarder.example; {results}\r\n")
            .prop_map_into_string(),
        "ARC-Seal: i=[1-3]; a=rsa-sha256; cv=(none|pass|fail); d=(forwarder|evil).example; s=arc; b=[A-Za-z0-9+/]{4,40}\r\n"
            .prop_map(|field| field),
        "ARC-Message-Signature: i=[1-3]; a=rsa-sha256; c=relaxed/relaxed; d=forwarder.example; s=arc; h=From; bh=[A-Za-z0-9]{4}; b=[A-Za-z0-9]{8}\r\n"
            .prop_map(|field| field),
        "DKIM-Signature: v=1; a=(rsa|ed25519)-sha256; c=(relaxed|simple)/relaxed; d=(salesforce|evil).com; s=(sf|gone); h=From:To; (l=0; )?bh=[A-Za-z0-9]{4}; b=[A-Za-z0-9]{8}\r\n"
            .prop_map(|field| field),
        "(Received|Sender|Reply-To|Return-Path|X-SFDC-LK): .{0,40}\r\n".prop_map(|field| field),
    ]
}

/// A pattern built at run time, as a strategy.
trait Pattern {
    fn prop_map_into_string(self) -> BoxedStrategy<String>;
}

impl Pattern for String {
    fn prop_map_into_string(self) -> BoxedStrategy<String> {
        proptest::string::string_regex(&self).unwrap().boxed()
    }
}

/// What is thought of the sender, where the mail is a notice.
fn judged(mail: &[u8]) -> Option<Verdict> {
    use std::sync::LazyLock;
    use tokio::runtime::{Builder, Runtime};
    static WORLD: LazyLock<(Runtime, Keys)> = LazyLock::new(|| {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let dns = Dns::start();
        let keys = runtime.block_on(async { Keys::new(&[dns.address()]).unwrap() });
        (runtime, keys)
    });
    let policy = trust::policy();
    let (runtime, keys) = &*WORLD;
    match runtime.block_on(judge(mail, &policy, keys)).finding {
        Finding::Notice(_, verdict) => Some(verdict),
        Finding::NotANotice(_) => None,
    }
}
