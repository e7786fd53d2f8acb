//! `key = "passphrase"`: asked for on a terminal, or through systemd.

use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Machine;

const CONFIGURATION: &str = "state-dir = \"STATE\"\n[vault]\nkey = \"passphrase\"\n\
    [[account]]\nusername = \"mariana@idalko.com\"\n\
    [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nuser = \"u\"\n";

const PASSPHRASE: &str = "correct horse battery";

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(45);

/// Runs the command on a terminal of its own and answers each of the prompts;
/// its exit code and all that was on the screen.
fn on_terminal(machine: &Machine, arguments: &[&str], answers: &[(&str, &str)]) -> (i32, String) {
    let inner = machine.command(arguments);
    let words: Vec<String> = [inner.get_program()]
        .into_iter()
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut child = Command::new("script")
        .args(["-qefc", &words.join(" "), "/dev/null"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", machine.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = String::new();
    // What came since the last answer.
    let mut fresh = String::new();
    let mut answers = answers.iter();
    let mut next = answers.next();
    let mut bytes = [0; 1024];
    loop {
        let read = screen.read(&mut bytes).unwrap();
        if read == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&bytes[..read]);
        seen.push_str(&text);
        fresh.push_str(&text);
        if let Some((prompt, answer)) = next
            && fresh.contains(prompt)
        {
            fresh.clear();
            writeln!(keyboard, "{answer}").unwrap();
            next = answers.next();
        }
    }
    assert!(next.is_none(), "not asked for {next:?}: {seen}");
    (child.wait().unwrap().code().unwrap(), seen)
}

const NEW: &str = "New passphrase for";
const AGAIN: &str = "Once more";
const UNLOCK: &str = "Passphrase of";

/// A command without a terminal, as a service is.
fn without_terminal(machine: &Machine, path: &str, arguments: &[&str], input: &str) -> Child {
    let inner = machine.command(arguments);
    let mut child = Command::new("/usr/bin/setsid")
        .arg("-w")
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear()
        .env("PATH", path)
        .env("HOME", machine.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap_or_default();
    child
}

fn ended(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), said)
}

#[test]
fn a_passphrase_is_asked_for_on_the_terminal() {
    let machine = Machine::new(CONFIGURATION);
    // A vault that is not there asks for nothing.
    assert_eq!(machine.ok(&["secret", "list"]), "");
    let set = ["secret", "set", "mailbox/ops"];
    let (code, seen) = on_terminal(
        &machine,
        &set,
        &[
            ("mailbox/ops: ", "secret-x"),
            ("once more: ", "secret-x"),
            (NEW, PASSPHRASE),
            (AGAIN, "another"),
        ],
    );
    assert_eq!(code, 1, "{seen}");
    assert!(seen.contains("are not the same"), "{seen}");
    assert!(!machine.state_dir().join("vault.key.age").exists());
    let (code, seen) = on_terminal(
        &machine,
        &set,
        &[
            ("mailbox/ops: ", "secret-x"),
            ("once more: ", "secret-x"),
            (NEW, PASSPHRASE),
            (AGAIN, PASSPHRASE),
        ],
    );
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("vault.key.age"), "{seen}");

    let list = ["secret", "list"];
    let (code, seen) = on_terminal(&machine, &list, &[(UNLOCK, PASSPHRASE)]);
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("mailbox/ops"), "{seen}");
    let (code, seen) = on_terminal(&machine, &list, &[(UNLOCK, "another")]);
    assert_eq!(code, 77, "{seen}");
    assert!(seen.contains("the passphrase does not open"), "{seen}");

    // Another key, and with it another passphrase.
    let (code, seen) = on_terminal(
        &machine,
        &["vault", "rekey"],
        &[
            (UNLOCK, PASSPHRASE),
            (NEW, "a new one"),
            (AGAIN, "a new one"),
        ],
    );
    assert_eq!(code, 0, "{seen}");
    let (code, seen) = on_terminal(&machine, &list, &[(UNLOCK, PASSPHRASE)]);
    assert_eq!(code, 77, "{seen}");
    let (code, seen) = on_terminal(&machine, &list, &[(UNLOCK, "a new one")]);
    assert_eq!(code, 0, "{seen}");
}

#[test]
fn without_a_terminal_systemd_asks_or_it_is_said_that_nobody_does() {
    let machine = Machine::new(CONFIGURATION);
    let set = ["secret", "set", "mailbox/ops"];
    let (code, said) = ended(without_terminal(&machine, "/nowhere", &set, "secret-x"));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("nobody to ask for the passphrase") && said.contains("credential:ID"),
        "{said}"
    );
    assert!(!machine.state_dir().join("vault.age").exists());
    let (code, seen) = on_terminal(
        &machine,
        &set,
        &[
            ("mailbox/ops: ", "secret-x"),
            ("once more: ", "secret-x"),
            (NEW, PASSPHRASE),
            (AGAIN, PASSPHRASE),
        ],
    );
    assert_eq!(code, 0, "{seen}");
    let (path, list) = ("/usr/bin:/bin", ["secret", "list"]);
    let child = without_terminal(&machine, path, &list, "");
    if rustix::process::geteuid().is_root() {
        answer_systemd(&machine, PASSPHRASE);
        let (code, said) = ended(child);
        assert_eq!((code, said.as_str()), (0, "mailbox/ops\n"));
    } else {
        // systemd asks for root alone.
        let (code, said) = ended(child);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("systemd-ask-password got no"), "{said}");
    }
}

/// Answers as an agent of systemd does: the question is a file, which names the
/// socket for the answer.
fn answer_systemd(machine: &Machine, passphrase: &str) {
    let ours = machine.folder.path().display().to_string();
    let deadline = Instant::now() + PATIENCE;
    loop {
        for entry in std::fs::read_dir("/run/systemd/ask-password")
            .into_iter()
            .flatten()
            .flatten()
        {
            let is_question = entry.file_name().to_string_lossy().starts_with("ask.");
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if is_question && text.contains(&ours) {
                let socket = text
                    .lines()
                    .find_map(|line| line.strip_prefix("Socket="))
                    .unwrap();
                let answer = UnixDatagram::unbound().unwrap();
                answer
                    .send_to(format!("+{passphrase}").as_bytes(), socket)
                    .unwrap();
                return;
            }
        }
        assert!(Instant::now() < deadline, "systemd asks nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
}
