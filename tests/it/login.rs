//! The ways to log in with a password, as servers allow them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::meeting::{MAILBOX_PASSWORD, USER, composite, machine, token_mail};
use crate::support::folder::Folder;
use crate::support::scripted::{Cut, Options, Scripted};

async fn server(capabilities: &'static str) -> Scripted {
    let folder = Folder {
        capabilities,
        ..Folder::empty().with(1, &token_mail())
    };
    let options = Options {
        greeting: folder.greeting(),
        ..Options::default()
    };
    let password = message();
    Scripted::with(options, move |_, command| match command {
        "AUTHENTICATE PLAIN" => "+ \r\n".to_owned(),
        c if *c == password => folder.answer("LOGIN"),
        c => folder.answer(c),
    })
    .await
}

/// The message of PLAIN (RFC 4616).
fn message() -> String {
    STANDARD.encode(format!("\0ops@example.com\0{MAILBOX_PASSWORD}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_is_used_where_it_is_offered_and_sent_at_once_where_that_is() {
    let plain = format!("AUTHENTICATE PLAIN {}", message());
    let quoted = format!("LOGIN \"ops@example.com\" \"{MAILBOX_PASSWORD}\"");
    for (capabilities, said) in [
        ("IMAP4rev1 AUTH=PLAIN SASL-IR", vec![plain.clone()]),
        ("IMAP4rev1 LOGINDISABLED AUTH=PLAIN SASL-IR", vec![plain]),
        (
            "IMAP4rev1 AUTH=PLAIN",
            vec!["AUTHENTICATE PLAIN".to_owned(), message()],
        ),
        ("IMAP4rev1", vec![quoted.clone()]),
        ("IMAP4rev1 AUTH=CRAM-MD5 SASL-IR", vec![quoted]),
    ] {
        let server = server(capabilities).await;
        let machine = machine(&server, "");
        machine.ok(&["run", "--once"]);
        let heard: Vec<String> = server.heard().into_iter().map(|(_, said)| said).collect();
        assert_eq!(heard[..said.len()], said, "{capabilities}");
        assert_eq!(machine.credential(USER), composite());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_sent_where_logins_are_disabled() {
    let server = server("IMAP4rev1 LOGINDISABLED").await;
    let ended = machine(&server, "").run(&["run", "--once"]);
    ended.failed(ended.code, "no login by password", "another way to log in");
    assert_ne!(ended.code, 0);
    let heard = format!("{:?}", server.heard());
    assert!(!heard.contains(MAILBOX_PASSWORD) && !heard.contains(&message()));
}

/// Some refuse a password by a reset, behind which no answer is to be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_reset_at_the_login_is_a_server_that_hung_up() {
    let folder = Folder::empty();
    let options = Options {
        greeting: folder.greeting(),
        cut: Some(Cut {
            after: folder.greeting().len() + 1,
            reset: true,
        }),
        ..Options::default()
    };
    let server = Scripted::with(options, move |_, command| folder.answer(command)).await;
    let ended = machine(&server, "").run(&["run", "--once"]);
    ended.failed(69, "hung up during the login", "hint");
    assert_eq!(server.count(1, "LOGIN"), 1);
}
