//! In which words something is refused, by the commands and by the control API.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::process::Machine;
use crate::support::mail::{TokenMail, token};

const BASIC: &str = "state-dir = \"STATE\"\n[[account]]\nusername = \"a@b.c\"\n\
    [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nuser = \"u\"\n";

/// What the daemon answers to this request: the status, and the JSON.
fn ask(machine: &Machine, line: &str, fields: &str, body: &[u8]) -> (u16, Value) {
    let socket = machine.state_dir().join("control.sock");
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}");
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    write!(stream, "{head}{length}\r\n").unwrap();
    // What is too long is not read to its end.
    stream.write_all(body).unwrap_or_default();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_default();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn curl_needs_no_content_type_and_no_body_for_the_defaults() {
    let machine = Machine::new(BASIC);
    let _daemon = machine.daemon();
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (fields, body) in [("", ""), (form, "{}"), (form, "{\"no-wait\": true}")] {
        let (status, _) = ask(&machine, "POST /v1/resync", fields, body.as_bytes());
        assert!([200, 202].contains(&status), "{body}: {status}");
    }
    // There is no such mail, and that is what is said.
    let (status, said) = ask(&machine, "POST /v1/held/7/accept", "", b"");
    assert_eq!(status, 404);
    assert!(said["error"].as_str().unwrap().contains('7'), "{said}");
}

#[test]
fn whatever_the_api_refuses_it_says_so_in_the_same_form() {
    let machine = Machine::new(BASIC);
    let _daemon = machine.daemon();
    let json = "Content-Type: application/json\r\n";
    let long = vec![b'x'; 64 * 1024 + 1];
    for (line, fields, body, expected) in [
        ("POST /v1/resync", json, &b"{"[..], 400),
        ("POST /v1/resync", json, b"{\"mailbx\": \"ops\"}", 400),
        ("POST /v1/resync", json, b"{\"dry-run\": \"x\"}", 400),
        ("POST /v1/resync", json, b"\xff", 400),
        ("POST /v1/resync", json, &long, 413),
        ("POST /v1/held/7/accept", "", b"[", 400),
        ("POST /v1/held/x/accept", "", b"", 400),
        ("PUT /v1/secrets/mailbox%2Fops", "", &long, 413),
        ("PUT /v1/secrets/mailbox%2Fops", "", b"\xff", 400),
        ("GET /v1/check?offline=maybe", "", b"", 400),
        ("GET /v1/secrets", "", b"", 200),
        ("GET /v1/nothing", "", b"", 404),
        ("DELETE /v1/secrets/mailbox%2Fnone", "", b"", 404),
        ("GET /v1/resync", "", b"", 405),
    ] {
        let (status, said) = ask(&machine, line, fields, body);
        assert_eq!(status, expected, "{line}: {said}");
        if status == 200 {
            continue;
        }
        for key in ["error", "hint"] {
            let text = said[key].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{line}: {said}");
        }
        assert!(said["causes"].is_array(), "{line}: {said}");
        assert!(said["exit_code"].as_u64() > Some(0), "{line}: {said}");
    }
}

#[test]
fn a_variable_is_blamed_for_what_it_says() {
    let machine = Machine::new(BASIC);
    for (name, value, error, hint) in [
        (
            "TOKENWATCH__VAULT__SERVCE",
            "x",
            "unknown key `vault.servce` (the variable TOKENWATCH__VAULT__SERVCE)",
            "TOKENWATCH__VAULT__SERVICE",
        ),
        (
            "TOKENWATCH__MAILBOX__0__PORT",
            "1",
            "the variable TOKENWATCH__MAILBOX__0__PORT",
            "configuration file",
        ),
        (
            "TOKENWATCH__TRUST__ACCEPT",
            "dkim, carrier-pigeon",
            "the variable TOKENWATCH__TRUST__ACCEPT",
            "sender-address",
        ),
    ] {
        let output = machine.command(&["status"]).env(name, value).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(error) && said.contains(hint), "{said}");
        assert!(!said.contains("tokenwatch.toml"), "{said}");
    }
}

#[test]
fn a_number_in_a_variable_is_the_text_that_it_is() {
    let machine = Machine::new(BASIC);
    let variables = [
        ("TOKENWATCH__VAULT__PATH", "0123"),
        ("TOKENWATCH__TRUST__RECEIVERS", "123"),
        ("TOKENWATCH__TRUST__ACCEPT", "dkim, receiver"),
    ];
    let mut set = machine.command(&["secret", "set", "mailbox/ops"]);
    let mut child = set
        .envs(variables)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(machine.state_dir().join("0123").exists());
}

#[test]
fn the_same_is_no_secret_with_a_daemon_and_without_one() {
    for with_daemon in [false, true] {
        let machine = Machine::new(BASIC);
        let _daemon = with_daemon.then(|| machine.daemon());
        let longest = "x".repeat(64 * 1024);
        let set = |secret: &[u8]| {
            let mut child = machine
                .command(&["secret", "set", "mailbox/ops"])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            // Of what is too long not all is read.
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(secret).unwrap_or_default();
            drop(stdin);
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            (output.status.code(), said)
        };
        for bad in [
            format!("{longest}x").as_bytes(),
            "x".repeat(1024 * 1024).as_bytes(),
            b"caf\xe9",
            "\u{feff}hunter2".as_bytes(),
            b"   \n",
        ] {
            let (code, said) = set(bad);
            assert_eq!(code, Some(65), "{said}");
            assert!(said.contains("error: what was given can be no secret"));
            assert!(said.contains("hint: ") && said.contains("64 KiB"), "{said}");
        }
        let (code, said) = set(longest.as_bytes());
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn without_the_network_the_doctor_looks_at_what_mailboxes_need() {
    let oauth2 = "\nca-file = \"none.pem\"\n[[mailbox]]\nname = \"oauth\"\nhost = \"h\"\nuser = \"u\"\n\
        auth = \"oauth2\"\n[mailbox.oauth2]\nprovider = \"google\"\nclient-id = \"c\"\n";
    let machine = Machine::new(&format!("{BASIC}{oauth2}"));
    let checked = machine.run(&["check", "--offline"]);
    assert_eq!(checked.code, 1);
    for line in [
        "✗ mailbox ops: password: the password of mailbox ops is not set",
        "✗ mailbox ops: ca-file: ",
        "✗ mailbox oauth: sign-in: nobody has signed in",
        "hint: run `tokenwatch secret set mailbox/ops`",
        "hint: run `tokenwatch login oauth`",
    ] {
        assert!(checked.stdout.contains(line), "{line}: {}", checked.stdout);
    }
    machine.set_secret("mailbox/ops", "x");
    machine.set_secret("oauth/oauth", "x");
    let pem = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
    std::fs::write(machine.folder.path().join("none.pem"), pem.cert.pem()).unwrap();
    let checked = machine.run(&["check", "--offline"]).stdout;
    for line in [
        "✓ mailbox ops: password: ",
        "✓ mailbox ops: ca-file: ",
        "✓ mailbox oauth: sign-in: ",
    ] {
        assert!(checked.contains(line), "{line}: {checked}");
    }
}

#[test]
fn the_status_says_why_a_folder_waits() {
    let machine = Machine::new(BASIC);
    machine.set_secret("mailbox/ops", "x");
    let _daemon = machine.daemon();
    machine.wait_status(|status| status["mailboxes"][0]["state"] == "waiting");
    let status = machine.status();
    let why = status["mailboxes"][0]["last_error"].as_str().unwrap();
    let said = machine.run(&["status"]).stdout;
    assert!(said.contains(&format!("\n    {why}\n")), "{why}: {said}");
}

#[test]
fn a_file_that_cannot_be_read_keeps_no_other_from_being_read() {
    let machine = Machine::new(BASIC);
    let mail = machine.folder.path().join("a.eml");
    std::fs::write(
        &mail,
        TokenMail::new("a@b.c", &token(1), jiff::Timestamp::now()).bytes(),
    )
    .unwrap();
    let ended = machine.run(&["extract", "--json", "/no/such", mail.to_str().unwrap()]);
    ended.failed(65, "cannot read /no/such", "name mails");
    assert!(ended.stdout.contains("a.eml"), "{}", ended.stdout);
}

#[test]
fn who_has_seen_enough_is_told_no_error_and_a_full_disk_is_said() {
    let machine = Machine::new(BASIC);
    for (command, expected) in [("man", 0), ("check", 0)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = machine.command(&[command]);
        let output = command.stdout(writer).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(expected), ""));
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let output = machine
        .command(&["man"])
        .stdout(full.unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("standard output cannot be written"), "{said}");
    assert!(said.contains("hint: ") && output.status.code() == Some(1));
}

#[test]
fn a_name_that_nothing_can_have_is_no_name_of_a_secret() {
    let machine = Machine::new(BASIC);
    for name in [
        "mailbox/a b",
        "mailbox/a/b",
        "account/@",
        "account/a @b.c",
        "sink//x",
    ] {
        let ended = machine.run_with_input(&["secret", "set", name], "x");
        ended.failed(2, "is no name of a secret", "mailbox/NAME");
    }
    machine.set_secret("sink/hook/x-vault-token", "x");
}

#[test]
fn a_greeting_in_clear_where_tls_should_be_is_no_matter_of_certificates() {
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in plain.incoming() {
            let Ok(mut stream) = stream else { return };
            stream.write_all(b"* OK ready\r\n").unwrap_or_default();
            // Until the other end hangs up.
            stream.read_to_end(&mut Vec::new()).unwrap_or_default();
        }
    });
    let text = BASIC.replace("port = 1\ntls = \"none\"", &format!("port = {port}"));
    let machine = Machine::new(&text);
    machine.set_secret("mailbox/ops", "x");
    let ended = machine.run(&["run", "--once"]);
    ended.failed(69, "does not speak TLS on this port", "`port` and `tls`");
    assert!(!ended.stderr.contains("ca-file"), "{}", ended.stderr);
}

#[test]
fn a_state_folder_that_all_may_write_to_is_closed_and_that_is_said() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new(BASIC);
    machine.set_secret("mailbox/ops", "x");
    let (folder, journal) = (machine.state_dir(), machine.state_dir().join("journal.db"));
    for (path, open) in [(&folder, 0o777), (&journal, 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(open)).unwrap();
    }
    let ended = machine.run(&["secret", "list"]);
    for said in ["could write to the state folder", "could read the journal"] {
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&journal)), (0o770, 0o600));
    assert_eq!(machine.run(&["secret", "list"]).stderr, "");
}

#[test]
#[cfg(feature = "system-tests")]
fn who_may_not_enter_the_state_folder_is_not_told_that_no_daemon_runs() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new(BASIC);
    let binary = machine.folder.path().join("tokenwatch");
    std::fs::copy(env!("CARGO_BIN_EXE_tokenwatch"), &binary).unwrap();
    for (path, mode) in [
        (machine.folder.path(), 0o755),
        (&binary, 0o755),
        (&machine.config_file(), 0o644),
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let _daemon = machine.daemon();
    for command in ["status", "resync"] {
        let output = crate::system::as_root("setpriv")
            .args(["--reuid=61300", "--regid=61300", "--clear-groups"])
            .arg(&binary)
            .arg("--config")
            .arg(machine.config_file())
            .arg(command)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(77), "{command}: {said}");
        assert!(said.contains("control.sock") && said.contains("hint: "));
    }
}
