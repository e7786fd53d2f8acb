//! What is said when a command fails, and its exit code: the one place where
//! a kind of error becomes a number.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::api::ErrorBody;
use crate::config::ConfigError;
use crate::daemon::{
    ControlError, DaemonError, HeldError, InboxError, SecretError, SignInError, StateError,
};
use crate::journal::{self, JournalError};
use crate::telemetry::TelemetryError;
use crate::vault::{self, FileError, VaultError};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NO_DAEMON: u8 = 3;
const BAD_INPUT: u8 = 65;
const UNREACHABLE: u8 = 69;
const PERMISSION: u8 = 77;
const CONFIGURATION: u8 = 78;

/// What a command itself finds wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("no daemon is running")]
    NoDaemon,
    #[error("the daemon's socket {0} may not be used by this user")]
    NotAllowed(PathBuf),
    #[error("the daemon at {socket} has its state in {theirs}, and this configuration in {ours}")]
    OtherState {
        socket: PathBuf,
        ours: PathBuf,
        theirs: PathBuf,
    },
    #[error("{}", .0.error)]
    Daemon(ErrorBody),
    #[error("the daemon gave an answer that this version does not understand")]
    Answer,
    #[error("{0:?} is no name of a secret")]
    SecretName(String),
    #[error("there is no secret {0}")]
    NoSecret(String),
    #[error("what was given can be no secret")]
    NotASecret,
    #[error("no account {0} is configured")]
    UnknownAccount(String),
    #[error("there is no token of {0} to go back to")]
    NothingToRollBackTo(String),
    #[error("there is no credential for {0} yet")]
    NoCredential(String),
    #[error("cannot read {path}")]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("mail {0} was not accepted: there is no terminal to ask on")]
    NobodyToAsk(i64),
    #[error("a daemon has the vault open")]
    DaemonRuns,
    #[error("the secrets are in the store {0} already")]
    SameStore(&'static str),
    #[error("the store {0} has no key of ours")]
    NoKey(&'static str),
    #[error("--json is for the list of held mails")]
    JsonIsForLists,
    #[error("{0} is there already")]
    Exists(PathBuf),
    #[error("{0} is not given, and there is nobody to ask")]
    NotGiven(&'static str),
    #[error("no place for the configuration is known")]
    NoPlace,
    #[error("cannot write {path}")]
    Unwritable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("standard output cannot be written")]
    Output,
    #[error("no token mail among the {0} mails that were read")]
    NoNotice(usize),
}

impl CliError {
    fn meet(&self) -> (u8, Option<String>) {
        let (code, hint) = match self {
            Self::NoDaemon => (
                NO_DAEMON,
                "start it with `systemctl start tokenwatch` or `tokenwatch run`",
            ),
            Self::NotAllowed(_) => (
                PERMISSION,
                "run it with sudo, as the daemon's user, or join the group of the socket",
            ),
            Self::OtherState { .. } => (
                CONFIGURATION,
                "set `state-dir` in the configuration, so that the daemon and the commands mean the same",
            ),
            Self::Daemon(body) => return (body.exit_code, body.hint.clone()),
            Self::Answer => (FAILED, "restart the daemon after an update"),
            Self::SecretName(_) => (
                USAGE,
                "the names are mailbox/NAME, account/USERNAME, oauth/NAME, client/NAME and sink/NAME",
            ),
            Self::NoSecret(_) => (FAILED, "`tokenwatch secret list` shows what is there"),
            Self::NotASecret => (
                BAD_INPUT,
                "it must be one line of text (UTF-8, without a byte order mark, 64 KiB at most), such as `printf %s \"$PASSWORD\" | tokenwatch secret set NAME`",
            ),
            Self::UnknownAccount(_) => (
                FAILED,
                "`tokenwatch credential list` shows the accounts; add an [[account]] for a new one",
            ),
            Self::NothingToRollBackTo(_) => (
                FAILED,
                "`tokenwatch credential history` shows what there is; it also needs the password",
            ),
            Self::NoCredential(_) => (
                FAILED,
                "`tokenwatch credential list` says what is missing: the password, or a token mail",
            ),
            Self::Unreadable { source, .. } => (
                if source.kind() == std::io::ErrorKind::PermissionDenied {
                    PERMISSION
                } else {
                    BAD_INPUT
                },
                "name mails (.eml), mbox files or Maildir folders; - is standard input",
            ),
            Self::NobodyToAsk(id) => {
                let hint = format!("`tokenwatch held accept {id} --yes` does what is shown above");
                return (USAGE, Some(hint));
            }
            Self::DaemonRuns => (
                FAILED,
                "stop the daemon first (`systemctl stop tokenwatch`)",
            ),
            Self::SameStore(_) => (USAGE, "name another one: file, native or keyutils"),
            Self::NoKey(_) => (
                USAGE,
                "the encrypted file alone has one (`backend = \"file\"`)",
            ),
            Self::JsonIsForLists => (USAGE, "leave it out, or run `tokenwatch held --json`"),
            Self::Exists(_) => (FAILED, "--force replaces it; --output names another file"),
            Self::NotGiven(_) => (
                USAGE,
                "give --mailbox-host, --mailbox-user and --account, or run it on a terminal",
            ),
            Self::NoPlace => (USAGE, "name the file with --output"),
            Self::Unwritable { source, .. } => (
                if source.kind() == std::io::ErrorKind::PermissionDenied {
                    PERMISSION
                } else {
                    FAILED
                },
                "see that the folder is there and that this user may write to it",
            ),
            Self::Output => (FAILED, "make room where the output goes, and run it again"),
            Self::NoNotice(_) => (
                BAD_INPUT,
                "save the mail with all its headers (\"show original\"), and give that file",
            ),
        };
        (code, Some(hint.to_owned()))
    }
}

/// Says what went wrong.
pub(super) fn complain(error: &anyhow::Error) -> ExitCode {
    use std::io::ErrorKind;
    let kind = error
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind);
    // Whoever read what was printed has seen enough (`… | head`).
    if kind == Some(ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let is_full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    if kind.is_some_and(|kind| is_full.contains(&kind)) {
        return say(&anyhow::Error::msg(error.to_string()).context(CliError::Output));
    }
    say(error)
}

fn say(error: &anyhow::Error) -> ExitCode {
    let (code, hint) = meet(error);
    let mut out = anstream::AutoStream::auto(std::io::stderr().lock());
    let red = anstyle::Style::new()
        .fg_color(Some(anstyle::AnsiColor::Red.into()))
        .bold();
    let bold = anstyle::Style::new().bold();
    let mut lines = vec![format!("{red}error:{red:#} {error}")];
    lines.extend(
        causes(error)
            .iter()
            .map(|cause| format!("{bold}caused by:{bold:#} {cause}")),
    );
    lines.extend(hint.map(|hint| format!("{bold}hint:{bold:#} {hint}")));
    // Nothing can be told where standard error is gone.
    writeln!(out, "{}", lines.join("\n")).unwrap_or_default();
    ExitCode::from(code)
}

fn causes(error: &anyhow::Error) -> Vec<String> {
    if let Some(CliError::Daemon(body)) = error.downcast_ref() {
        return body.causes.clone();
    }
    error.chain().skip(1).map(ToString::to_string).collect()
}

fn meet(error: &anyhow::Error) -> (u8, Option<String>) {
    if let Some(error) = error.downcast_ref::<CliError>() {
        error.meet()
    } else if let Some(error) = error.downcast_ref::<ConfigError>() {
        configuration(error)
    } else if let Some(error) = error.downcast_ref::<DaemonError>() {
        daemon(error)
    } else if let Some(error) = error.downcast_ref::<StateError>() {
        (state(error), Some(error.hint()))
    } else if let Some(error) = error.downcast_ref::<HeldError>() {
        held(error)
    } else if let Some(error) = error.downcast_ref::<SignInError>() {
        match error {
            SignInError::UnknownMailbox(_) => {
                let hint = "the configuration names the mailboxes";
                (USAGE, Some(hint.to_owned()))
            }
            SignInError::NotOauth(name) => {
                let hint =
                    format!("its password is set with `tokenwatch secret set mailbox/{name}`");
                (CONFIGURATION, Some(hint))
            }
        }
    } else if let Some(error) = error.downcast_ref::<TelemetryError>() {
        let hint = match error {
            TelemetryError::Filter(_) => {
                "a filter is a level (error, warn, info, debug, trace) or target=level,…"
            }
            TelemetryError::Journald(_) => "use --log-format text where no journal is",
        };
        (USAGE, Some(hint.to_owned()))
    } else {
        (FAILED, None)
    }
}

fn configuration(error: &ConfigError) -> (u8, Option<String>) {
    let code = if error.is_permission() {
        PERMISSION
    } else {
        CONFIGURATION
    };
    (code, Some(error.hint()))
}

fn daemon(error: &DaemonError) -> (u8, Option<String>) {
    match error {
        DaemonError::State(error) => (state(error), Some(error.hint())),
        DaemonError::Config(error) => configuration(error),
        DaemonError::NoMailbox => (
            CONFIGURATION,
            Some(
                "add a [[mailbox]] to the configuration; config/minimal.toml is a start".to_owned(),
            ),
        ),
        DaemonError::Keys(_) => (
            UNREACHABLE,
            Some("set `dns-servers` in [trust], or see /etc/resolv.conf".to_owned()),
        ),
        DaemonError::Control(ControlError::InUse(_)) => (
            FAILED,
            Some(
                "stop the other daemon, or give this one a $RUNTIME_DIRECTORY of its own"
                    .to_owned(),
            ),
        ),
        DaemonError::Control(ControlError::Io { source, .. }) => (
            if source.kind() == std::io::ErrorKind::PermissionDenied {
                PERMISSION
            } else {
                FAILED
            },
            Some("see that the folder of the socket is writable for this user".to_owned()),
        ),
        DaemonError::Incomplete {
            mailbox, source, ..
        } => (inbox(source), Some(source.hint(mailbox))),
        DaemonError::SignIn { mailbox, source } => (inbox(source), Some(source.hint(mailbox))),
        DaemonError::Sink(error) => (CONFIGURATION, Some(error.hint())),
        DaemonError::Unfinished { .. } => (
            UNREACHABLE,
            Some(
                "the log says why at `sink.failed`, `credential.unchecked` and `salesforce.unwritten`; run it again"
                    .to_owned(),
            ),
        ),
        DaemonError::Undecided(_) => (
            UNREACHABLE,
            Some(
                "the DNS does not answer, or a server does not hand a mail out: the log says which at `notice.undecided`; run it again, the mails are not forgotten"
                    .to_owned(),
            ),
        ),
        DaemonError::Thread(_) | DaemonError::WorkerGone => (FAILED, None),
    }
}

fn held(error: &HeldError) -> (u8, Option<String>) {
    match error {
        HeldError::State(error) => (state(error), Some(error.hint())),
        HeldError::Daemon(error) => daemon(error),
        HeldError::Inbox { mailbox, source } => (inbox(source), Some(source.hint(mailbox))),
        HeldError::NotHeld(_)
        | HeldError::Gone(_)
        | HeldError::Renumbered { .. }
        | HeldError::Unfetchable(_)
        | HeldError::NoNotice { .. }
        | HeldError::UnknownAccount(_)
        | HeldError::NotTaken { .. }
        | HeldError::Changed(_) => (error.exit_code(), error.hint()),
    }
}

fn inbox(error: &InboxError) -> u8 {
    if let InboxError::State(error) = error {
        return state(error);
    }
    error.exit_code()
}

fn state(error: &StateError) -> u8 {
    let denied = |source: &std::io::Error| source.kind() == std::io::ErrorKind::PermissionDenied;
    match error {
        StateError::ForeignFolder { .. } => PERMISSION,
        StateError::Folder { source, .. } if denied(source) => PERMISSION,
        StateError::Vault(error) | StateError::Entry(error) => vault(error),
        StateError::Journal(error) => journal(error),
        StateError::Document { .. } | StateError::Vanished(_) | StateError::KeyVanished => {
            BAD_INPUT
        }
        StateError::Secret(SecretError::File { source, .. }) if denied(source) => PERMISSION,
        StateError::Secret(_) => CONFIGURATION,
        StateError::Folder { .. } | StateError::Random | StateError::Stopped => FAILED,
    }
}

fn vault(error: &VaultError) -> u8 {
    match error {
        VaultError::File(FileError::WrongKey(_) | FileError::WrongPassphrase(_)) => PERMISSION,
        VaultError::File(FileError::KeyMissing(_) | FileError::KeyMalformed(_)) => CONFIGURATION,
        VaultError::File(
            FileError::Damaged(_)
            | FileError::TooLarge(_)
            | FileError::WentBack(_)
            | FileError::NewerFormat(_),
        ) => BAD_INPUT,
        VaultError::File(
            FileError::Io { .. }
            | FileError::Locked(_)
            | FileError::Insecure { .. }
            | FileError::KeyProvided(_)
            | FileError::NoVault(_),
        )
        | VaultError::Ask(_)
        | VaultError::NoKeyutils
        | VaultError::NoRoom
        | VaultError::Differs { .. }
        | VaultError::NotMoved(_)
        | VaultError::NoAccess
        | VaultError::Store(_)
        | VaultError::NoSecretService
        | VaultError::TimedOut
        | VaultError::Stuck
        | VaultError::Stopped
        | VaultError::Thread(_)
        | VaultError::NotText { .. }
        | VaultError::Ambiguous { .. } => match error.class() {
            vault::Class::Permission => PERMISSION,
            vault::Class::Transient | vault::Class::Person => FAILED,
        },
    }
}

fn journal(error: &JournalError) -> u8 {
    match error.class() {
        journal::Class::Permission => PERMISSION,
        journal::Class::Damaged => BAD_INPUT,
        journal::Class::Transient => FAILED,
    }
}
