//! Secrets from the places that are not the vault. They are read when they are
//! needed and kept nowhere else. Here whoever reads one waits for as long as it
//! takes; `elsewhere` sees to it that nobody has to.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use crate::config::{self, SecretSource};
use crate::secret::Secret;

/// How long a secret may be waited for.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// How often a command is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// No secret is longer, in bytes.
const MAX_LENGTH: u64 = 64 * 1024;

/// A secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// systemd has given no such credential.
    #[error("systemd gave no credential {0}")]
    NoCredential(String),
    /// The command does not start.
    #[error("{program} does not start")]
    Start {
        /// The program.
        program: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The command failed.
    #[error("{0} failed")]
    Command(String),
    /// The disk or the command does not answer, or did not a moment ago.
    #[error("{0} gave no secret within 10 s")]
    TimedOut(String),
    /// It was not tried, since so many others did not answer.
    #[error("{0} was not asked for the secret: too many others did not answer")]
    NoTurn(String),
    /// There is no thread to read it on.
    #[error("no thread starts to read the secret on")]
    Thread(#[source] io::Error),
    /// What was read can be no secret.
    #[error("the secret is empty, too long or no text")]
    Unusable,
}

impl SecretError {
    /// Whether trying again may help, with nobody having done anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::NoTurn(_) | Self::Thread(_) => true,
            Self::File { source, .. } | Self::Start { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::InvalidInput
            ),
            Self::NoCredential(_) | Self::Command(_) | Self::Unusable => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => "see that the file exists and that the daemon's user may read it",
            Self::NoCredential(_) => {
                "add LoadCredentialEncrypted= to the unit; the ID must be the one it was encrypted with"
            }
            Self::Start { .. } | Self::Command(_) => "run the command by hand as the daemon's user",
            Self::TimedOut(_) | Self::NoTurn(_) => {
                "run the command by hand as the daemon's user, and see whether it waits for somebody; a file may be on a disk that does not answer"
            }
            Self::Thread(_) => "see how many threads the system allows (`TasksMax=` of the unit)",
            Self::Unusable => {
                "it must be one line of UTF-8 text, without a byte order mark, of at most 64 KiB"
            }
        }
    }
}

/// Reads a secret; `None` where the vault has it, which is the worker's.
pub(super) fn read(source: &SecretSource) -> Result<Option<Secret>, SecretError> {
    match source {
        SecretSource::Vault => Ok(None),
        SecretSource::Credential(id) => file(&credential(id)?).map(Some),
        SecretSource::File(path) => file(path).map(Some),
        SecretSource::Command(argv) => command(argv).map(Some),
    }
}

/// The file of a systemd credential.
pub(super) fn credential(id: &str) -> Result<PathBuf, SecretError> {
    config::credentials_directory()
        .map(|folder| folder.join(id))
        .filter(|path| path.exists())
        .ok_or_else(|| SecretError::NoCredential(id.to_owned()))
}

fn file(path: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::File {
        path: path.to_owned(),
        source,
    };
    // A pipe in its place would keep the reader waiting for whoever writes to it.
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nonblock);
    let file = options.open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )));
    }
    from_reader(file)
        .map_err(failed)?
        .ok_or(SecretError::Unusable)
}

fn command(argv: &[String]) -> Result<Secret, SecretError> {
    let [program, arguments @ ..] = argv else {
        return Err(SecretError::Unusable);
    };
    let mut starting = Command::new(program);
    for name in config::not_for_children() {
        starting.env_remove(name);
    }
    let begun = Instant::now();
    let mut child = starting
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // With what it starts in turn, so that it can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(|source| SecretError::Start {
            program: program.clone(),
            source,
        })?;
    let printed = match child.stdout.take() {
        Some(output) => Output { output, begun }.secret(),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    let ended = match printed {
        Ok(printed) => end_of(&mut child, begun).map(|status| (printed, status)),
        Err(error) => Err(error),
    };
    let failed = || SecretError::Command(program.clone());
    match ended {
        Ok((Some(secret), status)) if status.success() => Ok(secret),
        Ok((None, status)) if status.success() => Err(SecretError::Unusable),
        Ok(_) => Err(failed()),
        Err(error) => {
            // Nobody has waited for it yet, so the number is still its own. What it
            // has left running holds its output, and ends with it.
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(group) = group {
                kill_process_group(group, Signal::KILL).unwrap_or_default();
            }
            child.wait().map_err(|_| failed())?;
            if error.kind() == io::ErrorKind::TimedOut {
                return Err(SecretError::TimedOut(program.clone()));
            }
            Err(failed())
        }
    }
}

/// How a command ends that has closed its output; it may go on all the same.
fn end_of(child: &mut Child, begun: Instant) -> io::Result<ExitStatus> {
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(status),
            None if begun.elapsed() < DEADLINE => std::thread::sleep(GLANCE),
            None => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// The output of a command that has begun, for as long as it may take. Who else
/// holds it may hold it for ever, and reading must come to an end.
struct Output {
    output: ChildStdout,
    begun: Instant,
}

impl Output {
    fn secret(self) -> io::Result<Option<Secret>> {
        fcntl_setfl(&self.output, OFlags::NONBLOCK)?;
        from_reader(self)
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.output.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.begun.elapsed() >= DEADLINE {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    std::thread::sleep(GLANCE);
                }
                read => return read,
            }
        }
    }
}

/// Reads a secret to its end. `None` where it can be none: see [`secret_of`], and it is text of
/// at most 64 KiB.
pub fn from_reader(reader: impl Read) -> io::Result<Option<Secret>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
    // One byte more, so that what is too long is refused and not cut.
    let read = reader
        .take(MAX_LENGTH.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read > MAX_LENGTH) {
        return Ok(None);
    }
    Ok(std::str::from_utf8(&bytes).ok().and_then(secret_of))
}

/// What a person or a program handed over, without the line end that it was
/// sent with. `None` where it can be no secret: a control character in it
/// would be typing gone wrong, or an attempt to break a line; a byte order mark
/// is an editor's, and blanks alone are a slip.
pub fn secret_of(text: &str) -> Option<Secret> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let can_be_one = !text.trim().is_empty()
        && !text.starts_with('\u{feff}')
        && !text.chars().any(char::is_control);
    can_be_one.then(|| Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|&w| w.to_owned()).collect()
    }

    #[test]
    fn a_command_prints_the_secret() {
        assert_eq!(
            command(&argv(&["echo", "pass word"])).unwrap().expose(),
            "pass word"
        );
        assert!(matches!(
            command(&argv(&["false"])),
            Err(SecretError::Command(_))
        ));
        assert!(matches!(
            command(&argv(&["true"])),
            Err(SecretError::Unusable)
        ));
        assert!(matches!(
            command(&argv(&["/no/such/program"])),
            Err(SecretError::Start { .. })
        ));
    }

    #[test]
    fn a_command_that_goes_on_is_ended() {
        let begun = Instant::now();
        let hangs = argv(&["sh", "-c", "echo x; exec >&-; sleep 60"]);
        assert!(matches!(command(&hangs), Err(SecretError::TimedOut(_))));
        assert!(begun.elapsed() < DEADLINE * 2);
    }

    /// Also where the command itself has ended, and what it has left behind holds its output.
    #[test]
    fn what_a_command_started_is_ended_with_it() {
        for then in ["wait", "echo x"] {
            let folder = tempfile::tempdir().unwrap();
            let alive = folder.path().join("pid");
            let script = format!("sleep 60 & echo $! > {}; {then}", alive.display());
            assert!(matches!(
                command(&argv(&["sh", "-c", &script])),
                Err(SecretError::TimedOut(_))
            ));
            let pid = std::fs::read_to_string(&alive).unwrap();
            let process = format!("/proc/{}/stat", pid.trim());
            // It is killed, and gone or waited for by nobody yet.
            let begun = Instant::now();
            loop {
                match std::fs::read_to_string(&process) {
                    Err(_) => break,
                    Ok(stat) if stat.contains(") Z") => break,
                    Ok(stat) => assert!(begun.elapsed() < DEADLINE, "it is alive: {stat}"),
                }
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn what_mends_itself_is_told_from_what_a_person_has_to_mend() {
        let missing = file(Path::new("/no/such/file")).unwrap_err();
        let unstarted = command(&argv(&["/no/such/program"])).unwrap_err();
        for error in [missing, unstarted, command(&argv(&["false"])).unwrap_err()] {
            assert!(!error.is_transient(), "{error}");
        }
        let stale = SecretError::File {
            path: "x".into(),
            source: io::ErrorKind::StaleNetworkFileHandle.into(),
        };
        for error in [stale, SecretError::TimedOut("x".into())] {
            assert!(error.is_transient(), "{error}");
        }
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let (send, read) = mpsc::sync_channel(1);
        std::thread::spawn(move || send.send(file(&path)));
        let read = read.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(matches!(read, Err(SecretError::File { .. })));
    }

    #[test]
    fn one_line_end_is_no_part_of_a_secret() {
        for (text, secret) in [
            ("a b\n", Some("a b")),
            ("a\r\n", Some("a")),
            (" a ", Some(" a ")),
            ("", None),
            ("\n", None),
            ("a\nb\n", None),
            ("a\0", None),
            ("  \n", None),
            ("\u{feff}a", None),
        ] {
            assert_eq!(
                secret_of(text).as_ref().map(Secret::expose),
                secret,
                "{text:?}"
            );
        }
    }
}
