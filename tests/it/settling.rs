//! A look that finds several tokens of one account, one after the other: only the last of them is
//! good, and only that one is tried and handed on.

use std::sync::Mutex;
use std::sync::mpsc;

use jiff::{SignedDuration, Timestamp};

use crate::meeting::{USER, machine, misbehaving};
use crate::support::folder::Folder;
use crate::support::mail::{TokenMail, token};
use crate::support::salesforce::Salesforce;

const TOKENS: u32 = 7;

/// What stands in the file of the tests for the account's password.
const PASSWORD: &str = "account-canary-91b4";

/// The token mails of a week.
fn a_week() -> Folder {
    (1..=TOKENS).fold(Folder::empty(), |folder, number| {
        let made = Timestamp::now() - SignedDuration::from_hours(24 * i64::from(TOKENS - number));
        folder.with(number, &TokenMail::new(USER, &token(number.into()), made))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_a_look_has_left_behind_are_neither_tried_nor_handed_on() {
    let salesforce = Salesforce::start().await;
    salesforce.set(USER, PASSWORD, &token(TOKENS.into()));
    // The last mail is handed out when the first has been taken in.
    let (hand_out, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let last = format!("UID FETCH {TOKENS} ");
    let server = misbehaving(a_week(), move |command| {
        if command.starts_with(&last) && command.contains("BODY.PEEK[]") {
            tokio::task::block_in_place(|| waits.lock().unwrap().recv().unwrap());
        }
        None
    })
    .await;
    let machine = machine(&server, "");
    let told = machine.folder.path().join("told");
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    let account = format!("username = \"{USER}\"\n");
    let checked = format!(
        "{account}verify = \"soap\"\nlogin-url = \"{}\"\n",
        salesforce.url()
    );
    let sink = format!(
        "[[sink]]\nkind = \"command\"\nargv = [\"/usr/bin/tee\", \"-a\", \"{}\"]\n",
        told.display()
    );
    let text = text.replace(&account, &checked) + &sink;
    std::fs::write(machine.config_file(), text).unwrap();

    let daemon = machine.daemon();
    daemon.wait_for("credential.pending", |_| true);
    hand_out.send(()).unwrap();
    daemon.wait_for("sink.delivered", |_| true);
    let attempts: Vec<_> = salesforce
        .attempts()
        .into_iter()
        .map(|one| one.password)
        .collect();
    let composite = format!("{PASSWORD}{}", token(TOKENS.into()));
    assert_eq!(attempts, [composite.as_str()]);
    let told = std::fs::read_to_string(told).unwrap();
    assert_eq!(told.matches("\"username\"").count(), 1, "{told}");
    assert!(told.contains(&composite), "{told}");
    assert!(daemon.stop().0.success());
}
