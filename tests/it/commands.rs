//! What is said when something is wrong: the error, the hint, the exit code.

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;

use crate::process::{Ended, Machine};
use crate::support::mail::{RECEIVER, TokenMail, newsletter, token};

const USER: &str = "mariana@idalko.com";

fn basic() -> String {
    format!(
        "state-dir = \"STATE\"\n[trust]\naccept = [\"receiver\"]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nuser = \"u\"\n"
    )
}

fn extract(machine: &Machine, name: &str, mail: &[u8]) -> Ended {
    let path = machine.folder.path().join(name);
    std::fs::write(&path, mail).unwrap();
    machine.run(&["extract", "--json", path.to_str().unwrap()])
}

#[test]
fn a_configuration_that_cannot_be_used_is_78() {
    let machine = Machine::new("");
    for (text, error, hint) in [
        ("state-dir = ", "cannot be understood", "every key"),
        ("[[mailbox]]\nname = \"x\"", "missing", "every key"),
        (
            "[[mailbox]]\nname = \"x\"\nhots = \"y\"\nhost=\"h\"\nuser=\"u\"",
            "`mailbox.hots`",
            "`mailbox.host`",
        ),
        (
            "[[mailbox]]\nname = \"x\"\nhost=\"h\"\nuser=\"u\"\nauth=\"oauth2\"",
            "mailbox.auth",
            "client-id",
        ),
        (
            "state-dir = \"STATE\"",
            "no [[mailbox]]",
            "add a [[mailbox]]",
        ),
    ] {
        machine.configure(text);
        machine.run(&["run"]).failed(78, error, hint);
    }
    std::fs::remove_file(machine.config_file()).unwrap();
    machine
        .run(&["run"])
        .failed(78, "cannot read", "may read it");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tokenwatch"))
        .env_clear()
        .env("HOME", machine.folder.path())
        .args(["status"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn the_environment_overrides_the_file() {
    let machine = Machine::new(&basic());
    let output = machine
        .command(&["status"])
        .env("TOKENWATCH__TRUST__ACCEPT", "carrier-pigeon")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("trust.accept") && said.contains("carrier-pigeon"),
        "{said}"
    );
}

#[test]
fn words_that_are_no_command_are_2() {
    let machine = Machine::new(&basic());
    for arguments in [
        &["frobnicate"][..],
        &["run", "--twice"],
        &["secret", "set"],
        &[],
    ] {
        assert_eq!(machine.run(arguments).code, 2, "{arguments:?}");
    }
    machine
        .run(&["secret", "set", "ops"])
        .failed(2, "no name of a secret", "mailbox/NAME");
    machine
        .run(&["--log", "a=b=c", "secret", "list"])
        .failed(2, "no filter", "level");
    assert_eq!(machine.run(&["--version"]).code, 0);
}

#[test]
fn an_unreachable_server_is_69() {
    let machine = Machine::new(&basic());
    machine.set_secret("mailbox/ops", "x");
    machine.run(&["run", "--once"]).failed(
        69,
        "cannot connect to 127.0.0.1:1",
        "`host` and `port`",
    );
    let checked = machine.run(&["check"]);
    assert_eq!(checked.code, 1);
    assert!(
        checked.stdout.contains("✗ mailbox ops: connection"),
        "{}",
        checked.stdout
    );
    assert!(checked.stdout.contains("✓ vault"), "{}", checked.stdout);
}

#[test]
fn a_secret_that_can_be_none_is_65_and_changes_nothing() {
    let machine = Machine::new(&basic());
    machine.set_secret("mailbox/ops", "good");
    for bad in ["", "\n", "two\nlines"] {
        machine
            .run_with_input(&["secret", "set", "mailbox/ops"], bad)
            .failed(65, "can be no secret", "one line of text");
    }
    assert_eq!(machine.ok(&["secret", "list"]), "mailbox/ops\n");
    let said = machine
        .run_with_input(&["secret", "set", "mailbox/opps"], "x")
        .stderr;
    assert!(said.contains("asks for mailbox/opps yet"), "{said}");
    machine.ok(&["secret", "remove", "mailbox/opps"]);
    machine
        .run(&["secret", "remove", "mailbox/opps"])
        .failed(1, "no secret", "secret list");
}

#[test]
fn the_first_secret_makes_the_vault_and_says_so() {
    let machine = Machine::new(&basic());
    let ended = machine.run_with_input(&["secret", "set", "mailbox/ops"], "x");
    assert!(
        ended.stderr.contains("vault.key") && ended.stderr.contains("keep a copy"),
        "{}",
        ended.stderr
    );
    let ended = machine.run_with_input(&["secret", "set", "mailbox/ops"], "x");
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_vault_that_does_not_open_is_named_and_left_alone() {
    let machine = Machine::new(&basic());
    machine.set_secret("mailbox/ops", "x");
    let (vault, key) = (
        machine.state_dir().join("vault.age"),
        machine.state_dir().join("vault.key"),
    );
    let (good_vault, good_key) = (std::fs::read(&vault).unwrap(), std::fs::read(&key).unwrap());
    let other = Machine::new(&basic());
    other.set_secret("mailbox/ops", "x");
    std::fs::copy(other.state_dir().join("vault.key"), &key).unwrap();
    machine
        .run(&["run"])
        .failed(77, "does not open", "the right key");
    machine
        .run(&["credential", "list"])
        .failed(77, "does not open", "the right key");
    assert!(
        machine
            .run(&["check", "--offline"])
            .stdout
            .contains("✗ vault")
    );
    std::fs::write(&key, "no key at all").unwrap();
    machine
        .run(&["run"])
        .failed(78, "no age identity", "the right key");
    std::fs::remove_file(&key).unwrap();
    machine
        .run(&["run"])
        .failed(78, "is missing", "the right key");
    machine
        .run_with_input(&["secret", "set", "mailbox/ops"], "y")
        .failed(78, "is missing", "the right key");
    std::fs::write(&key, &good_key).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&vault, &good_vault[..good_vault.len() / 2]).unwrap();
    machine.run(&["run"]).failed(65, "damaged", "backup");
    std::fs::write(&vault, &good_vault).unwrap();
    std::fs::set_permissions(&vault, std::fs::Permissions::from_mode(0o644)).unwrap();
    machine
        .run(&["run"])
        .failed(77, "can be read by others", "chmod 600");
    std::fs::set_permissions(&vault, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(machine.ok(&["secret", "list"]), "mailbox/ops\n");
}

#[test]
fn extract_says_what_the_daemon_would_do() {
    let machine = Machine::new(&basic());
    let genuine = TokenMail::new(USER, &token(1), Timestamp::now());
    let line =
        |ended: &Ended| -> serde_json::Value { serde_json::from_str(ended.stdout.trim()).unwrap() };

    let read = extract(&machine, "a.eml", &genuine.bytes());
    assert_eq!(read.code, 0, "{}", read.stderr);
    let json = line(&read);
    for (key, value) in [
        ("outcome", "notice"),
        ("username", USER),
        ("token", "***"),
        ("verdict", "trusted"),
        ("sender", "support@salesforce.com"),
    ] {
        assert_eq!(json[key], value, "{json}");
    }
    assert!(json["reason"].is_null() && json["date"].is_string() && json["message_id"].is_string());

    let json = line(&extract(
        &machine,
        "b.eml",
        &genuine.clone().forged().bytes(),
    ));
    assert_eq!(
        (&json["verdict"], &json["reason"]),
        (&"untrusted".into(), &"sender-not-proved".into())
    );

    let mut unknown = genuine.clone();
    unknown.username = "other@example.com".into();
    let ended = extract(&machine, "c.eml", &unknown.bytes());
    assert_eq!(line(&ended)["reason"], "unknown-account");
    assert!(line(&ended).get("token").is_none());

    let ended = extract(&machine, "d.eml", &newsletter(1));
    assert_eq!(line(&ended)["outcome"], "ignored");
    ended.failed(65, "no token mail among the 1 mails", "show original");
    machine
        .run(&["extract", "/no/such/file"])
        .failed(65, "cannot read /no/such/file", "Maildir");

    let many = machine.folder.path().join("mbox");
    let mut text = Vec::new();
    for mail in [genuine.bytes(), newsletter(2)] {
        text.extend(b"From someone Thu Jan  1 00:00:00 2026\n");
        text.extend(mail);
        text.extend(b"\n");
    }
    std::fs::write(&many, text).unwrap();
    let printed = machine.ok(&["extract", "--json", "--reveal", many.to_str().unwrap()]);
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert!(printed.contains(&token(1)));
    let ended = machine.run_with_input(
        &["extract", "-"],
        &String::from_utf8(genuine.bytes()).unwrap(),
    );
    assert!(
        ended.stdout.contains("the credential would be updated"),
        "{}",
        ended.stdout
    );
}

/// The words of the configuration end where a token mail of theirs is read.
#[test]
fn added_words_are_checked_and_read() {
    let wording = |token: &str| {
        format!(
            "{}\n[[wording]]\nusername = \"Benutzername\"\ntoken = \"{token}\"\n\
             subject = \"Ihr neuer Sicherheitstoken\"\n",
            basic()
        )
    };
    let machine = Machine::new(&wording("Sicherheitstoken:"));
    machine.set_secret("mailbox/ops", "x");
    for command in [
        ["check", "--offline"].as_slice(),
        &["run"],
        &["extract", "-"],
    ] {
        machine
            .run(command)
            .failed(78, "`wording`", "from a real mail");
    }
    machine.configure(&wording("Sicherheitstoken"));
    let mail =
        String::from_utf8(TokenMail::new(USER, &token(1), Timestamp::now()).bytes()).unwrap();
    let mail = mail
        .replace(
            "Your new Salesforce security token",
            "Ihr neuer Sicherheitstoken",
        )
        .replace("Username:", "Benutzername:")
        .replace(
            "Security token (case-sensitive):",
            "Sicherheitstoken (genau so):",
        )
        .replace("user_security_token", "x");
    let ended = machine.run_with_input(&["extract", "--json", "--reveal", "-"], &mail);
    assert!(ended.stdout.contains(&token(1)), "{}", ended.stdout);
}

#[test]
fn a_second_daemon_is_kept_out() {
    let machine = Machine::new(&basic());
    machine.set_secret("mailbox/ops", "x");
    let daemon = machine.daemon();
    machine
        .run(&["run"])
        .failed(1, "another process holds", "stop the other");
    assert_eq!(
        machine.ok(&["secret", "list"]),
        "mailbox/ops\n",
        "the first still answers"
    );
    assert!(daemon.stop().0.success());
}

#[test]
fn curl_can_ask_for_health_and_metrics() {
    use std::io::{Read, Write};
    let machine = Machine::new(&basic());
    let _daemon = machine.daemon();
    let get = |path: &str| {
        let socket = machine.state_dir().join("control.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let metrics = get("/metrics");
    assert!(
        metrics.contains("tokenwatch_watched{mailbox=\"ops\",folder=\"INBOX\"} 0"),
        "{metrics}"
    );
    assert!(metrics.contains("# EOF"), "{metrics}");
    machine.wait_status(|status| status["state"] == "degraded");
    assert!(get("/healthz").starts_with("HTTP/1.1 503"));
    let mode = std::fs::metadata(machine.state_dir().join("control.sock")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
}

#[test]
fn two_configurations_for_one_daemon_are_noticed() {
    let machine = Machine::new(&basic());
    let runtime = machine.folder.path().join("run");
    let mut daemon = machine.command(&["--log-format", "json", "run"]);
    daemon.env("XDG_RUNTIME_DIR", &runtime);
    let daemon = crate::process::Daemon::start(daemon);
    daemon.wait_for("daemon.ready", |_| true);
    let socket = std::fs::metadata(runtime.join("tokenwatch/control.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o660, "for the group");
    let ask = |state: &str| {
        machine.configure(&basic().replace("state-dir = \"STATE\"\n", state));
        let mut command = machine.command(&["secret", "list"]);
        let output = command.env("XDG_RUNTIME_DIR", &runtime).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    // Without state-dir the home folder's is meant, where no vault is.
    let (code, said) = ask("");
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("has its state in") && said.contains("state-dir"),
        "{said}"
    );
    assert_eq!(ask("state-dir = \"STATE\"\n").0, Some(0));
}

#[test]
fn a_password_may_come_from_elsewhere() {
    let machine = Machine::new("");
    let file = machine.folder.path().join("password");
    std::fs::write(&file, "from a file\n").unwrap();
    for (source, well) in [
        (format!("file:{}", file.display()), true),
        ("command:echo from-a-command".to_owned(), true),
        ("file:/no/such/file".to_owned(), false),
        ("command:false".to_owned(), false),
        ("credential:nothing".to_owned(), false),
    ] {
        let account = format!("username = \"{USER}\"");
        let text = basic().replace(&account, &format!("{account}\npassword = \"{source}\""));
        machine.configure(&text);
        let listed = machine.ok(&["credential", "list"]);
        let state = if well {
            "no token yet"
        } else {
            "password missing"
        };
        assert!(listed.contains(state), "{source}: {listed}");
    }
    let _daemon = machine.daemon();
    let status = machine.wait_status(|status| status["state"] == "degraded");
    assert!(
        status["problems"].to_string().contains("can be read"),
        "{status}"
    );
}

#[test]
fn a_command_that_prints_a_password_gets_nothing_that_is_for_the_daemon_alone() {
    let machine = Machine::new("");
    let seen = machine.folder.path().join("seen");
    let script = machine.folder.path().join("script");
    std::fs::write(&script, format!("env > {}; echo pass", seen.display())).unwrap();
    let account = format!("username = \"{USER}\"");
    let from = format!(
        "{account}\npassword = \"command:/bin/sh {}\"",
        script.display()
    );
    machine.configure(&basic().replace(&account, &from));
    let ended = machine
        .command(&["credential", "list"])
        .env("NOTIFY_SOCKET", "/nowhere")
        .env("TOKENWATCH__TRUST__ACCEPT", "receiver")
        .output();
    let said = String::from_utf8(ended.unwrap().stderr).unwrap();
    let seen = std::fs::read_to_string(&seen).unwrap_or(said);
    assert!(seen.contains("PATH="), "{seen}");
    assert!(
        !seen.contains("NOTIFY_SOCKET") && !seen.contains("TOKENWATCH__"),
        "{seen}"
    );
}

#[test]
fn what_a_sink_lacks_is_said_before_it_is_needed() {
    let machine = Machine::new("");
    let folder = machine.folder.path().display().to_string();
    let template = "[[sink]]\nkind = \"file\"\nname = \"t\"\npath = \"FOLDER/x\"\ntemplate = \"FOLDER/t.tmpl\"\n";
    let sinks = format!(
        "[[sink]]\nkind = \"file\"\nname = \"f\"\npath = \"FOLDER/out/{{username}}\"\n{template}\
         [[sink]]\nkind = \"command\"\nname = \"c\"\nargv = [\"FOLDER/program\"]\n\
         [[sink]]\nkind = \"webhook\"\nname = \"w\"\nurl = \"https://127.0.0.1:1/\"\nheaders = {{ \"X-Key\" = \"file:FOLDER/key\" }}\n"
    );
    machine.configure(&(basic() + &sinks.replace("FOLDER", &folder)));
    let ended = machine.run(&["check", "--offline"]);
    assert_eq!(ended.code, 1);
    let checked = ended.stdout;
    for line in [
        "✗ sink f: cannot write to ",
        "see that the folder is there",
        "✗ sink t: cannot read ",
        "✗ sink c: ",
        "✗ sink w: the secret sink/w is not there",
        "hint: run `tokenwatch secret set sink/w`",
        "✗ sink w: the secret sink/w/x-key: a secret cannot be read",
    ] {
        assert!(checked.contains(line), "{line}: {checked}");
    }

    let made = |name: &str, mode: u32| {
        let path = machine.folder.path().join(name);
        std::fs::write(&path, "{{ password }}").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    made("program", 0o644);
    let checked = machine.run(&["check", "--offline"]).stdout;
    assert!(checked.contains("✗ sink c: "), "{checked}");
    made("program", 0o755);
    made("t.tmpl", 0o644);
    made("key", 0o600);
    std::fs::create_dir(machine.folder.path().join("out")).unwrap();
    machine.set_secret("sink/w", "key");
    let checked = machine.run(&["check", "--offline"]).stdout;
    for name in ["f", "t", "c", "w"] {
        assert!(
            checked.contains(&format!("✓ sink {name}: it is set up")),
            "{checked}"
        );
    }
}

#[test]
fn two_daemons_of_one_user_are_told_apart() {
    let (one, two) = (Machine::new(&basic()), Machine::new(&basic()));
    let runtime = one.folder.path().join("run");
    let run = |machine: &Machine| {
        let mut command = machine.command(&["--log-format", "json", "run"]);
        command.env("XDG_RUNTIME_DIR", &runtime);
        let daemon = crate::process::Daemon::start(command);
        daemon.wait_for("daemon.ready", |_| true);
        daemon
    };
    let ask = |machine: &Machine, name: &str| {
        let mut command = machine.command(&["secret", "list"]);
        let output = command.env("XDG_RUNTIME_DIR", &runtime).output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("{name}\n")
        );
    };
    one.set_secret("mailbox/one", "x");
    two.set_secret("mailbox/two", "x");
    let first = run(&one);
    let second = run(&two);
    ask(&one, "mailbox/one");
    ask(&two, "mailbox/two");
    assert!(first.stop().0.success());
    ask(&two, "mailbox/two");
    assert!(second.stop().0.success());
}
