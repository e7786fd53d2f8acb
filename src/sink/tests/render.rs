//! The formats, against real sh and against parsers that were written down from the manuals.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::render;
use super::credential;

/// Passwords that somebody thought of, each with something that means something somewhere.
const NASTY: &[&str] = &[
    "plainToken123",
    "pass word",
    " leading and trailing ",
    "a'b",
    "a\"b",
    "a`b`c",
    "$HOME",
    "${HOME}",
    "$(id)",
    "a$",
    "a\\b",
    "a\\",
    "a\\\\",
    "\\",
    "'\\",
    "it's \"all\" $1 `of` \\it",
    "#comment",
    "a #comment",
    "a;b",
    "a&b|c<d>e",
    "~root",
    "a=b=c",
    "!history!",
    "*?[a]",
    "{a,b}",
    "%h%%",
    "\u{fc}mlaut-\u{1f600}",
    "'",
    "\"",
    "''",
    "a'b'c",
    "- -n",
    "\\n\\t",
    "-",
];

fn env(secret: &str) -> String {
    let bytes = render::env(&credential("mariana@idalko.com", secret)).unwrap();
    String::from_utf8(bytes.into_bytes().to_vec()).unwrap()
}

/// What real sh makes of each file.
fn by_sh(files: &[String]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (at, text) in files.iter().enumerate() {
        let path = folder.path().join(at.to_string());
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        paths.push(path);
    }
    let script = "for f; do unset SALESFORCE_PASSWORD; . \"$f\"; printf '%s\\0' \"$SALESFORCE_PASSWORD\"; done";
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(paths)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut values: Vec<_> = printed.split('\0').map(str::to_owned).collect();
    assert_eq!(values.pop().as_deref(), Some(""));
    values
}

/// `EnvironmentFile=` as systemd.exec(5) describes it, one assignment a line.
fn by_systemd(file: &str) -> String {
    let line = file.lines().nth(1).unwrap();
    let text = line.strip_prefix("SALESFORCE_PASSWORD=").unwrap();
    let text = text.trim_matches([' ', '\t', '\r']);
    let mut value = String::new();
    let mut rest = text.chars();
    match rest.clone().next() {
        Some('\'') => {
            rest.next();
            for c in rest.by_ref() {
                if c == '\'' {
                    break;
                }
                value.push(c);
            }
            assert_eq!(rest.as_str(), "", "nothing follows the quoted text");
        }
        Some('"') => {
            rest.next();
            loop {
                match rest.next().expect("the quotes are closed") {
                    '"' => break,
                    '\\' => match rest.next().unwrap() {
                        c @ ('"' | '\\' | '`' | '$') => value.push(c),
                        c => value.extend(['\\', c]),
                    },
                    c => value.push(c),
                }
            }
            assert_eq!(rest.as_str(), "", "nothing follows the quoted text");
        }
        _ => {
            while let Some(c) = rest.next() {
                value.push(if c == '\\' { rest.next().unwrap() } else { c });
            }
        }
    }
    value
}

/// An env file as the documentation of Docker Compose describes it ("Syntax for environment
/// files within Docker Compose"): no quotes, with variables and comments; single quotes, literal
/// but for an escaped quote; double quotes, with escapes and variables.
fn by_compose(file: &str) -> String {
    let line = file.lines().nth(1).unwrap();
    let text = line.strip_prefix("SALESFORCE_PASSWORD=").unwrap();
    let mut value = String::new();
    let mut rest = text.chars();
    if let Some(quote @ ('\'' | '"')) = text.chars().next() {
        rest.next();
        loop {
            match rest.next().expect("the quotes are closed") {
                c if c == quote => break,
                '\\' => match rest.next().expect("the quotes are closed") {
                    c if c == quote => value.push(c),
                    c @ ('\\' | '$') if quote == '"' => value.push(c),
                    c => value.extend(['\\', c]),
                },
                '$' if quote == '"' => panic!("a variable"),
                c => value.push(c),
            }
        }
        assert_eq!(rest.as_str(), "");
    } else {
        assert!(!text.contains(['$', '#']) && text.trim() == text);
        value.push_str(text);
    }
    value
}

#[test]
fn nasty_passwords_are_read_back_by_sh_systemd_and_compose() {
    let files: Vec<_> = NASTY.iter().map(|secret| env(secret)).collect();
    assert_eq!(by_sh(&files), NASTY);
    for (file, secret) in files.iter().zip(NASTY) {
        assert_eq!(by_systemd(file), *secret, "{file}");
        // No spelling of it means the same to sh and to compose.
        let has_none = secret.contains('`') && (secret.contains('\'') || secret.ends_with('\\'));
        assert!(has_none || by_compose(file) == *secret, "{file}");
        let literal = render::docker_env(&credential("u@x.y", secret)).unwrap();
        let literal = String::from_utf8(literal.into_bytes().to_vec()).unwrap();
        let expected = format!("SALESFORCE_USERNAME=u@x.y\nSALESFORCE_PASSWORD={secret}\n");
        assert_eq!(literal, expected);
    }
}

#[test]
fn quotes_stand_only_where_they_must() {
    assert_eq!(
        env("pa55+word/TOKEN=="),
        "SALESFORCE_USERNAME=mariana@idalko.com\nSALESFORCE_PASSWORD=pa55+word/TOKEN==\n"
    );
    assert!(env("a b").ends_with("SALESFORCE_PASSWORD='a b'\n"));
}

#[test]
fn what_a_format_cannot_hold_is_refused_and_not_shown() {
    for secret in [
        "hunter2\nX=1",
        "hunter2\0",
        "hunter2\u{feff}",
        "hunter2\u{ffff}",
        "hunter2\u{fdd0}",
    ] {
        let credential = credential("u@x.y", secret);
        for error in [
            render::env(&credential).err().unwrap(),
            render::docker_env(&credential).err().unwrap(),
        ] {
            assert_eq!(error.code(), "unfit");
            assert!(!format!("{error} {error:?} {}", error.hint()).contains("hunter2"));
        }
    }
}

#[test]
fn json_and_raw_hold_any_text() {
    for secret in NASTY.iter().copied().chain(["line\nline", "\u{feff}"]) {
        let credential = credential("mariana@idalko.com", secret);
        let raw = render::raw(&credential).into_bytes();
        assert_eq!(*raw, secret.as_bytes());
        let line = render::json_line(&render::Object::of(&credential)).into_bytes();
        let end = line.iter().position(|byte| *byte == b'\n');
        assert_eq!(end, Some(line.len() - 1));
        let value: Value = serde_json::from_slice(&line).unwrap();
        let expected = json!({
            "username": "mariana@idalko.com", "password": secret, "version": 7,
            "fingerprint": "0f1e2d3c", "received": "2026-11-24T15:00:00Z",
        });
        assert_eq!(value, expected);
    }
}

#[test]
fn a_username_leaves_no_folder_and_meets_no_other() {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"@._+-".contains(&b);
    for (username, name) in [
        ("mariana@idalko.com", "mariana@idalko.com"),
        ("a/../b@x.y", "a%2F..%2Fb@x.y"),
        ("../x@y.z", "%2E.%2Fx@y.z"),
        (".x@y.z", "%2Ex@y.z"),
        ("a%2Fb@x.y", "a%252Fb@x.y"),
        ("\u{e9}@x.y", "%C3%A9@x.y"),
        ("a\n@x.y", "a%0A@x.y"),
    ] {
        assert_eq!(render::encoded(username, is_plain), name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A hundred passwords a case, so that one sh reads them all.
    #[test]
    fn any_password_is_read_back(
        secrets in prop::collection::vec("[ -~\u{a0}-\u{2ff}]{1,24}|[ a'\"\\\\`$#;=]{1,8}", 100),
    ) {
        let files: Vec<_> = secrets.iter().map(|secret| env(secret)).collect();
        prop_assert_eq!(&by_sh(&files), &secrets);
        for (file, secret) in files.iter().zip(&secrets) {
            prop_assert_eq!(&by_systemd(file), secret);
            if !(secret.contains('`') && (secret.contains('\'') || secret.ends_with('\\'))) {
                prop_assert_eq!(&by_compose(file), secret);
            }
        }
    }

    #[test]
    fn the_filter_shell_makes_one_word(secrets in prop::collection::vec("[ -~\n\t]{0,24}", 100)) {
        let files: Vec<_> = secrets
            .iter()
            .map(|secret| format!("SALESFORCE_PASSWORD={}\n", render::shell(secret)))
            .collect();
        prop_assert_eq!(&by_sh(&files), &secrets);
    }

    #[test]
    fn names_are_one_to_one(one in "[a-z%/.@2F]{1,6}", other in "[a-z%/.@2F]{1,6}") {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"@._+-".contains(&b);
        let names = [&one, &other].map(|name| render::encoded(name, is_plain));
        prop_assert_eq!(names[0] == names[1], one == other);
        prop_assert!(!names[0].contains('/') && !names[0].starts_with('.'));
    }
}
