//! DKIM, end to end: signed mails, a DNS of our own, and the real binary.

use jiff::{SignedDuration, Timestamp};

use crate::process::Machine;
use crate::support::dns::{Dns, Mood};
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{TokenMail, token};
use crate::support::signer::Signer;

const USER: &str = "mariana@idalko.com";
const HEADERS: [&str; 4] = ["From", "To", "Subject", "Date"];

struct World {
    server: ImapServer,
    dns: Dns,
    signer: Signer,
    machine: Machine,
}

impl World {
    async fn new() -> Self {
        let server = ImapServer::start(Options::default()).await;
        let (dns, signer) = (Dns::start(), Signer::new());
        dns.publish("sf._domainkey.salesforce.com", &signer.record());
        let machine = Machine::new("");
        let ca = machine.folder.path().join("ca.pem");
        std::fs::write(&ca, server.ca_pem()).unwrap();
        machine.configure(&format!(
            "state-dir = \"STATE\"\n[trust]\ndns-servers = [\"{}\"]\n\
             [[account]]\nusername = \"{USER}\"\n\
             [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nport = {}\n\
             ca-file = \"{}\"\nuser = \"ops@example.com\"\n",
            dns.address(),
            server.port(),
            ca.display()
        ));
        machine.set_secret("mailbox/ops", "mailbox-pass");
        machine.set_secret(&format!("account/{USER}"), "pass");
        Self {
            server,
            dns,
            signer,
            machine,
        }
    }

    fn mail(seed: u64, minutes_ago: i64) -> Vec<u8> {
        let date = Timestamp::now() - SignedDuration::from_mins(minutes_ago);
        TokenMail::new(USER, &token(seed), date).forged().bytes()
    }

    fn signed(&self, mail: &[u8]) -> Vec<u8> {
        self.signer.sign(mail, "salesforce.com", "sf", &HEADERS)
    }

    fn credential(&self) -> Option<String> {
        self.machine.credential(USER)
    }

    /// What `extract` says of a mail: verdict and reason.
    fn extract(&self, mail: &[u8]) -> (String, String) {
        let path = self.machine.folder.path().join("mail.eml");
        std::fs::write(&path, mail).unwrap();
        let ended = self
            .machine
            .run(&["extract", "--json", path.to_str().unwrap()]);
        let line: serde_json::Value = serde_json::from_str(ended.stdout.trim()).unwrap();
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        (text("verdict"), text("reason"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_mail_is_taken_and_its_date_decides_the_order() {
    let world = World::new().await;
    let daemon = world.machine.daemon();
    world.server.wait_idling(1).await;
    world.server.deliver(&world.signed(&World::mail(2, 5)));
    let line = daemon.wait_for("credential.updated", |_| true);
    assert_eq!(line["proof"], "signed by salesforce.com with key sf");
    world.server.deliver(&world.signed(&World::mail(1, 30)));
    daemon.wait_for("notice.older", |_| true);
    assert_eq!(world.credential(), Some(format!("pass{}", token(2))));
    assert_eq!(world.dns.asked(), 1, "the key is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_by_salesforce_is_held() {
    let world = World::new().await;
    let mail = World::mail(1, 0);
    let text = String::from_utf8(world.signed(&mail)).unwrap();
    world
        .dns
        .publish("sf._domainkey.evil.example", &world.signer.record());
    for (forged, reason) in [
        (mail.clone(), "sender-not-proved"),
        (
            text.replace(&token(1), &token(7)).into_bytes(),
            "dkim-failed",
        ),
        (
            text.replace("To: admin@", "To: other@").into_bytes(),
            "dkim-failed",
        ),
        (
            world.signer.sign(&mail, "evil.example", "sf", &HEADERS),
            "sender-not-proved",
        ),
        (
            world.signer.sign(&mail, "salesforce.com", "gone", &HEADERS),
            "dkim-failed",
        ),
        (
            Signer::new().sign(&mail, "salesforce.com", "sf", &HEADERS),
            "dkim-failed",
        ),
        (
            world
                .signer
                .sign(&mail, "salesforce.com", "sf", &["To", "Subject"]),
            "dkim-failed",
        ),
    ] {
        assert_eq!(world.extract(&forged), ("untrusted".into(), reason.into()));
    }
    assert_eq!(
        world.extract(&world.signed(&mail)),
        ("trusted".into(), String::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_dns_is_down_a_mail_waits_and_is_not_forgotten() {
    let world = World::new().await;
    world.dns.mood(Mood::Servfail);
    world.server.deliver(&world.signed(&World::mail(1, 0)));
    let ended = world.machine.run(&["run", "--once"]);
    ended.failed(69, "cannot be judged now", "the DNS does not answer");
    assert_eq!(world.credential(), None);
    // The cursor has passed it; it is looked at again all the same.
    world.dns.mood(Mood::Well);
    world.machine.ok(&["run", "--once"]);
    assert_eq!(world.credential(), Some(format!("pass{}", token(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_mail_is_a_problem_and_what_was_taken_stays_taken() {
    let world = World::new().await;
    let daemon = world.machine.daemon();
    world.server.wait_idling(1).await;
    world.dns.mood(Mood::Servfail);
    world.server.deliver(&world.signed(&World::mail(1, 5)));
    daemon.wait_for("notice.undecided", |_| true);
    let status = world
        .machine
        .wait_status(|status| status["state"] == "degraded");
    let problems = status["problems"].as_array().unwrap();
    assert!(
        problems.iter().any(|p| p["code"] == "sender-undecided"),
        "{status}"
    );
    world.dns.mood(Mood::Well);
    world.machine.ok(&["resync"]);
    assert_eq!(world.credential(), Some(format!("pass{}", token(1))));
    let status = world
        .machine
        .wait_status(|status| status["state"] == "healthy");
    assert_eq!(status["held"], 0);
    assert!(daemon.stop().0.success());

    // The key is not there any more, as after a rotation: nothing is undone.
    world
        .dns
        .publish("sf._domainkey.salesforce.com", "v=DKIM1; k=ed25519; p=");
    let daemon = world.machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    let printed = world.machine.ok(&["resync", "--since", "all"]);
    assert!(
        printed.contains("1 duplicate") && printed.contains("0 held"),
        "{printed}"
    );
    assert_eq!(world.machine.status()["held"], 0);
}

/// A replay of an old mail with a second date beside the signed one, written
/// so that a lenient parser takes it and the signature does not cover it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_with_a_date_in_disguise_moves_nothing() {
    let world = World::new().await;
    let daemon = world.machine.daemon();
    world.server.wait_idling(1).await;
    world.server.deliver(&world.signed(&World::mail(2, 5)));
    daemon.wait_for("credential.updated", |_| true);
    let old = String::from_utf8(world.signed(&World::mail(1, 600_000))).unwrap();
    for (nth, field) in ["Date :", "Da te:", "DATE:"].iter().enumerate() {
        let replay = old.replacen(
            "\r\n\r\n",
            &format!("\r\n{field} Fri, 1 Jan 2099 00:00:00 +0000\r\n\r\n"),
            1,
        );
        world.server.deliver(replay.as_bytes());
        let line = daemon.wait_for_nth("notice.held", nth + 1, |_| true);
        assert_eq!(line["reason"], "duplicate-header");
    }
    // Truly signed, and years ahead: it counts as made when it came in.
    world
        .server
        .deliver(&world.signed(&World::mail(3, -40_000_000)));
    daemon.wait_for_nth("credential.updated", 2, |_| true);
    world.server.deliver(&world.signed(&World::mail(4, -61)));
    daemon.wait_for_nth("credential.updated", 3, |_| true);
    assert_eq!(world.credential(), Some(format!("pass{}", token(4))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_mail_that_is_deleted_is_waited_for_no_more() {
    let world = World::new().await;
    world.dns.mood(Mood::Servfail);
    let uid = world.server.deliver(&world.signed(&World::mail(1, 0)));
    assert_eq!(world.machine.run(&["run", "--once"]).code, 69);
    world.server.expunge(uid);
    let ended = world.machine.run(&["--log", "info", "run", "--once"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("\"gone\""), "{}", ended.stderr);
}
