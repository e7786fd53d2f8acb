//! A real Dovecot on loopback, unprivileged, in a temporary folder.
//!
//! Some tests want the server that people run: its IDLE, its UIDs, its way of ending a session.
//! The system's own Dovecot is neither read nor changed. The configuration is for Dovecot 2.3;
//! 2.4 has another syntax.

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::{fs::chown, process::CommandExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

const USER: &str = "ops@example.com";
const PASSWORD: &str = "mailbox-pass";

/// A Dovecot with one user and one mailbox, gone with all its processes when dropped.
pub struct Dovecot {
    folder: TempDir,
    ca_file: PathBuf,
    /// User and group of the folder and of all processes.
    ids: [u32; 2],
    port: u16,
    /// The master process; none while the server is stopped.
    master: Option<Child>,
}

impl Dovecot {
    /// Starts a server with an empty mailbox and waits until the user can log in.
    pub fn start() -> Self {
        // The usual folder for temporary files may have a long name, and the path of a Unix socket
        // has to do with about a hundred bytes.
        let folder = TempDir::with_prefix_in("dc", "/tmp").unwrap();
        // Dovecot serves no mail as root. Root and everybody else take the same path all the same:
        // one unprivileged user for all processes.
        let me = id(&["-un"]);
        let user = if me == "root" { "nobody" } else { &me };
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let mut server = Self {
            ca_file: folder.path().join("ca.pem"),
            folder,
            ids: ["-u", "-g"].map(|which| id(&[which, user]).parse().unwrap()),
            port: free.unwrap().port(),
            master: None,
        };
        for name in ["", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"] {
            fs::create_dir_all(server.path(name)).unwrap();
            server.own(name);
        }
        server.write("log", "");
        server.write("users", format!("{USER}:{{PLAIN}}{PASSWORD}\n"));
        server.write("dovecot.conf", server.configuration(user));
        server.certify();
        server.launch();
        server
    }

    /// The loopback port that speaks IMAP over TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The PEM file of the authority that signed the server's certificate.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Puts a mail into the inbox, in one step as seen by the server.
    pub fn deliver(&self, raw: &[u8]) {
        self.put(raw, FileTimes::new());
    }

    /// Puts a mail into the inbox as if received at that time: Dovecot takes a mail's INTERNALDATE
    /// from the time of its file, in whole seconds.
    pub fn deliver_at(&self, raw: &[u8], received: SystemTime) {
        self.put(raw, FileTimes::new().set_modified(received));
    }

    fn put(&self, raw: &[u8], times: FileTimes) {
        // Mails that are new together get their UIDs in the order of the numbers in their names.
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("{}.localhost", NUMBER.fetch_add(1, Ordering::Relaxed));
        let [tmp, new] = ["tmp", "new"].map(|folder| format!("Maildir/{folder}/{name}"));
        self.write(&tmp, raw).set_times(times).unwrap();
        fs::rename(self.path(&tmp), self.path(&new)).unwrap();
    }

    /// Ends all sessions of the user, as an administrator would. It fails when there was none: the
    /// test would then wait for nothing.
    pub fn kick(&self) {
        let mut kick = self.command("doveadm");
        let output = kick.args(["kick", USER]).output().unwrap();
        assert!(output.status.success(), "nobody to kick: {output:?}");
    }

    /// Removes what the server knows of the mails' UIDs, so that the next session finds another
    /// UIDVALIDITY. The mails stay. A session that has the mailbox open still knows the old UIDs:
    /// kick it, or deliver a mail, at which Dovecot ends such a session by itself with a BYE.
    pub fn forget_uids(&self) {
        for name in self.names("") {
            if name == "dovecot-uidlist" || name.starts_with("dovecot.index") {
                fs::remove_file(self.path("Maildir").join(name)).unwrap();
            }
        }
    }

    /// Ends all sessions with a BYE, stops the server and returns when its last process is gone.
    pub fn stop(&mut self) {
        let Some(mut master) = self.master.take() else {
            return;
        };
        let id = master.id();
        signal("-TERM", &[&id.to_string()]);
        let start = Instant::now();
        // The master ends after its children, but by itself lets the sessions go on for ten seconds.
        // The login processes must stay until they have passed on the BYE. Whoever is left after
        // three seconds is killed, with the children before the master, so that none is orphaned.
        while master.try_wait().unwrap().is_none() {
            let late = start.elapsed() > Duration::from_secs(3);
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            let children = children.unwrap_or_default();
            let mut children: Vec<_> = children.split_whitespace().collect();
            children.retain(|child| {
                let name = fs::read_to_string(format!("/proc/{child}/comm"));
                late || name.is_ok_and(|name| name == "imap\n")
            });
            signal(if late { "-KILL" } else { "-TERM" }, &children);
            if late {
                master.kill().unwrap();
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Stops the server if it runs, and starts it with the same port, mails and certificate.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    /// The names of the mails' files, each with its folder `cur/` or `new/`, sorted. They end in
    /// the mails' flags, so equal lists say that a client left the mailbox as it was.
    pub fn flags(&self) -> Vec<String> {
        ["cur", "new"].map(|folder| self.names(folder)).concat()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn own(&self, name: &str) {
        let [uid, gid] = self.ids.map(Some);
        chown(self.path(name), uid, gid).unwrap();
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> File {
        let mut file = File::create_new(self.path(name)).unwrap();
        file.write_all(content.as_ref()).unwrap();
        self.own(name);
        file
    }

    /// What is in a folder of the mailbox, named from the mailbox on.
    fn names(&self, folder: &str) -> Vec<String> {
        let mail = self.path("Maildir");
        let entries = fs::read_dir(mail.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let names = paths.map(|path| path.strip_prefix(&mail).unwrap().to_owned());
        let mut names: Vec<_> = names.map(|name| name.display().to_string()).collect();
        names.sort();
        names
    }

    /// Makes an authority, and a certificate of the server signed by it.
    fn certify(&self) {
        let mut params = CertificateParams::default();
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "Test authority");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        self.write("ca.pem", authority.pem());

        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        self.write("server.pem", certificate.pem());
        self.write("server.key", key.serialize_pem());
    }

    /// Nothing in it needs root: not another user, nor another group, nor a chroot. Without the
    /// listener for penalties, failed logins do not slow down the logins that follow.
    fn configuration(&self, user: &str) -> String {
        let (folder, port) = (self.folder.path().display(), self.port);
        let ([uid, gid], group) = (self.ids, id(&["-gn", user]));
        format!(
            "base_dir = {folder}/run
            state_dir = {folder}/state
            log_path = {folder}/log
            mail_location = maildir:{folder}/Maildir
            mail_max_userip_connections = 100
            auth_failure_delay = 1 secs
            default_internal_user = {user}
            default_internal_group = {group}
            default_login_user = {user}
            first_valid_uid = 1
            listen = 127.0.0.1
            protocols = imap
            ssl_cert = <{folder}/server.pem
            ssl_key = <{folder}/server.key
            passdb {{
              driver = passwd-file
              args = {folder}/users
            }}
            userdb {{
              driver = static
              args = uid={uid} gid={gid} home={folder}
            }}
            service/anvil/chroot =
            service/anvil/unix_listener/anvil-auth-penalty/mode = 0
            service/imap-login/chroot =
            service/imap-login/inet_listener/imap/port = 0
            service/imap-login/inet_listener/imaps/port = {port}
            "
        )
    }

    /// One of Dovecot's programs, which are not on everybody's search path.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
        command.uid(self.ids[0]).gid(self.ids[1]);
        command.current_dir(self.folder.path());
        command.arg("-c").arg(self.path("dovecot.conf"));
        command
    }

    /// Starts the master process and waits until the user can log in.
    fn launch(&mut self) {
        // What Dovecot says before it has read its configuration goes to its own outputs.
        let log = File::options().append(true).open(self.path("log")).unwrap();
        let mut command = self.command("dovecot");
        command.arg("-F").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let master = command.spawn().expect("Dovecot (Debian: dovecot-imapd)");
        self.master = Some(master);
        let start = Instant::now();
        let mut login = self.command("doveadm");
        login.args(["auth", "test", USER, PASSWORD]);
        // The ports are open before there is anything to ask for a login.
        while !login.output().unwrap().status.success() {
            let ended = self.master.as_mut().unwrap().try_wait().unwrap().is_some();
            let hopeless = ended || start.elapsed() > Duration::from_secs(15);
            let log = fs::read_to_string(self.path("log")).unwrap();
            assert!(!hopeless, "Dovecot does not come up:\n{log}");
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What `id` says of a user, which the standard library cannot ask for.
fn id(arguments: &[&str]) -> String {
    let output = Command::new("id").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Sends a signal: the standard library knows only the one that nobody can answer. Failure says
/// that a process has ended meanwhile, which is as good.
fn signal(name: &str, pids: &[&str]) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill \"$@\"", "sh", name]).args(pids);
    kill.stderr(Stdio::null()).status().unwrap();
}
