//! The real binary, as a user runs it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "every target that includes this file uses a part of it, and fails by a panic"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up: more than a silent line
/// takes to be noticed.
const PATIENCE: Duration = Duration::from_secs(45);

/// A user's machine: a folder with a configuration, and the binary.
pub(crate) struct Machine {
    pub folder: tempfile::TempDir,
    binary: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// What a command ended with.
pub(crate) struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Machine {
    /// A machine with this configuration; `STATE` in it stands for the state folder.
    pub(crate) fn new(configuration: &str) -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            binary: PathBuf::from(env!("CARGO_BIN_EXE_tokenwatch")),
            environment: Vec::new(),
        };
        machine.configure(configuration);
        machine
    }

    /// A machine on which all that runs has this variable.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    pub(crate) fn configure(&self, configuration: &str) {
        let state = self.state_dir().display().to_string();
        let text = configuration.replace("STATE", &state);
        std::fs::write(self.config_file(), text).unwrap();
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.path().join("tokenwatch.toml")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The binary with the configuration, and nothing of our environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg("--config")
            .arg(self.config_file())
            .args(arguments);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with_input(arguments, "")
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails early does not read its input.
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap_or_default();
        Ended::of(child.wait_with_output().unwrap())
    }

    /// Runs a command on a terminal of its own (`script(1)`), where all of this
    /// is typed. What it prints comes together.
    pub(crate) fn on_a_terminal(&self, arguments: &[&str], typed: &str) -> Ended {
        let inner = self.command(arguments);
        let words = std::iter::once(inner.get_program()).chain(inner.get_args());
        let line: Vec<_> = words
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let mut child = Command::new("script")
            .args(["-qec", &line.join(" "), "/dev/null"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The terminal is hung up when this is dropped.
        let mut keyboard = child.stdin.take().unwrap();
        keyboard.write_all(typed.as_bytes()).unwrap();
        Ended::of(child.wait_with_output().unwrap())
    }

    /// Runs a command that may have no more than `kib` of data in memory.
    pub(crate) fn run_within(&self, kib: usize, arguments: &[&str]) -> Ended {
        let inner = self.command(arguments);
        let output = Command::new("/bin/sh")
            .args(["-c", &format!("ulimit -d {kib}; exec \"$@\""), "sh"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_clear()
            .env("HOME", self.folder.path())
            .output()
            .unwrap();
        Ended::of(output)
    }

    /// Runs a command that must succeed: what it prints.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
        ended.stdout
    }

    pub(crate) fn set_secret(&self, name: &str, secret: &str) {
        let ended = self.run_with_input(&["secret", "set", name], secret);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }

    /// The credential, if there is one.
    pub(crate) fn credential(&self, username: &str) -> Option<String> {
        let ended = self.run(&["credential", "get", username]);
        (ended.code == 0).then_some(ended.stdout)
    }

    /// How many versions of an account's token are known.
    pub(crate) fn versions(&self, username: &str) -> usize {
        let printed = self.ok(&["credential", "history", "--json", username]);
        let versions: Value = serde_json::from_str(&printed).unwrap();
        versions.as_array().unwrap().len()
    }

    /// Starts the daemon, and waits until it is ready.
    pub(crate) fn daemon(&self) -> Daemon {
        let daemon = self.daemon_at("info");
        daemon.wait_for("daemon.ready", |_| true);
        daemon
    }

    /// Starts the daemon with this filter for its log.
    pub(crate) fn daemon_at(&self, filter: &str) -> Daemon {
        Daemon::start(self.command(&["--log", filter, "--log-format", "json", "run"]))
    }

    pub(crate) fn status(&self) -> Value {
        let ended = self.run(&["status", "--json"]);
        serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|_| panic!("no status: {}", ended.stderr))
    }

    /// Waits until the status is as wanted.
    pub(crate) fn wait_status(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "not in time: {status:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts that it failed as the contract says: code, and error and hint.
    pub(crate) fn failed(&self, code: i32, error: &str, hint: &str) {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        assert!(self.stderr.contains("hint: "), "{}", self.stderr);
        for wanted in [error, hint] {
            assert!(self.stderr.contains(wanted), "{wanted} in {}", self.stderr);
        }
    }
}

/// A running daemon, and its log.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    text: Vec<String>,
    /// The lines that are JSON, parsed once.
    parsed: Vec<Value>,
    ended: bool,
}

impl Daemon {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::<Log>::default();
        let stderr = child.stderr.take().unwrap();
        let reader = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                let mut lines = reader.lines.lock().unwrap();
                lines.parsed.extend(serde_json::from_str::<Value>(&line));
                lines.text.push(line);
                drop(lines);
                reader.more.notify_all();
            }
            reader.lines.lock().unwrap().ended = true;
            reader.more.notify_all();
        });
        Self { child, log }
    }

    /// Waits for a line with this event that is as wanted.
    pub(crate) fn wait_for(&self, event: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_nth(event, 1, wanted)
    }

    /// Waits for the `nth` such line.
    pub(crate) fn wait_for_nth(
        &self,
        event: &str,
        nth: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            let found = lines
                .parsed
                .iter()
                .filter(|line| line["event"] == event && wanted(line))
                .nth(nth - 1);
            if let Some(found) = found {
                return found.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !lines.ended,
                "no {event}: {}",
                lines.text.join("\n")
            );
            lines = self.log.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Everything that was logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap().text.join("\n")
    }

    /// The lines that were logged, without the first `known` of them.
    pub(crate) fn lines_after(&self, known: usize) -> Vec<String> {
        let lines = self.log.lines.lock().unwrap();
        lines.text.iter().skip(known).cloned().collect()
    }

    /// Whether it has ended, by itself or by a signal, and its log is complete.
    pub(crate) fn has_ended(&self) -> bool {
        self.log.lines.lock().unwrap().ended
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// The most memory that it has had so far (`VmHWM`), in KiB.
    pub(crate) fn peak(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let figure = line.unwrap().trim().strip_suffix(" kB").unwrap();
        figure.parse().unwrap()
    }

    /// How many lines with this event there are so far.
    pub(crate) fn count(&self, event: &str) -> usize {
        let lines = self.log.lines.lock().unwrap();
        let is_it = |line: &&Value| line["event"] == event;
        lines.parsed.iter().filter(is_it).count()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// SIGTERM, and the end: its status, what it printed and its log.
    pub(crate) fn stop(mut self) -> (ExitStatus, String, String) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait();
        let mut printed = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut printed).unwrap();
        (status, printed, self.log())
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().unwrap();
        while !lines.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "it does not end: {}",
                lines.text.join("\n")
            );
            lines = self.log.more.wait_timeout(lines, left).unwrap().0;
        }
        drop(lines);
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// The wall clock of daemons, turned by libfaketime (Debian: faketime). Their timers go on as
/// they do while a machine sleeps.
pub(crate) struct Faketime {
    library: PathBuf,
    clock: PathBuf,
}

impl Faketime {
    /// A clock that is right so far.
    pub(crate) fn new(machine: &Machine) -> Self {
        let library = ["x86_64", "aarch64"]
            .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"))
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists())
            .expect("libfaketime (Debian: faketime)");
        let clock = machine.folder.path().join("clock");
        std::fs::write(&clock, "+0\n").unwrap();
        Self { library, clock }
    }

    /// From now on it is so many minutes fast.
    pub(crate) fn turn(&self, minutes: u32) {
        // Renamed into place, so that no half-written clock is read.
        let later = self.clock.with_extension("later");
        std::fs::write(&later, format!("+{minutes}m\n")).unwrap();
        std::fs::rename(&later, &self.clock).unwrap();
    }

    /// Starts a daemon that goes by it, and waits until it is ready.
    pub(crate) fn daemon(&self, machine: &Machine) -> Daemon {
        let mut command = machine.command(&["--log-format", "json", "run"]);
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.clock)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let daemon = Daemon::start(command);
        daemon.wait_for("daemon.ready", |_| true);
        daemon
    }

    /// Starts a daemon for which everything goes so many times as fast, its timers too.
    pub(crate) fn fast_daemon(&self, machine: &Machine, times: u32) -> Daemon {
        let mut command = machine.command(&["--log-format", "json", "run"]);
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME", format!("+0 x{times}"));
        let daemon = Daemon::start(command);
        daemon.wait_for("daemon.ready", |_| true);
        daemon
    }
}

/// Every file under a folder, with its path.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
