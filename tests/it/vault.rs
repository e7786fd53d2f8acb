//! The commands over the vault as a whole.

use crate::process::Machine;

const USER: &str = "mariana@idalko.com";

fn basic(more: &str) -> String {
    format!(
        "state-dir = \"STATE\"\n[vault]\n{more}\n[[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nuser = \"u\"\n"
    )
}

#[test]
fn a_daemon_is_stopped_before_the_vault_is_changed_as_a_whole() {
    let machine = Machine::new(&basic(""));
    machine.set_secret("mailbox/ops", "x");
    let vault = machine.state_dir().join("vault.age");
    let before = std::fs::read(&vault).unwrap();
    let daemon = machine.daemon();
    for arguments in [
        &["vault", "move", "--to", "keyutils"][..],
        &["vault", "rekey"],
    ] {
        machine
            .run(arguments)
            .failed(1, "a daemon has the vault open", "stop the daemon first");
    }
    daemon.stop();
    assert_eq!(std::fs::read(&vault).unwrap(), before);
}

#[test]
fn another_key_opens_the_vault_and_the_old_one_opens_old_copies() {
    let machine = Machine::new(&basic(""));
    machine
        .run(&["vault", "rekey"])
        .failed(1, "there is no vault", "secret set");
    machine.set_secret("mailbox/ops", "x");
    let (vault, key) = (
        machine.state_dir().join("vault.age"),
        machine.state_dir().join("vault.key"),
    );
    let old = [std::fs::read(&vault).unwrap(), std::fs::read(&key).unwrap()];
    let ended = machine.run(&["vault", "rekey"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("copies of the old key still open old copies"),
        "{}",
        ended.stderr
    );
    assert_eq!(machine.ok(&["secret", "list"]), "mailbox/ops\n");
    assert!(std::fs::read(&key).unwrap() != old[1]);
    let newer = std::fs::read(&key).unwrap();
    std::fs::write(&key, &old[1]).unwrap();
    machine
        .run(&["secret", "list"])
        .failed(77, "does not open", "the right key");
    std::fs::write(&vault, &old[0]).unwrap();
    assert_eq!(machine.ok(&["secret", "list"]), "mailbox/ops\n");
    std::fs::write(&key, newer).unwrap();
    machine
        .run(&["secret", "list"])
        .failed(77, "does not open", "the right key");
}

#[test]
fn what_cannot_be_moved_or_changed_is_said() {
    let machine = Machine::new(&basic(""));
    machine.run(&["vault", "move", "--to", "file"]).failed(
        2,
        "in the store file already",
        "name another",
    );
    machine.configure(&basic("backend = \"keyutils\""));
    machine
        .run(&["vault", "rekey"])
        .failed(2, "keyutils has no key", "encrypted file alone");
    let key = machine.folder.path().join("key");
    std::fs::write(&key, "").unwrap();
    machine.configure(&basic("key = \"credential:key\""));
    let machine = machine.with(
        "CREDENTIALS_DIRECTORY",
        key.parent().unwrap().to_str().unwrap(),
    );
    machine
        .run(&["vault", "rekey"])
        .failed(1, "is a systemd credential", "systemd-creds");
}

#[test]
fn a_recipient_that_is_none_is_refused_and_not_repeated() {
    for wrong in ["age1nonsense", "AGE-SECRET-KEY-1HUNTER2", ""] {
        let machine = Machine::new(&basic(&format!("recipients = [\"{wrong}\"]")));
        let ended = machine.run(&["secret", "list"]);
        ended.failed(78, "`vault.recipients`", "age-keygen");
        assert!(wrong.is_empty() || !ended.stderr.contains(wrong));
    }
}

/// The break-glass promise: a key that was never on this machine opens it.
#[test]
#[cfg(feature = "system-tests")]
fn stock_age_opens_the_vault_with_an_offline_key() {
    use std::process::Command;

    let machine = Machine::new(&basic(""));
    let offline = machine.folder.path().join("offline.key");
    let made = Command::new("age-keygen").arg("-o").arg(&offline).output();
    assert!(made.unwrap().status.success());
    let text = std::fs::read_to_string(&offline).unwrap();
    let public = text
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap();
    let open = || {
        let output = Command::new("age")
            .args(["-d", "-i"])
            .arg(&offline)
            .arg(machine.state_dir().join("vault.age"))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    machine.set_secret("mailbox/ops", "before");
    machine.configure(&basic(&format!("recipients = [\"{public}\"]")));
    machine.ok(&["secret", "list"]);
    assert_eq!(open(), "", "nothing was written since");
    machine.set_secret(&format!("account/{USER}"), "after");
    let content = open();
    assert!(
        content.contains("before") && content.contains("after"),
        "{content}"
    );
    machine.ok(&["vault", "rekey"]);
    assert!(open().contains("after"));
    machine.configure(&basic(""));
    machine.set_secret("mailbox/ops", "later");
    assert_eq!(open(), "", "it is on the list no more");
}

#[test]
#[cfg(feature = "system-tests")]
fn a_vault_in_memory_is_warned_of() {
    let machine = Machine::new(&basic(""));
    let _disk = crate::system::Disk::mount(&machine.state_dir());
    machine.set_secret(&format!("account/{USER}"), "x");
    machine.set_secret("mailbox/ops", "x");
    let checked = machine.run(&["check", "--offline"]);
    assert_eq!(
        checked.code, 0,
        "a warning is no failure: {}",
        checked.stdout
    );
    assert!(
        checked.stdout.contains("! vault after a reboot")
            && checked.stdout.contains("file system in memory"),
        "{}",
        checked.stdout
    );
}

/// The disk is full in the middle of it: a limit on the size of files stands
/// for the disk, for it lets the key through and not the vault.
#[test]
#[cfg(feature = "system-tests")]
fn a_full_disk_ends_a_change_of_the_key_and_nothing_is_lost() {
    use std::process::Command;

    let machine = Machine::new(&basic(""));
    // Larger than the journal, which the limit lets through as well.
    for name in ["mailbox/a", "mailbox/b", "mailbox/c"] {
        machine.set_secret(name, &"x".repeat(60_000));
    }
    let limited = |arguments: &[&str]| {
        let inner = machine.command(arguments);
        let output = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
            .args(["prlimit", "--fsize=120000:"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", machine.folder.path())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (vault, key) = (
        machine.state_dir().join("vault.age"),
        machine.state_dir().join("vault.key"),
    );
    let before = [std::fs::read(&vault).unwrap(), std::fs::read(&key).unwrap()];
    let (code, said) = limited(&["vault", "rekey"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("cannot write") && said.contains("hint: "),
        "{said}"
    );
    assert!(machine.state_dir().join("vault.key.next").exists());
    let after = [std::fs::read(&vault).unwrap(), std::fs::read(&key).unwrap()];
    assert!(before == after);
    machine.ok(&["vault", "rekey"]);
    assert!(!machine.state_dir().join("vault.key.next").exists());
    assert_eq!(machine.ok(&["secret", "list"]).lines().count(), 3);
}
