//! What needs system packages: systemd's own tools, a disk that is full. They
//! are installed by `tests/run`, which turns the feature `system-tests` on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::process::{Daemon, Faketime, Machine};
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{TokenMail, token};
use crate::watching::machine;

const USER: &str = "mariana@idalko.com";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("tokenwatch.service");
    let text = std::fs::read_to_string(shipped("systemd/tokenwatch.service")).unwrap();
    // The binary is not installed here.
    let text = text
        .replace("/usr/bin/tokenwatch", env!("CARGO_BIN_EXE_tokenwatch"))
        .replace("#LoadCredentialEncrypted", "LoadCredentialEncrypted");
    std::fs::write(&unit, text).unwrap();
    let (ok, said) = run(Command::new("systemd-analyze").arg("verify").arg(&unit));
    assert!(ok && said.is_empty(), "{said}");
    let (ok, said) = run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20"])
        .arg(&unit));
    assert!(ok, "the exposure is above 2.0: {said}");
    let (ok, said) = run(Command::new("systemd-sysusers")
        .args(["--dry-run", "--replace=/usr/lib/sysusers.d/tokenwatch.conf"])
        .arg(shipped("systemd/sysusers.d/tokenwatch.conf")));
    assert!(ok && said.contains("tokenwatch"), "{said}");
}

/// A small disk, mounted for one test.
pub struct Disk(PathBuf);

impl Disk {
    pub fn mount(at: &Path) -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        std::fs::create_dir_all(at).unwrap();
        let options = format!(
            "size=1m,mode=0700,uid={},gid={}",
            uid.as_raw(),
            gid.as_raw()
        );
        let (ok, said) = run(as_root("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at));
        assert!(ok, "{said}");
        Self(at.to_owned())
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = [0_u8; 512];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(as_root("umount").arg("--lazy").arg(&self.0));
    }
}

pub fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn ready(server: &ImapServer) -> (Machine, Disk) {
    let machine = machine(server, "");
    machine.set_secret(&format!("account/{USER}"), "pass");
    // The state moves to the small disk.
    let kept = machine.folder.path().join("kept");
    std::fs::rename(machine.state_dir(), &kept).unwrap();
    let disk = Disk::mount(&machine.state_dir());
    for file in ["vault.age", "vault.key"] {
        std::fs::copy(kept.join(file), machine.state_dir().join(file)).unwrap();
    }
    (machine, disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_nothing_is_lost() {
    let server = ImapServer::start(Options::default()).await;
    let (machine, disk) = ready(&server);
    disk.fill();
    machine
        .run(&["run", "--once"])
        .failed(1, "journal", "make room on the disk");
    machine
        .run_with_input(&["secret", "set", "mailbox/ops"], "other")
        .failed(1, "error", "make room on the disk");
    disk.make_room();

    // While it runs: the mail waits until there is room, and then is taken.
    let daemon = machine.daemon();
    server.wait_idling(1).await;
    disk.fill();
    server.deliver(&TokenMail::new(USER, &token(1), Timestamp::now()).bytes());
    daemon.wait_for("mailbox.lost", |line| {
        line["hint"].as_str().unwrap().contains("make room")
    });
    let status = machine.wait_status(|status| status["state"] == "degraded");
    let problems = status["problems"].as_array().unwrap();
    assert!(
        problems.iter().any(|p| p["code"] == "storage-failed"),
        "{status}"
    );
    assert_eq!(machine.credential(USER), None);
    disk.make_room();
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(machine.credential(USER), Some(format!("pass{}", token(1))));
    machine.wait_status(|status| status["state"] == "healthy");
    let (status, _, log) = daemon.stop();
    assert!(status.success(), "{status}: {log}");
    assert_eq!(machine.credential(USER), Some(format!("pass{}", token(1))));
}

/// The disk has room for the account's document and not for the entry that others
/// read. They are written together, so that neither is there, and both are made up
/// for. Here a limit on the size of files stands for the disk.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_could_not_be_written_is_made_up_for() {
    let server = ImapServer::start(Options::default()).await;
    let machine = machine(&server, "");
    let password = "p".repeat(4000);
    machine.set_secret(&format!("account/{USER}"), &password);
    // The vault is the largest file, so that the limit hits it alone.
    for name in ["mailbox/a", "mailbox/b", "mailbox/c"] {
        machine.set_secret(name, &"x".repeat(60_000));
    }
    let vault = machine.state_dir().join("vault.age");
    let limit = std::fs::metadata(&vault).unwrap().len() + 3000;
    let mut limited = Command::new("sh");
    let run = machine.command(&["--log-format", "json", "run"]);
    limited.args([
        "-c",
        "trap '' XFSZ; exec \"$@\"",
        "sh",
        "prlimit",
        &format!("--fsize={limit}:"),
    ]);
    limited.arg(run.get_program()).args(run.get_args());
    limited
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", machine.folder.path());
    let daemon = Daemon::start(limited);
    daemon.wait_for("mailbox.watching", |_| true);
    server.deliver(&TokenMail::new(USER, &token(1), Timestamp::now()).bytes());
    daemon.wait_for("mailbox.lost", |_| true);
    assert_eq!(machine.versions(USER), 0, "the document is not there");
    assert_eq!(machine.credential(USER), None, "nor is the entry");
    machine.wait_status(|status| status["state"] == "degraded");
    let pid = daemon.pid().as_raw_nonzero().to_string();
    assert!(run_ok(Command::new("prlimit").args([
        "--pid",
        &pid,
        "--fsize=unlimited:"
    ])));
    daemon.wait_for("credential.published", |_| true);
    assert_eq!(
        machine.credential(USER),
        Some(format!("{password}{}", token(1)))
    );
    machine.wait_status(|status| status["state"] == "healthy");
}

fn run_ok(command: &mut Command) -> bool {
    run(command).0
}

/// Who is neither root nor the daemon's user gets no secret, even where the
/// socket lets him in.
#[test]
fn a_stranger_on_the_socket_gets_no_secret() {
    use std::os::unix::fs::PermissionsExt;
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let machine = Machine::new(
        "state-dir = \"STATE\"\n[[account]]\nusername = \"a@b.co\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nuser = \"u\"\n",
    );
    let runtime = machine.folder.path().join("run");
    let mut daemon = machine.command(&["--log-format", "json", "run"]);
    daemon.env("XDG_RUNTIME_DIR", &runtime);
    let daemon = Daemon::start(daemon);
    daemon.wait_for("daemon.ready", |_| true);
    open(machine.folder.path(), 0o755);
    open(&machine.config_file(), 0o644);
    for folder in [runtime.clone(), runtime.join("tokenwatch")] {
        open(&folder, 0o755);
    }
    open(&runtime.join("tokenwatch/control.sock"), 0o666);
    // The binary may lie where strangers cannot go.
    let binary = machine.folder.path().join("tokenwatch");
    std::fs::copy(env!("CARGO_BIN_EXE_tokenwatch"), &binary).unwrap();
    open(&binary, 0o755);
    let ask = |arguments: &[&str]| {
        let mut command = as_root("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "env"]);
        command.arg(format!("XDG_RUNTIME_DIR={}", runtime.display()));
        command
            .arg(&binary)
            .arg("--config")
            .arg(machine.config_file())
            .args(arguments);
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for arguments in [
        &["credential", "list"][..],
        &["credential", "get", "a@b.co"],
        &["credential", "history", "a@b.co"],
        &["secret", "list"],
        &["secret", "remove", "mailbox/ops"],
        &["held"],
        &["held", "accept", "1", "--yes"],
        &["held", "drop", "1"],
        &["check"],
    ] {
        let (code, said) = ask(arguments);
        assert_eq!(code, Some(77), "{arguments:?}: {said}");
    }
    assert_eq!(
        ask(&["status"]).0,
        Some(1),
        "the status is for all who get as far"
    );
}

/// While a machine sleeps its timers stand still and the wall clock goes on:
/// libfaketime does the same to one process.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_sleep_every_line_is_looked_after_at_once() {
    let server = ImapServer::start(Options::default()).await;
    let machine = machine(&server, "idle-renew = \"25m\"");
    let clock = Faketime::new(&machine);
    let daemon = clock.daemon(&machine);
    daemon.wait_for("mailbox.watching", |_| true);
    server.wait_idling(1).await;
    let ended = |server: &ImapServer| {
        let commands = server.commands();
        commands.iter().filter(|line| line.contains("DONE")).count()
    };
    assert_eq!(ended(&server), 0);
    clock.turn(120);
    let line = daemon.wait_for("daemon.woke", |_| true);
    assert!(line["seconds"].as_u64().unwrap() > 7000, "{line}");
    // Long before its time IDLE is ended and begun anew.
    let deadline = Instant::now() + Duration::from_secs(10);
    while ended(&server) == 0 {
        assert!(Instant::now() < deadline, "{:?}", server.commands());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.wait_idling(1).await;
}
