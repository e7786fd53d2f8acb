//! A daemon that meets a scripted server: one that is not well on its first
//! connection, and is afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::process::{Daemon, Machine};
use crate::support::folder::Folder;
use crate::support::mail::{RECEIVER, TokenMail, newsletter, token};
use crate::support::scripted::{Options, Scripted};

pub const USER: &str = "mariana@idalko.com";
pub const MAILBOX_PASSWORD: &str = "mailbox-canary-2c7e";
const ACCOUNT_PASSWORD: &str = "account-canary-91b4";

/// What a stimulus may cost beside what a calm daemon has, in KiB. (A build
/// without optimisation maps too much for an absolute figure.)
const ALLOWANCE: u64 = 8 * 1024;

/// The token mail that must not be missed.
pub fn token_mail() -> TokenMail {
    TokenMail::new(USER, &token(1), Timestamp::now())
}

/// What is to be handed out when it was taken.
pub fn composite() -> Option<String> {
    Some(format!("{ACCOUNT_PASSWORD}{}", token(1)))
}

/// A folder that is worth a SEARCH: the token mail is the first of 300, and not
/// among the newest 500 UIDs.
pub fn large() -> Folder {
    let folder = Folder::empty().with(1, &token_mail());
    (703..1002).fold(folder, |folder, uid| {
        folder.and(uid, &newsletter(uid as usize))
    })
}

/// A machine for this server, with `more` in the mailbox's section.
pub fn machine(server: &Scripted, more: &str) -> Machine {
    let machine = Machine::new("");
    let more = format!("tls = \"none\"\n{more}");
    let written = write_configuration(machine.folder.path(), server.port(), &more);
    assert_eq!(written, machine.config_file());
    machine
}

/// Writes a configuration for a server on this port, and the passwords, into a
/// folder. What stands in `more` is not set otherwise.
pub fn write_configuration(folder: &Path, port: u16, more: &str) -> PathBuf {
    let secret = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let mailbox = secret("mailbox.secret", MAILBOX_PASSWORD);
    let account = secret("account.secret", ACCOUNT_PASSWORD);
    let mut keys = more.to_owned();
    for (key, value) in [("poll", "1s"), ("user", "ops@example.com")] {
        if !more.contains(key) {
            keys = format!("{keys}\n{key} = \"{value}\"");
        }
    }
    let path = folder.join("tokenwatch.toml");
    let text = format!(
        "state-dir = \"{}\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\npassword = \"file:{account}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         password = \"file:{mailbox}\"\n{keys}\n",
        folder.join("state").display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A server that misbehaves on its first connection: what `misbehave` does not
/// answer is answered as `folder` has it. Later connections are well.
pub async fn misbehaving(
    folder: Folder,
    misbehave: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> Scripted {
    let options = Options {
        greeting: folder.greeting(),
        ..Options::default()
    };
    Scripted::with(options, move |connection, command| {
        let first = (connection == 1).then(|| misbehave(command)).flatten();
        first.unwrap_or_else(|| folder.answer(command))
    })
    .await
}

/// A daemon and its server.
pub struct Meeting {
    pub server: Scripted,
    pub machine: Machine,
    pub daemon: Daemon,
    arrived: Arc<AtomicBool>,
}

impl Meeting {
    /// The mail is there from the beginning.
    pub async fn over(
        folder: Folder,
        misbehave: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::with("", folder.clone(), folder, move |command, _| {
            misbehave(command)
        })
        .await
    }

    /// The mail comes on a later connection, or on the first when it is told.
    pub async fn before_the_mail(
        misbehave: impl Fn(&str, &AtomicBool) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let then = Folder::empty().with(1, &token_mail());
        Self::with("", Folder::empty(), then, misbehave).await
    }

    /// The folder is as `first` until the mail has arrived, which `misbehave`
    /// can say, or another connection is made.
    pub async fn with(
        more: &str,
        first: Folder,
        then: Folder,
        misbehave: impl Fn(&str, &AtomicBool) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let arrived = Arc::new(AtomicBool::new(false));
        let mail = Arc::clone(&arrived);
        let options = Options {
            greeting: first.greeting(),
            ..Options::default()
        };
        let server = Scripted::with(options, move |connection, command| {
            if connection > 1 {
                return then.answer(command);
            }
            misbehave(command, &mail).unwrap_or_else(|| {
                let now = if mail.load(SeqCst) { &then } else { &first };
                now.answer(command)
            })
        })
        .await;
        let machine = machine(&server, more);
        let daemon = machine.daemon();
        Self {
            server,
            machine,
            daemon,
            arrived,
        }
    }

    /// From now on the mail is there.
    pub fn arrive(&self) {
        self.arrived.store(true, SeqCst);
    }

    /// The fault is named, the daemon comes back, and takes the mail.
    pub async fn ends_in_a_reconnect(self, named: &str) {
        self.daemon.wait_for("mailbox.lost", |line| {
            let error = line["error"].as_str().unwrap();
            assert!(error.contains(named), "{error}");
            assert!(line["hint"].is_string());
            true
        });
        self.daemon.wait_for_nth("mailbox.connected", 2, |_| true);
        self.ends_well().await;
    }

    /// The daemon goes on over the connection that it has, and takes the mail.
    pub async fn goes_on(self) {
        self.daemon.wait_for("credential.updated", |_| true);
        assert_eq!(
            self.daemon.count("mailbox.lost"),
            0,
            "{}",
            self.daemon.log()
        );
        assert_eq!(self.daemon.count("mailbox.connected"), 1);
        self.ends_well().await;
    }

    /// The mail is taken, once, by the process that was started, without a
    /// panic and without much memory.
    pub async fn ends_well(self) {
        self.check(calm().await + ALLOWANCE);
    }

    fn check(self, bound: u64) {
        self.daemon.wait_for("credential.updated", |_| true);
        assert_eq!(self.machine.credential(USER), composite());
        assert_eq!(self.machine.versions(USER), 1);
        let peak = self.daemon.peak();
        assert!(peak <= bound, "{peak} KiB of {bound}");
        assert_eq!(self.daemon.count("daemon.ready"), 1);
        assert_eq!(self.daemon.count("panic"), 0, "{}", self.daemon.log());
        let (ended, _, log) = self.daemon.stop();
        assert!(ended.success(), "{log}");
        assert!(!log.contains(MAILBOX_PASSWORD) && !log.contains(ACCOUNT_PASSWORD));
    }
}

/// What a daemon takes that nothing happens to, in KiB.
async fn calm() -> u64 {
    static CALM: OnceCell<u64> = OnceCell::const_new();
    let measure = async {
        let folder = Folder::empty().with(1, &token_mail());
        let meeting = Meeting::over(folder, |_| None).await;
        meeting.daemon.wait_for("credential.updated", |_| true);
        let peak = meeting.daemon.peak();
        meeting.check(u64::MAX);
        peak
    };
    *CALM.get_or_init(|| measure).await
}
