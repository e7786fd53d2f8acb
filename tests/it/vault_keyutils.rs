//! The kernel's keyring, as a user of its own has it.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::process::Machine;
use crate::system::as_root;

const USER: &str = "mariana@idalko.com";

/// A user who has no other keys, and no processes.
const UID: u32 = 61_234;

struct Stranger {
    machine: Machine,
    uid: u32,
}

impl Stranger {
    /// A user who exists for this test alone.
    fn new(offset: u32, backend: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let stranger = Self {
            machine: Machine::new(""),
            uid: UID + offset,
        };
        stranger.configure(backend);
        let machine = &stranger.machine;
        let binary = machine.folder.path().join("tokenwatch");
        std::fs::copy(env!("CARGO_BIN_EXE_tokenwatch"), &binary).unwrap();
        for path in [machine.folder.path(), &binary] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::create_dir(machine.state_dir()).unwrap();
        let owner = stranger.uid.to_string();
        let status = as_root("chown")
            .arg(owner)
            .arg(machine.state_dir())
            .status();
        assert!(status.unwrap().success());
        // What a test that was cut off has left.
        for name in stranger.ok(&["secret", "list"], "").lines() {
            stranger.ok(&["secret", "remove", name], "");
        }
        stranger
    }

    fn configure(&self, backend: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.machine.configure(&format!(
            "state-dir = \"STATE\"\n[vault]\nbackend = \"{backend}\"\n\
             [[account]]\nusername = \"{USER}\"\n"
        ));
        let file = self.machine.config_file();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// The command in a session of its own, as each login and each unit has one.
    fn run(&self, arguments: &[&str], input: &str) -> (i32, String, String) {
        let id = self.uid;
        let mut command: Command = as_root("setpriv");
        command
            .args([
                format!("--reuid={id}"),
                format!("--regid={id}"),
                "--clear-groups".to_owned(),
            ])
            // From which no way leads to the user's keyring.
            .args(["keyctl", "session", "-"])
            .arg(self.machine.folder.path().join("tokenwatch"))
            .arg("--config")
            .arg(self.machine.config_file())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap_or_default();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    fn ok(&self, arguments: &[&str], input: &str) -> String {
        let (code, printed, said) = self.run(arguments, input);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        printed
    }
}

#[test]
fn the_kernels_keyring_holds_what_it_is_given() {
    let stranger = Stranger::new(0, "keyutils");
    let account = format!("account/{USER}");
    stranger.ok(&["secret", "set", "mailbox/ops"], "one");
    stranger.ok(&["secret", "set", &account], "two");
    stranger.ok(&["secret", "set", "mailbox/ops"], "three");
    let listed = format!("{account}\nmailbox/ops\n");
    assert_eq!(stranger.ok(&["secret", "list"], ""), listed);
    let (code, printed, _) = stranger.run(&["check", "--offline"], "");
    assert_eq!(code, 1);
    assert!(
        printed.contains("! vault after a reboot") && printed.contains("empty after a reboot"),
        "{printed}"
    );
    assert!(printed.contains("✓ vault: it opens"), "{printed}");
    assert!(printed.contains("the password is there"), "{printed}");
    assert!(!stranger.machine.state_dir().join("vault.age").exists());

    // To the file and back, and the file says what was there.
    stranger.ok(&["vault", "move", "--to", "file"], "");
    assert_eq!(stranger.ok(&["secret", "list"], ""), "");
    stranger.configure("file");
    assert_eq!(stranger.ok(&["secret", "list"], ""), listed);
    let content = as_root("age")
        .args(["-d", "-i"])
        .arg(stranger.machine.state_dir().join("vault.key"))
        .arg(stranger.machine.state_dir().join("vault.age"))
        .output()
        .unwrap();
    let content = String::from_utf8(content.stdout).unwrap();
    assert!(content.contains("three") && !content.contains("one"));
    stranger.ok(&["vault", "move", "--to", "keyutils"], "");
    stranger.configure("keyutils");
    assert_eq!(stranger.ok(&["secret", "list"], ""), listed);
    for name in ["mailbox/ops", &account] {
        stranger.ok(&["secret", "remove", name], "");
    }
    assert_eq!(stranger.ok(&["secret", "list"], ""), "");
}

#[test]
fn what_is_too_much_for_the_kernel_is_said_and_harms_nothing() {
    let stranger = Stranger::new(1, "keyutils");
    stranger.ok(&["secret", "set", "mailbox/a"], &"a".repeat(12_000));
    for (name, length) in [
        ("mailbox/b", 12_000),
        ("mailbox/a", 21_000),
        ("mailbox/c", 40_000),
    ] {
        let (code, _, said) = stranger.run(&["secret", "set", name], &"b".repeat(length));
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("no room for it") && said.contains("hint: the kernel keeps about 19 KB"),
            "{said}"
        );
    }
    assert_eq!(stranger.ok(&["secret", "list"], ""), "mailbox/a\n");
    stranger.ok(&["vault", "move", "--to", "file"], "");
    stranger.configure("file");
    stranger.ok(&["secret", "set", "mailbox/b"], &"b".repeat(12_000));

    // Too much for the kernel stays where it is, whole.
    let (code, _, said) = stranger.run(&["vault", "move", "--to", "keyutils"], "");
    assert_eq!(code, 1);
    assert!(said.contains("no room for it"), "{said}");
    assert_eq!(
        stranger.ok(&["secret", "list"], ""),
        "mailbox/a\nmailbox/b\n"
    );
    stranger.configure("keyutils");
    for name in stranger.ok(&["secret", "list"], "").lines() {
        stranger.ok(&["secret", "remove", name], "");
    }
}
