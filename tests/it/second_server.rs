//! A server of another make: Cyrus, by the same configuration.

use crate::cyrus_server::{self, Cyrus};
use crate::dovecot::{composite, mail};
use crate::process::Machine;
use crate::support::mail::{RECEIVER, newsletter};

const USER: &str = "mariana@idalko.com";

fn machine(cyrus: &Cyrus) -> Machine {
    let machine = Machine::new(&format!(
        "state-dir = \"STATE\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nport = {}\n\
         ca-file = \"{}\"\nuser = \"{}\"\n",
        cyrus.port(),
        cyrus.ca_file().display(),
        cyrus_server::USER
    ));
    machine.set_secret("mailbox/ops", cyrus_server::PASSWORD);
    machine.set_secret(&format!("account/{USER}"), "sf-pass");
    machine
}

#[test]
fn cyrus_is_watched_and_caught_up_with_after_its_restart() {
    let mut cyrus = Cyrus::start();
    cyrus.deliver(&newsletter(1));
    cyrus.deliver(&mail(1, 9));
    let before = cyrus.flags();
    let machine = machine(&cyrus);
    assert_eq!(machine.run(&["check"]).stdout.matches('✗').count(), 0);
    let daemon = machine.daemon();
    daemon.wait_for_nth("credential.updated", 1, |_| true);
    daemon.wait_for("mailbox.watching", |_| true);
    assert_eq!(machine.credential(USER), composite(1));
    let status = machine.wait_status(|status| status["state"] == "healthy");
    assert_eq!(status["mailboxes"][0]["state"], "watching");

    cyrus.deliver(&mail(2, 8));
    daemon.wait_for_nth("credential.updated", 2, |_| true);
    assert_eq!(machine.credential(USER), composite(2));

    cyrus.stop();
    daemon.wait_for("mailbox.lost", |_| true);
    cyrus.restart();
    cyrus.deliver(&mail(3, 7));
    daemon.wait_for_nth("credential.updated", 3, |_| true);
    daemon.wait_for_nth("mailbox.watching", 2, |_| true);
    assert_eq!(machine.credential(USER), composite(3));
    machine.wait_status(|status| status["state"] == "healthy");
    assert!(daemon.stop().0.success());
    let after = cyrus.flags();
    assert_eq!(after.len(), 4, "{after:?}");
    assert_eq!(after[..2], before, "the mailbox is left as it was");
    for mail in after {
        assert!(mail.contains("SYSFLAGS:00000000"), "{mail}");
    }
}
