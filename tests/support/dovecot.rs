//! A real Dovecot on loopback, unprivileged, in a temporary folder.
//!
//! Some tests want the server that people run: its IDLE, its UIDs, its way of ending a session.
//! The system's own Dovecot is neither read nor changed. The configuration is for Dovecot 2.3;
//! 2.4 has another syntax.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::ground::{Ground, children, free_port, signal};

#[path = "dovecot_mail.rs"]
mod mail;

const USER: &str = "ops@example.com";
const PASSWORD: &str = "mailbox-pass";

/// What Dovecot 2.3.19 offers after login.
const CAPABILITIES: &str = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT SORT=DISPLAY \
    THREAD=REFERENCES THREAD=REFS THREAD=ORDEREDSUBJECT MULTIAPPEND URL-PARTIAL CATENATE UNSELECT \
    CHILDREN NAMESPACE UIDPLUS LIST-EXTENDED I18NLEVEL=1 CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES \
    WITHIN CONTEXT=SEARCH LIST-STATUS BINARY MOVE SNIPPET=FUZZY PREVIEW=FUZZY PREVIEW STATUS=SIZE \
    SAVEDATE LITERAL+ NOTIFY";

/// What a test wants of its server.
pub struct Options {
    /// How many users `u1`, `u2`, … there are beside the ordinary one, with the same password.
    pub users: usize,
    /// How many sessions one user may have at a time.
    pub connections: usize,
    /// The ways to log in.
    pub mechanisms: &'static str,
    /// Capabilities that it does not tell of, IDLE for one.
    pub without: &'static [&'static str],
    /// More lines of configuration, which come last and win. `FOLDER` in them is the folder of
    /// `files`.
    pub more: &'static str,
    /// Files that these lines name, by their path from the folder on; `FOLDER` in them is the same.
    pub files: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            users: 0,
            connections: 100,
            mechanisms: "plain login",
            without: &[],
            more: "",
            files: Vec::new(),
        }
    }
}

/// A Dovecot, gone with all its processes when dropped.
pub struct Dovecot {
    ground: Ground,
    ca_file: PathBuf,
    port: u16,
    starttls_port: u16,
    /// The master process; none while the server is stopped.
    master: Option<Child>,
}

impl Dovecot {
    /// Starts a server with one user and an empty mailbox, and waits until the user can log in.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// Starts such a server, and waits until users can log in.
    pub fn with(options: &Options) -> Self {
        let ground = Ground::new("dc");
        let mut server = Self {
            ca_file: ground.path("ca.pem"),
            ground,
            port: free_port(),
            starttls_port: free_port(),
            master: None,
        };
        let more = (1..=options.users).map(|n| format!("u{n}"));
        let mut users = Vec::new();
        for user in more.chain([USER.to_owned()]) {
            let inbox = mail::maildir(&user, "INBOX");
            let parts = ["cur", "new", "tmp"].map(|part| format!("{inbox}/{part}"));
            server.ground.folders(&parts.each_ref().map(String::as_str));
            users.push(format!("{user}:{{PLAIN}}{PASSWORD}\n"));
        }
        server.ground.write("log", "");
        server.ground.write("users", users.concat());
        let folder = server.ground.folder().display().to_string();
        for (name, content) in &options.files {
            if let Some((within, _)) = name.rsplit_once('/') {
                server.ground.folders(&[within]);
            }
            let content = content.replace("FOLDER", &folder);
            server.ground.write(name, content);
        }
        let configuration = server.configuration(options);
        server.ground.write("dovecot.conf", configuration);
        server.ground.certify();
        server.launch();
        server
    }

    /// The loopback port that speaks IMAP over TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The loopback port that speaks IMAP and offers STARTTLS. It takes passwords without TLS too,
    /// for Dovecot counts loopback as safe; `ssl = required` in the options ends that.
    pub fn starttls_port(&self) -> u16 {
        self.starttls_port
    }

    /// The PEM file of the authority that signed the server's certificate.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Ends all sessions of the ordinary user, as an administrator would. It fails when there was
    /// none: the test would then wait for nothing.
    pub fn kick(&self) {
        self.doveadm(&["kick", USER]);
    }

    /// The same where there may be none.
    pub fn kick_if_any(&self) {
        self.command("doveadm")
            .args(["kick", USER])
            .output()
            .unwrap();
    }

    /// Ends all sessions with a BYE, stops the server and returns when its last process is gone.
    pub fn stop(&mut self) {
        // A stopped process would not hear of it.
        self.resume();
        let Some(mut master) = self.master.take() else {
            return;
        };
        let id = master.id();
        signal("-TERM", &[id.to_string()]);
        let start = Instant::now();
        // The master ends after its children, but by itself lets the sessions go on for ten seconds.
        // The login processes must stay until they have passed on the BYE. Whoever is left after
        // three seconds is killed, with the children before the master, so that none is orphaned.
        while master.try_wait().unwrap().is_none() {
            let late = start.elapsed() > Duration::from_secs(3);
            let children = children(id, |name| late || name == "imap");
            signal(if late { "-KILL" } else { "-TERM" }, &children);
            if late {
                master.kill().unwrap();
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Stops the server if it runs, and starts it with the same ports, mails and certificate.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    /// Stops the processes of all sessions where they stand: the connections stay, and nothing is
    /// answered on them. It fails when there was no session.
    pub fn pause(&self) {
        let sessions = self.children(|name| name == "imap");
        assert!(!sessions.is_empty(), "no session to pause");
        signal("-STOP", &sessions);
    }

    /// Stops every process of the server. The kernel still takes connections for it, and nobody
    /// greets on them.
    pub fn freeze(&self) {
        signal("-STOP", &self.processes());
    }

    /// Lets go on what `pause` or `freeze` has stopped.
    pub fn resume(&self) {
        signal("-CONT", &self.processes());
    }

    /// How many sessions there are, of all users.
    pub fn sessions(&self) -> usize {
        self.children(|name| name == "imap").len()
    }

    /// The server's own log so far: why it refused a login, or ended a session.
    pub fn log(&self) -> String {
        fs::read_to_string(self.ground.path("log")).unwrap()
    }

    /// The master, and then its children: stopped in this order, it makes no more of them.
    fn processes(&self) -> Vec<String> {
        let master = self.master.iter().map(|master| master.id().to_string());
        master.chain(self.children(|_| true)).collect()
    }

    fn children(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let master = self.master.as_ref();
        master.map_or_else(Vec::new, |master| children(master.id(), wanted))
    }

    /// Nothing in it needs root: not another user, nor another group, nor a chroot. Without the
    /// listener for penalties, failed logins do not slow down the logins that follow. Each session
    /// keeps two processes, and there may be many.
    fn configuration(&self, options: &Options) -> String {
        let Self {
            port,
            starttls_port,
            ground,
            ..
        } = self;
        let (folder, user) = (ground.folder().display().to_string(), ground.user());
        let ([uid, gid], group) = (ground.ids(), ground.group());
        let offered = CAPABILITIES.split(' ');
        let offered = offered.filter(|offer| !options.without.contains(offer));
        let capability = offered.collect::<Vec<_>>().join(" ");
        let (mechanisms, connections) = (options.mechanisms, options.connections);
        let more = options.more.replace("FOLDER", &folder);
        format!(
            "base_dir = {folder}/run
            state_dir = {folder}/state
            log_path = {folder}/log
            mail_location = maildir:{folder}/mail/%u
            mail_max_userip_connections = {connections}
            auth_failure_delay = 1 secs
            auth_mechanisms = {mechanisms}
            imap_capability = {capability}
            default_internal_user = {user}
            default_internal_group = {group}
            default_login_user = {user}
            default_process_limit = 2000
            default_client_limit = 10000
            first_valid_uid = 1
            listen = 127.0.0.1
            protocols = imap
            ssl = yes
            ssl_cert = <{folder}/server.pem
            ssl_key = <{folder}/server.key
            passdb {{
              driver = passwd-file
              args = {folder}/users
              mechanisms = plain login
            }}
            userdb {{
              driver = static
              args = uid={uid} gid={gid} home={folder} allow_all_users=yes
            }}
            service/anvil/chroot =
            service/anvil/unix_listener/anvil-auth-penalty/mode = 0
            service/imap-login/chroot =
            service/imap-login/inet_listener/imap/port = {starttls_port}
            service/imap-login/inet_listener/imaps/port = {port}
            {more}
            "
        )
    }

    /// One of Dovecot's programs.
    fn command(&self, program: &str) -> Command {
        let mut command = self.ground.command(program);
        command.arg("-c").arg(self.ground.path("dovecot.conf"));
        command
    }

    /// Runs a command of the administrator, which must succeed.
    fn doveadm(&self, arguments: &[&str]) {
        let output = self.command("doveadm").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// Starts the master process and waits until it answers for users.
    fn launch(&mut self) {
        // What Dovecot says before it has read its configuration goes to its own outputs.
        let mut log = File::options();
        let log = log.append(true).open(self.ground.path("log")).unwrap();
        let mut command = self.command("dovecot");
        command.arg("-F").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let master = command.spawn().expect("Dovecot (Debian: dovecot-imapd)");
        self.master = Some(master);
        let start = Instant::now();
        let mut user = self.command("doveadm");
        user.args(["user", USER]);
        // The ports are open before there is anything to ask for a user.
        while !user.output().unwrap().status.success() {
            let ended = self.master.as_mut().unwrap().try_wait().unwrap().is_some();
            let hopeless = ended || start.elapsed() > Duration::from_secs(15);
            assert!(!hopeless, "Dovecot does not come up:\n{}", self.log());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.stop();
    }
}
