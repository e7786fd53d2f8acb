//! Invariant 1: a crash at any moment, and the same final state.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{TokenMail, token};
use crate::watching::machine;

const USER: &str = "mariana@idalko.com";

#[tokio::test(flavor = "multi_thread")]
async fn killed_fifty_times_under_delivery_the_newest_token_is_there() {
    let server = ImapServer::start(Options::default()).await;
    let machine = machine(&server, "");
    machine.set_secret(&format!("account/{USER}"), "pass");
    let start = Timestamp::now() - SignedDuration::from_hours(1);
    let mut newest = 0;
    for round in 0..50_u64 {
        let daemon = machine.daemon_at("info");
        // Half of the rounds are killed while it starts and catches up, half of
        // them while it takes in what is delivered before its eyes.
        let span = if round % 2 == 0 {
            200_000
        } else {
            daemon.wait_for("mailbox.watching", |_| true);
            20_000
        };
        let last = fastrand::u64(0..10);
        for n in 0..=last {
            newest = round * 10 + n;
            let at = start + SignedDuration::from_secs(i64::try_from(newest).unwrap());
            server.deliver(&TokenMail::new(USER, &token(newest), at).bytes());
        }
        // Any moment between the exec, or the first EXISTS, and the last cursor.
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..span))).await;
        daemon.kill();
    }
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    assert_eq!(
        machine.credential(USER),
        Some(format!("pass{}", token(newest)))
    );
    let status = machine.wait_status(|status| status["state"] == "healthy");
    assert_eq!(status["held"], 0);
    // Nothing is left to be found: every mail has its outcome.
    let printed = machine.ok(&["resync", "--since", "all", "--json"]);
    let last: serde_json::Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(last["updated"], 0, "{last}");
    assert!(daemon.stop().0.success());
}
