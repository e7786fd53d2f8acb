//! A real Cyrus on loopback, unprivileged, in a temporary folder: the server of another make.
//!
//! Debian lets nobody install it beside Dovecot, so `tests/run` unpacks it into cargo's folder for
//! the tests' files, and each server has its own copy of the few programs that it needs: the user
//! that it runs as may not be let into that folder. The configuration is for Cyrus 3.6.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::{net::UnixStream, process::CommandExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::ground::{Ground, children, free_port, signal};

/// Its one user, and the password.
pub const USER: &str = "ops";
pub const PASSWORD: &str = "mailbox-pass";

/// A Cyrus with one user, gone with all its processes when dropped.
pub struct Cyrus {
    ground: Ground,
    ca_file: PathBuf,
    port: u16,
    /// The master process; none while the server is stopped.
    master: Option<Child>,
}

impl Cyrus {
    /// Starts a server and waits until it speaks IMAP. The inbox is made by the first login, or by
    /// the first mail.
    pub fn start() -> Self {
        let ground = Ground::new("cy");
        let mut server = Self {
            ca_file: ground.path("ca.pem"),
            ground,
            port: free_port(),
            master: None,
        };
        let ground = &server.ground;
        // Without `conf/socket` nobody in IDLE is woken, and nothing is said of it.
        ground.folders(&["conf/socket", "spool", "run/proc", "run/lock", "cyrus"]);
        unpack(&ground.path("cyrus"));
        ground.write("log", "");
        ground.write("imapd.conf", server.configuration());
        ground.write("cyrus.conf", server.services());
        ground.certify();
        server.add_user();
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

    /// Hands a mail to the server by LMTP (RFC 2033), as a mail transfer agent does.
    pub fn deliver(&self, raw: &[u8]) {
        let socket = UnixStream::connect(self.ground.path("run/lmtp")).unwrap();
        let mut lines = BufReader::new(socket.try_clone().unwrap());
        let mut say = |text: &[u8], wanted: &str| {
            (&socket).write_all(text).unwrap();
            let mut line = String::new();
            // The lines of an answer but the last have a hyphen behind the code.
            while line.as_bytes().get(3).is_none_or(|&after| after == b'-') {
                line.clear();
                assert_ne!(lines.read_line(&mut line).unwrap(), 0, "LMTP ended");
            }
            assert!(line.starts_with(wanted), "LMTP: {line}");
        };
        say(b"", "220");
        say(b"LHLO localhost\r\n", "250");
        say(b"MAIL FROM:<>\r\n", "250");
        say(format!("RCPT TO:<{USER}>\r\n").as_bytes(), "250");
        say(b"DATA\r\n", "354");
        // No line of the tests' mails begins with a dot.
        say(&[raw, b".\r\n"].concat(), "250");
        say(b"QUIT\r\n", "221");
    }

    /// Each mail with its UID, its flags and its MODSEQ, which grows with every change of them: equal
    /// ones say that a client left the mailbox as it was.
    pub fn flags(&self) -> Vec<String> {
        let mut examine = self.command("mbexamine");
        examine.args(["-C", "imapd.conf", &format!("user/{USER}")]);
        let output = examine.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let told = |word: &&str| {
            let names = ["UID:", "SYSFLAGS:", "MODSEQ:"];
            names.iter().any(|name| word.starts_with(name))
        };
        let (_, mails) = text.split_once("Message Info:").unwrap();
        let words: Vec<_> = mails.split_whitespace().filter(told).collect();
        words.chunks(3).map(|mail| mail.join(" ")).collect()
    }

    /// Stops the server and returns when its last process is gone. Its sessions end without a BYE.
    pub fn stop(&mut self) {
        let Some(mut master) = self.master.take() else {
            return;
        };
        let id = master.id();
        // The master passes it on to its children, and waits for none of them.
        let left = children(id, |_| true);
        signal("-TERM", &[id.to_string()]);
        let start = Instant::now();
        let runs = |pid: &String| Path::new("/proc").join(pid).exists();
        while master.try_wait().unwrap().is_none() || left.iter().any(runs) {
            if start.elapsed() > Duration::from_secs(3) {
                signal("-KILL", &left);
                signal("-KILL", &[id.to_string()]);
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server if it runs, and starts it with the same port, mails and certificate.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    fn configuration(&self) -> String {
        let folder = self.ground.folder().display();
        let (user, group) = (self.ground.user(), self.ground.group());
        format!(
            "configdirectory: {folder}/conf\n\
             defaultpartition: default\n\
             partition-default: {folder}/spool\n\
             proc_path: {folder}/run/proc\n\
             mboxname_lockpath: {folder}/run/lock\n\
             lmtpsocket: {folder}/run/lmtp\n\
             idlesocket: {folder}/run/idle\n\
             cyrus_user: {user}\n\
             cyrus_group: {group}\n\
             servername: localhost\n\
             unixhierarchysep: yes\n\
             autocreate_quota: 0\n\
             autocreate_post: yes\n\
             duplicatesuppression: no\n\
             allowplaintext: no\n\
             sasl_pwcheck_method: auxprop\n\
             sasl_auxprop_plugin: sasldb\n\
             sasl_sasldb_path: {folder}/sasldb2\n\
             sasl_mech_list: PLAIN LOGIN\n\
             tls_server_cert: {folder}/server.pem\n\
             tls_server_key: {folder}/server.key\n"
        )
    }

    fn services(&self) -> String {
        let folder = self.ground.folder().display();
        let port = self.port;
        let program = |name| format!("{folder}/cyrus/{name} -C {folder}/imapd.conf");
        format!(
            "START {{\n  recover cmd=\"{} -r\"\n}}\n\
             DAEMON {{\n  idled cmd=\"{}\"\n}}\n\
             SERVICES {{\n  imaps cmd=\"{} -s\" listen=\"127.0.0.1:{port}\" prefork=1\n  \
             lmtp cmd=\"{} -a\" listen=\"{folder}/run/lmtp\" prefork=0\n}}\n",
            program("ctl_cyrusdb"),
            program("idled"),
            program("imapd"),
            program("lmtpd"),
        )
    }

    fn add_user(&self) {
        let mut add = self.command("saslpasswd2");
        add.args(["-p", "-c", "-u", "localhost", "-f", "sasldb2", USER]);
        let mut add = add.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = add.stdin.take().unwrap();
        input.write_all(PASSWORD.as_bytes()).unwrap();
        drop(input);
        assert!(add.wait().unwrap().success(), "no user in sasldb");
    }

    /// One of Cyrus's programs.
    fn command(&self, program: &str) -> std::process::Command {
        let programs = self.ground.path("cyrus");
        let mut command = self.ground.command(programs.join(program));
        command.env("LD_LIBRARY_PATH", programs);
        command
    }

    fn launch(&mut self) {
        let mut log = File::options();
        let log = log.append(true).open(self.ground.path("log")).unwrap();
        let mut command = self.command("master");
        command.args(["-D", "-C", "imapd.conf", "-M", "cyrus.conf", "-p", "pid"]);
        // It sends SIGTERM to its whole process group when it gets one.
        command.stdin(Stdio::null()).process_group(0);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.master = Some(command.spawn().unwrap());
        let start = Instant::now();
        // The port and the socket are open when the first process of the service is there to serve.
        while self.children_named("imapd") == 0 || self.children_named("idled") == 0 {
            let ended = self.master.as_mut().unwrap().try_wait().unwrap().is_some();
            let hopeless = ended || start.elapsed() > Duration::from_secs(15);
            let log = fs::read_to_string(self.ground.path("log")).unwrap();
            assert!(!hopeless, "Cyrus does not come up:\n{log}");
            sleep(Duration::from_millis(20));
        }
    }

    fn children_named(&self, name: &str) -> usize {
        let master = self.master.as_ref().unwrap();
        children(master.id(), |child| child == name).len()
    }
}

impl Drop for Cyrus {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Copies the programs and the libraries of their own to where the server's user may run them.
fn unpack(to: &Path) {
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cyrus");
    let programs = [
        "ctl_cyrusdb",
        "idled",
        "imapd",
        "lmtpd",
        "master",
        "mbexamine",
    ];
    let programs = programs.map(|name| packages.join("usr/lib/cyrus/bin").join(name));
    let mut files = programs.to_vec();
    files.push(packages.join("usr/sbin/saslpasswd2"));
    for folder in fs::read_dir(packages.join("usr/lib")).into_iter().flatten() {
        // The folder of this machine's architecture, whatever it is called.
        let inside = fs::read_dir(folder.unwrap().path()).unwrap();
        let inside = inside.map(|entry| entry.unwrap().path());
        let library = |path: &PathBuf| path.to_string_lossy().ends_with(".so.0");
        files.extend(inside.filter(library));
    }
    for file in files {
        let copied = fs::copy(&file, to.join(file.file_name().unwrap()));
        let missing = |error| panic!("{}: {error}; `tests/run` unpacks Cyrus", file.display());
        copied.unwrap_or_else(missing);
    }
}
