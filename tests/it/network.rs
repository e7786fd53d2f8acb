//! A line that goes silent, goes away, or is a bad one.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::netns::{HERE, Network};
use crate::process::{Daemon, Machine};
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{RECEIVER, TokenMail, newsletter, token};

const USER: &str = "mariana@idalko.com";

/// A server at this end of the line.
async fn server() -> ImapServer {
    ImapServer::start(Options {
        address: HERE.into(),
        ..Options::default()
    })
    .await
}

/// A machine that knows the server, and proves every five seconds that it is there.
fn machine(server: &ImapServer) -> Machine {
    let machine = Machine::new("");
    let ca = machine.folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).unwrap();
    machine.configure(&format!(
        "state-dir = \"STATE\"\n\
         [trust]\naccept = [\"receiver\"]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"{}\"\nport = {}\nca-file = \"{}\"\n\
         user = \"ops@example.com\"\nidle-renew = \"5s\"\n",
        HERE,
        server.port(),
        ca.display()
    ));
    machine.set_secret("mailbox/ops", "mailbox-pass");
    machine.set_secret(&format!("account/{USER}"), "sf-pass");
    machine
}

/// The daemon at the other end.
fn daemon(network: &Network, machine: &Machine) -> Daemon {
    let run = machine.command(&["--log", "info", "--log-format", "json", "run"]);
    Daemon::start(network.inside(&run))
}

fn mail(seed: u64) -> Vec<u8> {
    TokenMail::new(USER, &token(seed), Timestamp::now()).bytes()
}

fn composite(seed: u64) -> Option<String> {
    Some(format!("sf-pass{}", token(seed)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_goes_silent_is_noticed_and_what_came_meanwhile_is_taken() {
    let test = "network::a_line_that_goes_silent_is_noticed_and_what_came_meanwhile_is_taken";
    let Some(network) = Network::enter(test) else {
        return;
    };
    let server = server().await;
    let machine = machine(&server);
    let daemon = daemon(&network, &machine);
    server.wait_idling(1).await;
    server.deliver(&mail(1));
    daemon.wait_for_nth("credential.updated", 1, |_| true);
    server.wait_idling(1).await;
    machine.wait_status(|status| status["state"] == "healthy");

    network.drop_packets();
    let silent = Instant::now();
    server.deliver(&mail(2));
    daemon.wait_for("mailbox.lost", |_| true);
    let noticed = silent.elapsed();
    assert!(noticed < Duration::from_secs(35), "only after {noticed:?}");
    let status = machine.status();
    assert_eq!(status["state"], "degraded", "{status:#}");
    assert_ne!(status["mailboxes"][0]["state"], "watching", "{status:#}");
    assert!(
        status["mailboxes"][0]["last_error"].is_string(),
        "{status:#}"
    );
    assert_eq!(machine.credential(USER), composite(1));

    network.restore();
    daemon.wait_for_nth("credential.updated", 2, |_| true);
    assert_eq!(machine.credential(USER), composite(2));
    machine.wait_status(|status| status["state"] == "healthy");
    assert!(daemon.stop().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_route_it_waits_and_a_short_outage_costs_nothing() {
    let test = "network::without_a_route_it_waits_and_a_short_outage_costs_nothing";
    let Some(network) = Network::enter(test) else {
        return;
    };
    let server = server().await;
    let machine = machine(&server);
    network.unreachable();
    let daemon = daemon(&network, &machine);
    daemon.wait_for("mailbox.lost", |_| true);
    assert_eq!(machine.status()["state"], "degraded");
    network.restore();
    server.wait_idling(1).await;

    // While it is connected, for less than it takes to be noticed.
    network.unreachable();
    server.deliver(&mail(1));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(machine.credential(USER), None);
    network.restore();
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(machine.credential(USER), composite(1));
    assert!(daemon.stop().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_line_that_loses_packets_is_good_enough() {
    let test = "network::a_narrow_line_that_loses_packets_is_good_enough";
    let Some(network) = Network::enter(test) else {
        return;
    };
    let server = server().await;
    for n in 0..20 {
        server.deliver(&newsletter(n));
    }
    server.deliver(&mail(1));
    let machine = machine(&server);
    network.slow(64, 10);
    let daemon = daemon(&network, &machine);
    daemon.wait_for_nth("credential.updated", 1, |_| true);
    server.wait_idling(1).await;
    server.deliver(&mail(2));
    daemon.wait_for_nth("credential.updated", 2, |_| true);
    assert_eq!(machine.credential(USER), composite(2));
    assert_ne!(network.dropped(), 0);
    assert!(daemon.stop().0.success());
}
