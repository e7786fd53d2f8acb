//! The demo: `cargo run --release --example demo`
//!
//! Starts a small mail server and a small DNS server on loopback, runs the real
//! tokenwatch against them, and lets a mail come in. It needs nothing but
//! cargo, touches nothing outside a temporary folder, and ends by itself.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a demo ends by a panic, and talks to a person"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use support::dns::Dns;
use support::imap_server::{ImapServer, Options};
use support::mail::TokenMail;
use support::signer::Signer;

const USERNAME: &str = "mariana@idalko.com";
const PASSWORD: &str = "correct-horse";
const TOKEN: &str = "Efdli7MO6ISYJj5Jy3tSDc5";

/// The word that makes this program tokenwatch itself, so that the demo runs
/// the very same code as a process of its own.
const AS_TOKENWATCH: &str = "as-tokenwatch";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(AS_TOKENWATCH) {
        let words = std::env::args_os().skip(2);
        return tokenwatch::cli::main(["tokenwatch".into()].into_iter().chain(words));
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(show());
    ExitCode::SUCCESS
}

async fn show() {
    let demo = Demo::prepare().await;

    say("Two secrets are set once: the mailbox's password and Salesforce's.");
    demo.command(&["secret", "set", "mailbox/ops"], Some("mailbox-pass"));
    demo.command(
        &["secret", "set", &format!("account/{USERNAME}")],
        Some(PASSWORD),
    );

    say("The daemon starts, connects over TLS, and watches.");
    let mut daemon = demo.daemon();
    daemon.wait_for("mailbox.watching");
    demo.server.wait_idling(1).await;

    say("Somebody resets the security token. Salesforce mails the new one:");
    let mail = TokenMail::new(USERNAME, TOKEN, Timestamp::now())
        .forged()
        .bytes();
    for line in String::from_utf8_lossy(&mail).lines() {
        println!("    {line}");
    }
    let signed = demo.signer.sign(
        &mail,
        "salesforce.com",
        "sf",
        &["From", "Subject", "Date", "To"],
    );
    println!();
    let announced = Instant::now();
    demo.server.deliver(&signed);
    daemon.wait_for("credential.updated");
    let taken = announced.elapsed();
    daemon.wait_for("notice.updated");
    say(&format!(
        "Read, its signature verified, and stored durably {:.1} ms after the server announced it.",
        taken.as_secs_f64() * 1000.0
    ));

    say("What Exalate logs in with: the password and the token, without a space (masked here).");
    let credential = demo.output(&["credential", "get", USERNAME]);
    let expected = format!("{PASSWORD}{TOKEN}");
    assert!(
        credential == expected,
        "the credential is not what it should be"
    );
    println!("$ tokenwatch credential get {USERNAME}");
    println!("    {}***", credential.chars().take(3).collect::<String>());
    println!();

    say("The same mail again changes nothing. A resync looks through the mailbox once more.");
    demo.server.deliver(&signed);
    daemon.wait_for("notice.duplicate");
    demo.command(&["resync"], None);
    demo.command(&["status"], None);

    say("SIGTERM: it stops, and the credential stays.");
    daemon.stop();
    println!("The demo is over. Its folder is gone; nothing of yours was touched.");
}

fn say(text: &str) {
    let (bold, plain) = if std::io::stdout().is_terminal() {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    println!("{bold}» {text}{plain}");
}

struct Demo {
    folder: tempfile::TempDir,
    server: ImapServer,
    signer: Signer,
    dns: Dns,
}

impl Demo {
    async fn prepare() -> Self {
        let server = ImapServer::start(Options::default()).await;
        let (dns, signer) = (Dns::start(), Signer::new());
        dns.publish("sf._domainkey.salesforce.com", &signer.record());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), server.ca_pem()).unwrap();
        let demo = Self {
            folder,
            server,
            signer,
            dns,
        };
        let text = format!(
            "state-dir = \"{}\"\n\n[trust]\ndns-servers = [\"{}\"]\n\n\
             [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nport = {}\n\
             ca-file = \"ca.pem\"\nuser = \"ops@example.com\"\n\n\
             [[account]]\nusername = \"{USERNAME}\"\n",
            demo.folder.path().join("state").display(),
            demo.dns.address(),
            demo.server.port(),
        );
        std::fs::write(demo.config_file(), text).unwrap();
        demo
    }

    fn config_file(&self) -> PathBuf {
        self.folder.path().join("tokenwatch.toml")
    }

    fn tokenwatch(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .arg(AS_TOKENWATCH)
            .arg("--config")
            .arg(self.config_file())
            .args(arguments)
            .env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// Runs a command as a user would, and shows it.
    fn command(&self, arguments: &[&str], input: Option<&str>) {
        let from = if input.is_some() {
            "   (from standard input)"
        } else {
            ""
        };
        println!("$ tokenwatch {}{from}", arguments.join(" "));
        let mut child = self
            .tokenwatch(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin
            .write_all(input.unwrap_or_default().as_bytes())
            .unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
        println!();
    }

    fn output(&self, arguments: &[&str]) -> String {
        let output = self.tokenwatch(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn daemon(&self) -> Daemon {
        println!("$ tokenwatch run");
        let mut child = self
            .tokenwatch(&["run"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { return };
                println!("    {line}");
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Daemon { child, lines }
    }
}

struct Daemon {
    child: Child,
    lines: Receiver<String>,
}

impl Daemon {
    /// Waits for a line of the log with this event.
    fn wait_for(&mut self, event: &str) {
        let wanted = format!("event=\"{event}\"");
        loop {
            let line = self
                .lines
                .recv_timeout(Duration::from_secs(10))
                .expect("the daemon logs what it does");
            if line.contains(&wanted) {
                break;
            }
        }
        // The line belongs to what is said next.
        println!();
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        println!();
    }
}
