//! The first configuration, the completions and the man pages, as a user gets
//! them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::process::{Machine, files};
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{TokenMail, token};

const USER: &str = "mariana@idalko.com";

/// The answers that have no default, and a place for the state.
fn answers(machine: &Machine) -> Vec<String> {
    let state = machine.state_dir().display().to_string();
    let pairs = [
        ("--mailbox-host", "imap.example.org"),
        ("--mailbox-user", "ops@example.org"),
        ("--account", USER),
        ("--state-dir", &state),
    ];
    pairs
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()])
        .collect()
}

/// A machine without a configuration.
fn bare() -> Machine {
    let machine = Machine::new("");
    std::fs::remove_file(machine.config_file()).unwrap();
    machine
}

fn init(machine: &Machine, more: &[&str]) -> crate::process::Ended {
    let answers = answers(machine);
    let mut words = vec!["init", "--non-interactive"];
    words.extend(answers.iter().map(String::as_str));
    words.extend(more);
    machine.run(&words)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_init_writes_is_commented_and_is_used_by_every_command() {
    let machine = bare();
    let ended = init(&machine, &["--account", "second@example.org"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "standard output is data");
    let (config, said) = (machine.config_file(), &ended.stderr);
    for wanted in [
        format!("wrote {}", config.display()),
        format!(
            "tokenwatch --config {} secret set mailbox/ops",
            config.display()
        ),
        format!("secret set account/{USER}"),
        "secret set account/second@example.org".to_owned(),
        " check\n".to_owned(),
        " run\n".to_owned(),
        "vault.key: keep a copy".to_owned(),
    ] {
        assert!(said.contains(&wanted), "{wanted} in {said}");
    }
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(
        text.contains("# How far back the first look goes"),
        "{text}"
    );
    assert!(!text.contains("imap.example.com\"\n"), "{text}");
    assert_eq!(mode(&config), 0o644, "the daemon's user reads it");
    for file in ["vault.age", "vault.key"] {
        assert_eq!(mode(&machine.state_dir().join(file)), 0o600);
    }
    assert_eq!(
        files(machine.folder.path())
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "toml"))
            .count(),
        1,
        "no draft is left"
    );

    let checked = machine.run(&["check", "--offline"]).stdout;
    assert!(checked.contains("✓ configuration"), "{checked}");
    assert!(checked.contains("✓ vault"), "{checked}");
    assert_eq!(machine.ok(&["secret", "list"]), "");
    let listed = machine.ok(&["credential", "list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
}

/// From nothing to the first credential, by what init says is next.
#[tokio::test(flavor = "multi_thread")]
async fn from_init_to_the_first_credential() {
    let server = ImapServer::start(Options::default()).await;
    let mail = TokenMail::new(USER, &token(1), jiff::Timestamp::now());
    server.deliver(&mail.bytes());
    let machine = bare();
    let ended = init(&machine, &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    // A test's server has a port, an authority and a receiver of its own.
    let ca = machine.folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).unwrap();
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    let text = text
        .replace("host = \"imap.example.org\"", "host = \"localhost\"")
        .replace("user = \"ops@example.org\"", "user = \"ops@example.com\"")
        .replace("# port = 993", &format!("port = {}", server.port()))
        .replace(
            "# ca-file = \"/etc/tokenwatch/ca.pem\"",
            &format!("ca-file = \"{}\"", ca.display()),
        )
        .replace("# receivers = ", "receivers = ");
    machine.configure(&text);
    machine.set_secret("mailbox/ops", "mailbox-pass");
    machine.set_secret(&format!("account/{USER}"), "pass");
    machine.ok(&["run", "--once"]);
    assert_eq!(machine.credential(USER), Some(format!("pass{}", token(1))));
}

#[test]
fn nothing_is_overwritten_without_force() {
    let machine = Machine::new("# mine\nstate-dir = \"STATE\"\n");
    let before = || std::fs::read_to_string(machine.config_file()).unwrap();
    let mine = before();
    init(&machine, &[]).failed(1, "tokenwatch.toml is there already", "--force");
    assert_eq!(before(), mine);
    assert!(!machine.state_dir().exists(), "and nothing is made");
    let other = machine.folder.path().join("new/other.toml");
    let ended = init(&machine, &["--output", other.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(before(), mine);
    assert_eq!(
        (mode(&other), mode(other.parent().unwrap())),
        (0o644, 0o755)
    );
    machine.set_secret("mailbox/ops", "x");
    let key = || std::fs::read(machine.state_dir().join("vault.key")).unwrap();
    let known = key();
    let ended = init(&machine, &["--force"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(before().contains(USER));
    assert_eq!(key(), known, "a vault and its key are never replaced");
    assert_eq!(machine.ok(&["secret", "list"]), "mailbox/ops\n");
}

#[test]
fn what_cannot_be_used_is_refused_and_leaves_nothing_behind() {
    let machine = bare();
    for (more, code, error, hint) in [
        (&["--mailbox-name", "a b"][..], 78, "mailbox.name", "hint"),
        (&["--account", "nobody"], 78, "account.username", "hint"),
        (
            &["--output", "/proc/none/x.toml"],
            1,
            "cannot write",
            "folder",
        ),
    ] {
        init(&machine, more).failed(code, error, hint);
        assert_eq!(files(machine.folder.path()), Vec::<PathBuf>::new());
    }
    // Nobody is at a terminal here.
    for more in [&[][..], &["--non-interactive"]] {
        let mut words = vec!["init", "--mailbox-host", "imap.example.org"];
        words.extend(more);
        machine
            .run(&words)
            .failed(2, "--mailbox-user is not given", "--account");
    }
    assert_eq!(files(machine.folder.path()), Vec::<PathBuf>::new());
}

/// Only what has no good default is asked for.
#[cfg(feature = "system-tests")]
#[test]
fn on_a_terminal_init_asks_three_questions() {
    let machine = bare();
    let state = machine.state_dir().display().to_string();
    let typed = format!("\nimap.example.org\nops@example.org\n{USER}\n");
    let ended = machine.on_a_terminal(&["init", "--state-dir", &state], &typed);
    assert_eq!(ended.code, 0, "{}", ended.stdout);
    let asked = ended.stdout.matches("): ").count();
    assert_eq!(asked, 4, "the first twice: {}", ended.stdout);
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    for line in [
        "host = \"imap.example.org\"",
        "user = \"ops@example.org\"",
        &format!("username = \"{USER}\""),
        &format!("state-dir = \"{state}\""),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    let checked = machine.run(&["check", "--offline"]).stdout;
    assert!(checked.contains("✓ vault"), "{checked}");
}

/// What is read in `--help` is in the man pages, one for each command.
#[test]
fn each_command_has_a_man_page() {
    let machine = Machine::new("");
    let printed = machine.ok(&["man"]);
    let folder = machine.folder.path().join("man");
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(machine.ok(&["man", folder.to_str().unwrap()]), "");
    let mut together = 0;
    for name in ["", "-run", "-held", "-held-accept", "-secret-set", "-init"] {
        let path = folder.join(format!("tokenwatch{name}.1"));
        let page = std::fs::read_to_string(&path).unwrap();
        assert!(page.contains(".TH "), "{page}");
        assert!(printed.contains(&page), "{name}");
        assert_eq!(mode(&path), 0o644);
    }
    for path in files(&folder) {
        together += std::fs::metadata(path).unwrap().len();
    }
    assert_eq!(usize::try_from(together).unwrap(), printed.len());
    let held = std::fs::read_to_string(folder.join("tokenwatch-held-accept.1")).unwrap();
    assert!(held.contains("Fetch a mail again"), "{held}");
    machine
        .run(&["man", "/no/such/folder"])
        .failed(1, "cannot write", "folder is there");
}

fn shell(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

#[test]
fn bash_completes_commands() {
    let machine = Machine::new("");
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = machine.ok(&["completions", name]);
        assert!(
            script.contains("tokenwatch") && script.contains("resync"),
            "{name}"
        );
    }
    assert_eq!(machine.run(&["completions", "cmd"]).code, 2);
    let script = machine.folder.path().join("completion");
    std::fs::write(&script, machine.ok(&["completions", "bash"])).unwrap();
    let asked = format!(
        "source {}; COMP_WORDS=(tokenwatch held ac); COMP_CWORD=2; \
         _tokenwatch tokenwatch ac held; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let output = shell("bash", &["-c", &asked]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.trim(), "accept");
}
