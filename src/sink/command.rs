//! A program that reads the credential from its standard input, in a process group of its own.
//!
//! What it prints goes nowhere, for it may repeat the secret. Whether it reads its input is its
//! own business: the exit code decides. What it leaves running when it ends by itself is left
//! alone; one that takes too long is ended with everything that it started, but for what has left
//! its process group (setsid(2)).

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::Access;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::render::{self, Object};
use super::{CommandOptions, Credential, Delivered, SinkError};

/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// The longest name of a unit (systemd.unit(5)).
const UNIT: usize = 255;

/// What is started, and how long it may take.
#[derive(Debug)]
pub(super) struct Command {
    program: String,
    arguments: Vec<String>,
    limit: Duration,
    hidden: Vec<OsString>,
    /// The unit that it is about; it gets no credential then.
    unit: Option<String>,
}

impl Command {
    pub(super) fn new(options: &CommandOptions) -> Result<Self, SinkError> {
        let [program, arguments @ ..] = options.argv.as_slice() else {
            return Err(SinkError::NoProgram);
        };
        Ok(Self {
            program: program.clone(),
            arguments: arguments.to_vec(),
            limit: options.timeout,
            hidden: options.hidden.clone(),
            unit: None,
        })
    }

    /// `systemctl`, which says when the unit is up again, or that it is not.
    pub(super) fn of_unit(
        unit: &str,
        limit: Duration,
        hidden: &[OsString],
    ) -> Result<Self, SinkError> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        let (name, kind) = unit.rsplit_once('.').unwrap_or_default();
        let is_unit = !name.is_empty()
            && !kind.is_empty()
            && !unit.starts_with(['-', '.'])
            && unit.len() <= UNIT
            && unit.bytes().all(is_plain)
            && kind.bytes().all(|b| b.is_ascii_lowercase());
        if !is_unit {
            return Err(SinkError::Unit(unit.to_owned()));
        }
        let arguments = ["--no-ask-password", "reload-or-restart", "--", unit];
        Ok(Self {
            program: "systemctl".to_owned(),
            arguments: arguments.map(str::to_owned).to_vec(),
            limit,
            hidden: hidden.to_vec(),
            unit: Some(unit.to_owned()),
        })
    }

    /// Whether there is such a program that we may run; without a folder in its name, in one of
    /// `programs`.
    pub(super) fn look(&self, programs: &[PathBuf]) -> Result<(), SinkError> {
        let may_run = |path: &Path| {
            let found = std::fs::metadata(path)?;
            if !found.is_file() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            Ok(rustix::fs::access(path, Access::EXEC_OK)?)
        };
        if self.program.contains('/') {
            return may_run(Path::new(&self.program)).map_err(|source| self.lost(source));
        }
        let mut places = programs.iter().map(|folder| folder.join(&self.program));
        if places.any(|place| may_run(&place).is_ok()) {
            return Ok(());
        }
        Err(self.lost(io::ErrorKind::NotFound.into()))
    }

    /// Runs it to its end.
    pub(super) async fn run(&self, credential: &Credential) -> Result<Delivered, SinkError> {
        let mut child = self.start()?;
        let mut group = Group::of(&child);
        let input = child.stdin.take();
        let ended = timeout(self.limit, async {
            let written = feed(input, self.unit.is_none().then(|| input_of(credential)));
            tokio::pin!(written);
            tokio::select! {
                biased;
                // It has ended, whoever else holds its input.
                ended = child.wait() => return ended,
                () = &mut written => {}
            }
            child.wait().await
        });
        let Ok(ended) = ended.await else {
            group.end().await;
            // One that hangs in the kernel dies when it comes out of it, and nobody waits for that.
            if let Ok(Ok(_)) = timeout(GRACE, child.wait()).await {
                group.is_gone();
            }
            return Err(SinkError::TimedOut {
                program: self.program.clone(),
                limit: self.limit,
            });
        };
        let status = ended.map_err(|source| self.lost(source))?;
        group.is_gone();
        self.judge(status)
    }

    fn start(&self) -> Result<Child, SinkError> {
        let mut command = tokio::process::Command::new(&self.program);
        for name in &self.hidden {
            command.env_remove(name);
        }
        command
            .args(&self.arguments)
            .stdin(if self.unit.is_none() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| SinkError::Start {
                program: self.program.clone(),
                source,
            })
    }

    fn lost(&self, source: io::Error) -> SinkError {
        SinkError::Start {
            program: self.program.clone(),
            source,
        }
    }

    fn judge(&self, status: ExitStatus) -> Result<Delivered, SinkError> {
        let program = self.program.clone();
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(Delivered::New),
            (Some(exit), _) => Err(match &self.unit {
                Some(unit) => SinkError::NotRestarted {
                    unit: unit.clone(),
                    exit,
                },
                None => SinkError::Exit { program, exit },
            }),
            (None, signal) => Err(SinkError::Signal {
                program,
                signal: signal.unwrap_or_default(),
            }),
        }
    }
}

fn input_of(credential: &Credential) -> Zeroizing<Vec<u8>> {
    let object = Object {
        id: Some(&credential.id),
        ..Object::of(credential)
    };
    render::json_line(&object).into_bytes()
}

/// Writes what there is to write and closes the pipe. A program that does not read is no failure.
async fn feed(pipe: Option<ChildStdin>, input: Option<Zeroizing<Vec<u8>>>) {
    if let (Some(mut pipe), Some(input)) = (pipe, input) {
        pipe.write_all(&input).await.unwrap_or_default();
        pipe.shutdown().await.unwrap_or_default();
    }
}

/// The process group of a child that nobody has waited for yet: as long as that is so, no other
/// group has its number.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self(pid.and_then(Pid::from_raw))
    }

    /// Asks, waits and kills. Who leads the group may end at once and leave others in it, so the
    /// whole time is waited.
    async fn end(&self) {
        self.signal(Signal::TERM);
        sleep(GRACE).await;
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // All of it may have ended.
            kill_process_group(group, signal).unwrap_or_default();
        }
    }

    /// Its leader has been waited for.
    fn is_gone(&mut self) {
        self.0 = None;
    }
}

/// A delivery that is given up takes its processes along.
impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
