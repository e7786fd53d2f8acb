//! Why a receiver did not take a credential, or never could.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::http::HttpError;

/// The credential was not handed over, or the receiver cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The path names no file.
    #[error("{0} cannot be the path of a file")]
    Path(PathBuf),
    /// There is no such user or group.
    #[error("there is no {kind} {name:?} on this machine")]
    Owner {
        /// `user` or `group`.
        kind: &'static str,
        /// What the configuration calls it.
        name: String,
    },
    /// The file system said no.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The disk that the file is on does not answer.
    #[error("the disk with the file does not answer within {} s", .0.as_secs())]
    Disk(Duration),
    /// The template cannot be used. Neither its text nor a value is repeated.
    #[error("the template {path} {why}{}", line.map(|line| format!(" (line {line})")).unwrap_or_default())]
    Template {
        /// The template's file.
        path: PathBuf,
        /// Where in it.
        line: Option<usize>,
        /// What is wrong with it.
        why: String,
    },
    /// The credential has a character that the format cannot hold.
    #[error("the credential cannot be written as {0}")]
    Unfit(&'static str),
    /// There is no program to start.
    #[error("there is no program to start")]
    NoProgram,
    /// This is no name of a unit.
    #[error("{0:?} is no name of a unit")]
    Unit(String),
    /// The program does not start.
    #[error("{program} does not start")]
    Start {
        /// The program.
        program: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The program ended with this exit code.
    #[error("{program} ended with exit code {exit}")]
    Exit {
        /// The program.
        program: String,
        /// Its exit code.
        exit: i32,
    },
    /// systemd did not reload or restart the unit.
    #[error("`systemctl reload-or-restart {unit}` ended with exit code {exit}")]
    NotRestarted {
        /// The unit.
        unit: String,
        /// The exit code of `systemctl`.
        exit: i32,
    },
    /// The program was ended by a signal.
    #[error("{program} was ended by signal {signal}")]
    Signal {
        /// The program.
        program: String,
        /// The signal's number.
        signal: i32,
    },
    /// The program did not end in time, and was ended with all that it had started.
    #[error("{program} did not end within {} s", limit.as_secs())]
    TimedOut {
        /// The program.
        program: String,
        /// How long it may take.
        limit: Duration,
    },
    /// The address cannot be used.
    #[error("the address of the webhook {0}")]
    Url(&'static str),
    /// A header field of this name or with this value cannot be sent.
    #[error("the header field {0:?} cannot be sent")]
    Header(String),
    /// A secret that the request needs was not given.
    #[error("the secret for {0} is not there")]
    NoSecret(String),
    /// The key of the signature begins with `whsec_` and is no Base64, or ends there.
    #[error("the signing key begins with whsec_ and is no key in Base64")]
    SigningKey,
    /// There is no answer that could be used.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The receiver is out of order, or has too much to do.
    #[error("{host} cannot take it at the moment (status {status})")]
    Busy {
        /// The receiver's host.
        host: String,
        /// The status of its answer.
        status: u16,
        /// How long it wants to be left alone, at most an hour.
        retry_after: Option<Duration>,
    },
    /// The receiver does not want it.
    #[error("{host} does not take it (status {status})")]
    Refused {
        /// The receiver's host.
        host: String,
        /// The status of its answer.
        status: u16,
    },
    /// The receiver's answer is none of a key-value store of version 2.
    #[error("the answer of {0} is none of a KV store of version 2")]
    NotKv2(String),
    /// Somebody else wrote the entry between our look at it and our write.
    #[error("somebody else wrote the entry at {0} at the same time")]
    Conflict(String),
    /// The process is coming to its end.
    #[error("the delivery was given up at the end of the process")]
    Stopped,
}

/// What becomes of it if it is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It may work when it is tried again.
    Transient,
    /// A person must act; until then it is tried seldom.
    Person,
}

impl SinkError {
    /// What becomes of it if it is left alone.
    pub fn class(&self) -> Class {
        match self {
            Self::Io { source, .. } | Self::Start { source, .. } => of_io(source),
            Self::Http(HttpError::Proxy(_) | HttpError::Client(_)) => Class::Person,
            Self::Exit { .. }
            | Self::NotRestarted { .. }
            | Self::Signal { .. }
            | Self::TimedOut { .. }
            | Self::Http(
                HttpError::Unreachable { .. }
                | HttpError::Lost { .. }
                | HttpError::Deadline(_)
                | HttpError::TooLarge { .. },
            )
            | Self::Disk(_)
            | Self::Busy { .. }
            | Self::Conflict(_)
            | Self::Stopped => Class::Transient,
            Self::Path(_)
            | Self::Owner { .. }
            | Self::Template { .. }
            | Self::Unfit(_)
            | Self::NoProgram
            | Self::Unit(_)
            | Self::Url(_)
            | Self::Header(_)
            | Self::NoSecret(_)
            | Self::SigningKey
            | Self::Refused { .. }
            | Self::NotKv2(_) => Class::Person,
        }
    }

    /// A stable name that a script can match.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Owner { .. } => "owner",
            Self::Io { .. } => "io",
            Self::Disk(_) => "disk",
            Self::Template { .. } => "template",
            Self::Unfit(_) => "unfit",
            Self::NoProgram | Self::Start { .. } => "does-not-start",
            Self::Unit(_) => "unit",
            Self::Exit { .. } | Self::NotRestarted { .. } => "exit-code",
            Self::Signal { .. } => "signal",
            Self::TimedOut { .. } => "timed-out",
            Self::Url(_) => "url",
            Self::Header(_) => "header",
            Self::NoSecret(_) => "no-secret",
            Self::SigningKey => "signing-key",
            Self::Http(_) => "unreachable",
            Self::Busy { .. } => "busy",
            Self::Refused { .. } => "refused",
            Self::NotKv2(_) => "not-kv2",
            Self::Conflict(_) => "conflict",
            Self::Stopped => "stopped",
        }
    }

    /// How long the receiver wants to be left alone, where it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Busy { retry_after, .. } = self {
            *retry_after
        } else {
            None
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Path(_) => "write a path such as /run/tokenwatch/{username}.env",
            Self::Owner { .. } => {
                "`owner` is user:group, by the names in /etc/passwd and /etc/group or by numbers"
            }
            Self::Io { .. } => {
                "see that the folder is there and that the daemon's user may write to it (ReadWritePaths= and CAP_CHOWN in the unit)"
            }
            Self::Disk(_) => "see that the disk, or the network that it is on, is there",
            Self::Template { .. } => {
                "the variables are username, password, version, fingerprint and received; the filters shell and json quote"
            }
            Self::Unfit(_) => {
                "use another `format`: `json` and `raw` hold any text, `docker-env` any line"
            }
            Self::NoProgram | Self::Start { .. } => {
                "see that the program is there and that the daemon's user may run it"
            }
            Self::Unit(_) => "write the unit's whole name, such as exalate.service",
            Self::Exit { .. } | Self::Signal { .. } => {
                "run the command by hand as the daemon's user; it gets the credential as JSON on standard input"
            }
            Self::NotRestarted { .. } => {
                "see `systemctl status` of the unit, and that polkit lets the daemon's user restart it (docs/recipes.md has the rule)"
            }
            Self::TimedOut { .. } => "find out what it waits for, or raise `timeout`",
            Self::Url(_) => "write an https:// address; http:// is for this machine only",
            Self::Header(_) => "a header's name is a word, its value one line of plain letters",
            Self::NoSecret(_) => {
                "set it with `tokenwatch secret set sink/NAME`, or sink/NAME/HEADER for a header"
            }
            Self::SigningKey => "copy the key again, whole, from where the receiver shows it",
            Self::Http(HttpError::Proxy(_)) => "see `proxy` of the sink",
            Self::Http(_) => {
                "see that the receiver runs and can be reached, and that its certificate is trusted (`ca-file`)"
            }
            Self::Busy { .. } | Self::Conflict(_) | Self::Stopped => {
                "nothing; it is tried again by itself"
            }
            Self::Refused { .. } => {
                "see the receiver's log: the address, its token or its rights are wrong"
            }
            Self::NotKv2(_) => {
                "`url` is that of an entry, such as https://HOST/v1/secret/data/PATH"
            }
        }
    }
}

/// A full disk, or too many open files, will pass; what is not there, or not
/// allowed, will not.
fn of_io(error: &io::Error) -> Class {
    let needs_a_person = [
        io::ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::NotADirectory,
        io::ErrorKind::IsADirectory,
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::InvalidFilename,
        io::ErrorKind::InvalidInput,
    ];
    if needs_a_person.contains(&error.kind()) {
        Class::Person
    } else {
        Class::Transient
    }
}
