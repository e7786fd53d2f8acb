//! A mailbox that logs in by OAuth 2, as its user has it: a real `OpenID`
//! provider, a real Dovecot that validates the tokens, the real commands.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Stdio};

use jiff::{SignedDuration, Timestamp};

use crate::dovecot_server::{Dovecot, Options};
use crate::oidc_server::{KEY_ID, NATIVE, Oidc, SERVICE};
use crate::process::{Machine, files};
use crate::support::mail::{RECEIVER, TokenMail, token};

const USER: &str = "mariana@idalko.com";

/// A Dovecot that takes the provider's tokens, and passwords from nobody.
fn dovecot(oidc: &Oidc, mechanisms: &'static str) -> Dovecot {
    Dovecot::with(&Options {
        mechanisms,
        more: "passdb {\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  \
               args = FOLDER/oauth2.conf\n}\n",
        files: vec![
            (
                "oauth2.conf".into(),
                "introspection_mode = local\n\
                 local_validation_key_dict = fs:posix:prefix=FOLDER/keys/\n\
                 username_attribute = email\n"
                    .into(),
            ),
            (
                format!("keys/default/RS256/{KEY_ID}"),
                oidc.public_key().to_owned(),
            ),
        ],
        ..Options::default()
    })
}

fn machine(dovecot: &Dovecot, oidc: &Oidc, client: &str) -> Machine {
    let machine = Machine::new(&format!(
        "state-dir = \"STATE\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nport = {}\nca-file = \"{}\"\n\
         user = \"ops@example.com\"\nauth = \"oauth2\"\nidle-renew = \"20s\"\n\
         [mailbox.oauth2]\nprovider = \"other\"\ntoken-url = \"{}\"\ndevice-url = \"{}\"\n\
         authorization-url = \"{}\"\nscopes = [\"openid\", \"imap\"]\n{client}",
        dovecot.port(),
        dovecot.ca_file().display(),
        oidc.token_endpoint(),
        oidc.device_endpoint(),
        oidc.authorization_endpoint(),
    ));
    machine.set_secret(&format!("account/{USER}"), "sf-pass");
    machine
}

fn native() -> String {
    format!("client-id = \"{NATIVE}\"\n")
}

fn mail(seed: u64) -> Vec<u8> {
    let date = Timestamp::now() - SignedDuration::from_mins(60 - i64::try_from(seed).unwrap());
    TokenMail::new(USER, &token(seed), date).bytes()
}

/// A `login` that is under way: what it says, line by line.
struct Login {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Login {
    fn start(machine: &Machine, arguments: &[&str]) -> Self {
        let mut command = machine.command(&[&["login", "ops"], arguments].concat());
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { child, said }
    }

    /// The next line that begins like this: what follows.
    fn line(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.said.read_line(&mut line).unwrap();
            assert!(read > 0, "it says nothing like {beginning:?}");
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Its exit code, and what else it said.
    fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code().unwrap(), rest)
    }
}

/// Signs in by the code for another device.
fn by_device(machine: &Machine) {
    let mut login = Login::start(machine, &[]);
    let page = login.line("or open ");
    Oidc::approve(&page);
    let (code, said) = login.end();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("signed in for mailbox ops"), "{said}");
}

fn no_token_in(text: &str) {
    // Every JSON Web Token begins so.
    assert!(!text.contains("eyJ"), "{text}");
}

#[test]
fn signed_in_once_it_watches_renews_and_says_when_somebody_must_sign_in_again() {
    let oidc = Oidc::start();
    for mechanisms in ["plain xoauth2", "plain xoauth2 oauthbearer"] {
        let dovecot = dovecot(&oidc, mechanisms);
        let machine = machine(&dovecot, &oidc, &native());
        machine.run(&["run", "--once"]).failed(
            78,
            "nobody has signed in for mailbox ops",
            "login ops",
        );
        by_device(&machine);
        assert!(machine.ok(&["secret", "list"]).contains("oauth/ops"));
        let checked = machine.run(&["check"]);
        assert_eq!(checked.code, 0, "{}", checked.stdout);

        // So short that each connection wants another one.
        oidc.access_token_seconds(61);
        let daemon = machine.daemon_at("trace");
        daemon.wait_for("mailbox.watching", |_| true);
        dovecot.deliver(&mail(1));
        daemon.wait_for("credential.updated", |_| true);

        // Each refresh token is used once: at a second time the provider would
        // let all of them die.
        let renewed = oidc.asked("/token");
        dovecot.kick();
        daemon.wait_for_nth("mailbox.connected", 2, |_| true);
        assert!(oidc.asked("/token") > renewed);
        dovecot.deliver(&mail(2));
        daemon.wait_for_nth("credential.updated", 2, |_| true);

        oidc.revoke_refresh_tokens();
        dovecot.kick();
        let line = daemon.wait_for("mailbox.lost", |line| line["level"] == "ERROR");
        assert!(
            line["hint"].as_str().unwrap().contains("login ops"),
            "{line}"
        );
        let asked = oidc.asked("/token");
        let status = machine.wait_status(|status| {
            let problems = status["problems"].as_array().unwrap();
            problems
                .iter()
                .any(|problem| problem["code"] == "oauth-sign-in")
        });
        no_token_in(&status.to_string());
        let mut login = Login::start(&machine, &["--browser"]);
        Oidc::deny(&("http".to_owned() + &login.line("http")));
        let (code, said) = login.end();
        assert_eq!(code, 77, "{said}");
        assert!(said.contains("caused by: the sign-in was denied"), "{said}");
        assert_eq!(
            oidc.asked("/token"),
            asked,
            "a dead token is not presented again"
        );

        let mut login = Login::start(&machine, &["--browser"]);
        Oidc::approve(&("http".to_owned() + &login.line("http")));
        assert_eq!(login.end().0, 0);
        daemon.wait_for_nth("mailbox.connected", 3, |_| true);
        dovecot.deliver(&mail(3));
        daemon.wait_for_nth("credential.updated", 3, |_| true);
        let (ended, _, log) = daemon.stop();
        assert!(ended.success());
        no_token_in(&log);
        for file in files(&machine.state_dir()) {
            let bytes = std::fs::read(&file).unwrap();
            no_token_in(&String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn an_application_logs_in_by_itself() {
    let oidc = Oidc::start();
    let dovecot = dovecot(&oidc, "plain xoauth2 oauthbearer");
    let [id, secret] = SERVICE;
    let client = format!(
        "client-id = \"{id}\"\ngrant = \"client-credentials\"\nclient-secret = \"vault\"\n"
    );
    let machine = machine(&dovecot, &oidc, &client);
    machine.run(&["run", "--once"]).failed(
        78,
        "the client secret of mailbox ops is not set",
        "client/ops",
    );
    machine.set_secret("client/ops", "wrong");
    machine
        .run(&["run", "--once"])
        .failed(78, "refuses this application", "secret");
    machine.set_secret("client/ops", secret);
    machine.ok(&["login", "ops"]);
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    dovecot.deliver(&mail(1));
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(
        machine.credential(USER),
        Some(format!("sf-pass{}", token(1)))
    );
}

#[test]
fn what_cannot_be_signed_in_for_is_said() {
    let oidc = Oidc::start();
    let dovecot = dovecot(&oidc, "plain xoauth2");
    let machine = machine(&dovecot, &oidc, &native());
    machine
        .run(&["login", "opps"])
        .failed(2, "no mailbox \"opps\"", "mailboxes");
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    machine.configure(&text.replace(&oidc.issuer(), "http://127.0.0.1:1"));
    machine
        .run(&["login", "ops"])
        .failed(69, "the sign-in for mailbox ops failed", "provider");
    let password = text.split("auth = ").next().unwrap().to_owned();
    machine.configure(&password);
    machine.run(&["login", "ops"]).failed(
        78,
        "does not log in by OAuth 2",
        "secret set mailbox/ops",
    );
}
