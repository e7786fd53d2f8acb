//! A desktop's keyring: a real gnome-keyring on a real session bus of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SERVICE: &str = "org.freedesktop.secrets";
const PASSWORD: &str = "of the desktop";

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A session: a bus, and with it the keyring once it is logged in to.
pub struct Desktop {
    folder: tempfile::TempDir,
    address: String,
    bus: Child,
    keyring: Option<Child>,
}

impl Desktop {
    /// A session bus on which no service is, nor is started by itself.
    pub fn without_keyring() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = folder.path().join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
             <busconfig><type>session</type><listen>unix:path={}/bus</listen>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            folder.path().display()
        );
        std::fs::write(&configuration, text).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", configuration.display()))
            .args(["--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        Self {
            folder,
            address: address.trim().to_owned(),
            bus,
            keyring: None,
        }
    }

    /// A session whose owner has logged in: the keyring is open.
    pub fn logged_in() -> Self {
        let mut desktop = Self::without_keyring();
        desktop.log_in();
        desktop
    }

    /// Starts the keyring with the password.
    pub fn log_in(&mut self) {
        let mut keyring = self
            .command("gnome-keyring-daemon")
            .args(["--foreground", "--unlock", "--components=secrets"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        keyring
            .stdin
            .take()
            .unwrap()
            .write_all(PASSWORD.as_bytes())
            .unwrap();
        self.keyring = Some(keyring);
        self.wait_for_name(SERVICE);
    }

    /// Ends the keyring, as a crash or an update does.
    pub fn crash(&mut self) {
        let mut keyring = self.keyring.take().unwrap();
        keyring.kill().unwrap();
        keyring.wait().unwrap();
    }

    /// Where the bus is: the value of `DBUS_SESSION_BUS_ADDRESS`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A program of the session.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address);
        command
    }

    /// Locks the collection.
    pub fn lock(&self) {
        self.send(
            "Lock",
            &["array:objpath:/org/freedesktop/secrets/collection/login"],
        );
    }

    /// Opens the collection, as a login does (`pam_gnome_keyring`): a byte for the
    /// credentials, then length, operation and password over the control socket.
    pub fn unlock(&self) {
        const UNLOCK: u32 = 1;
        let length = u32::try_from(PASSWORD.len()).unwrap();
        let mut request = vec![0];
        for number in [8 + 4 + length, UNLOCK, length] {
            request.extend(number.to_be_bytes());
        }
        request.extend(PASSWORD.as_bytes());
        let mut control = UnixStream::connect(self.folder.path().join("keyring/control")).unwrap();
        control.write_all(&request).unwrap();
        let mut answer = [0; 8];
        control.read_exact(&mut answer).unwrap();
        assert_eq!(
            answer,
            [0, 0, 0, 8, 0, 0, 0, 0],
            "the keyring was not opened"
        );
    }

    /// New entries go into the collection that is never stored.
    pub fn make_session_the_default(&self) {
        self.send(
            "SetAlias",
            &[
                "string:default",
                "objpath:/org/freedesktop/secrets/collection/session",
            ],
        );
    }

    /// A prompter that shows nothing and never answers.
    pub fn nobody_answers(&self) -> Nobody {
        let name = "org.gnome.keyring.SystemPrompter";
        let child = self
            .command("dbus-test-tool")
            .args(["black-hole", "--session", &format!("--name={name}")])
            .spawn()
            .unwrap();
        let nobody = Nobody(child);
        self.wait_for_name(name);
        nobody
    }

    /// The keyring stops answering, or goes on.
    pub fn hang(&self, hangs: bool) {
        let signal = if hangs {
            rustix::process::Signal::STOP
        } else {
            rustix::process::Signal::CONT
        };
        let pid = rustix::process::Pid::from_child(self.keyring.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// What another program finds.
    pub fn lookup(&self, service: &str, username: &str) -> Option<String> {
        let output = self
            .command("secret-tool")
            .args(["lookup", "service", service, "username", username])
            .output()
            .unwrap();
        (output.status.success()).then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Another program stores an item under this name, with an attribute of its own.
    pub fn store_another(&self, service: &str, username: &str, secret: &str) {
        let mut store = self
            .command("secret-tool")
            .args(["store", "--label=of another", "service", service])
            .args(["username", username, "application", "another"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = store.stdin.take().unwrap();
        stdin.write_all(secret.as_bytes()).unwrap();
        drop(stdin);
        assert!(store.wait().unwrap().success());
    }

    /// Removes the item at this path.
    pub fn remove(&self, path: &str) {
        self.call(path, "org.freedesktop.Secret.Item.Delete", &[]);
    }

    fn send(&self, method: &str, arguments: &[&str]) {
        let method = format!("org.freedesktop.Secret.Service.{method}");
        self.call("/org/freedesktop/secrets", &method, arguments);
    }

    fn call(&self, path: &str, method: &str, arguments: &[&str]) {
        let output = self
            .command("dbus-send")
            .args(["--session", "--print-reply"])
            .arg(format!("--dest={SERVICE}"))
            .args([path, method])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{method}: {said}");
    }

    fn wait_for_name(&self, name: &str) {
        let has_owner = || -> Output {
            self.command("dbus-send")
                .args(["--session", "--print-reply", "--dest=org.freedesktop.DBus"])
                .args(["/", "org.freedesktop.DBus.NameHasOwner"])
                .arg(format!("string:{name}"))
                .output()
                .unwrap()
        };
        let deadline = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&has_owner().stdout).contains("boolean true") {
            assert!(Instant::now() < deadline, "{name} does not come");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The folder of the session's owner.
    pub fn home(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        for child in self.keyring.iter_mut().chain([&mut self.bus]) {
            // It may have ended.
            child.kill().unwrap_or_default();
            child.wait().unwrap();
        }
    }
}

/// Who does not answer, until dropped.
pub struct Nobody(Child);

impl Drop for Nobody {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}
