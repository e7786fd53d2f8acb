//! Rules of the house that no compiler checks.

use std::path::Path;

use crate::process::files;

fn sources(folder: &str) -> Vec<(String, String)> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.display().to_string(), text)
        })
        .collect()
}

#[test]
fn the_pure_rooms_do_no_io() {
    let banned = [
        "tokio",
        "std::fs",
        "std::env",
        "std::net",
        "std::io",
        "SystemTime",
        "Instant",
        "Timestamp::now",
        "std::process",
        "tracing",
    ];
    let pure: Vec<_> = sources("src/notice")
        .into_iter()
        .chain(sources("src/rotation"))
        .collect();
    assert!(pure.len() >= 6);
    for (path, text) in pure {
        for word in banned {
            assert!(!text.contains(word), "{word} in {path}");
        }
    }
}

#[test]
fn the_rooms_do_not_know_each_other() {
    let rooms = [
        "config",
        "journal",
        "mailbox",
        "notice",
        "oauth",
        "rotation",
        "salesforce",
        "sender",
        "sink",
        "vault",
        "daemon",
        "cli",
    ];
    // `sender` judges the mail that `notice` has parsed, and nothing more.
    let allowed = [("sender", "notice")];
    for room in rooms.iter().copied().take_while(|room| *room != "daemon") {
        for (path, text) in sources(&format!("src/{room}")) {
            for other in rooms.iter().filter(|other| **other != room) {
                if !allowed.contains(&(room, *other)) {
                    assert!(
                        !text.contains(&format!("crate::{other}")),
                        "{other} in {path}"
                    );
                }
            }
        }
    }
}

#[test]
fn secrets_have_no_display_and_no_serialize() {
    let secret =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/secret.rs"))
            .unwrap();
    for banned in [
        "Display for Secret",
        "Serialize for Secret",
        "serde",
        "derive(Debug",
    ] {
        assert!(!secret.contains(banned), "{banned}");
    }
}
