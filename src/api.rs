//! What the daemon and the commands say to each other over the control socket:
//! the JSON of `status`, of a resync, of the credential verbs. It is a part of
//! the contract; a key that is here stays.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The header that names the state folder of the daemon that answers, so that
/// a command never talks to the daemon of another configuration.
pub const STATE_DIR_HEADER: &str = "x-tokenwatch-state-dir";

/// `GET /v1/status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The version of this form: 1.
    pub version: u32,
    /// Whether it does its work.
    pub state: Health,
    /// One entry a mailbox and folder.
    pub mailboxes: Vec<MailboxStatus>,
    /// One entry an account.
    pub accounts: Vec<AccountStatus>,
    /// One entry a sink and account.
    pub sinks: Vec<SinkStatus>,
    /// How many mails wait for a person.
    pub held: u32,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Whether tokenwatch does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Every mail is seen and every credential is current.
    Healthy,
    /// Something of it is not so; `problems` says what.
    Degraded,
    /// It has just begun, and not every mailbox was reached yet.
    Starting,
}

/// A watched folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MailboxStatus {
    /// The mailbox's name.
    pub name: String,
    /// Its server.
    pub host: String,
    /// The folder.
    pub folder: String,
    /// What is being done.
    pub state: MailboxState,
    /// Since when.
    pub since: Timestamp,
    /// When the server last said anything: the proof that it is being watched.
    pub proof_of_life: Option<Timestamp>,
    /// When something last happened to a mail of it.
    pub last_event: Option<Timestamp>,
    /// What went wrong last, while it lasts.
    pub last_error: Option<String>,
    /// When it is tried again.
    pub next_attempt: Option<Timestamp>,
}

/// What is being done with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailboxState {
    /// A connection is being made.
    Connecting,
    /// Logging in.
    Authenticating,
    /// Looking through what came meanwhile.
    CatchingUp,
    /// The server tells of news (IDLE).
    Watching,
    /// The server is asked for news.
    Polling,
    /// It failed, and is tried again later.
    Waiting,
}

/// An account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountStatus {
    /// The Salesforce username.
    pub username: String,
    /// How it stands.
    pub state: AccountState,
    /// When the server received the mail with the newest token.
    pub token_received: Option<Timestamp>,
    /// The number of the newest version.
    pub version: Option<u64>,
    /// Whether a login proved it; `null` where that is off.
    pub verified: Option<bool>,
    /// A keyed hash of the newest token, to tell tokens apart.
    pub fingerprint: Option<String>,
    /// What Salesforce said last, where logins are checked.
    pub answer: Option<String>,
    /// When the next login or the release without one is due.
    pub next_check: Option<Timestamp>,
}

impl AccountStatus {
    /// That of an account of which nothing can be said.
    pub fn unreadable(username: String) -> Self {
        Self {
            username,
            state: AccountState::Unreadable,
            token_received: None,
            version: None,
            verified: None,
            fingerprint: None,
            answer: None,
            next_check: None,
        }
    }
}

/// How an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountState {
    /// The credential is there and up to date.
    Current,
    /// The newest token is kept, and waits for its check.
    Checking,
    /// The Salesforce password is not known.
    PasswordMissing,
    /// Salesforce refused the credential.
    LoginRefused,
    /// No token mail was found yet.
    NoToken,
    /// What is kept for it cannot be used.
    Unreadable,
}

/// Something that is wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A stable code.
    pub code: String,
    /// What it is.
    pub title: String,
    /// What can be done.
    pub hint: String,
    /// Since when.
    pub since: Timestamp,
}

/// `POST /v1/resync`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ResyncRequest {
    /// One mailbox only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<String>,
    /// How far back: `30d`, `2026-01-01`, `all`; by default as the mailbox has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Answer at once and go on without the caller.
    #[serde(default)]
    pub no_wait: bool,
}

/// One line of the answer to a resync.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum ResyncEvent {
    /// It begins.
    Started {
        /// How many folders are looked through.
        folders: usize,
    },
    /// So much of a folder was looked at.
    Progress {
        /// The mailbox.
        mailbox: String,
        /// The folder.
        folder: String,
        /// Mails looked at.
        looked_at: usize,
        /// Of so many.
        of: usize,
    },
    /// What became of a mail.
    Outcome(OutcomeLine),
    /// A folder could not be looked through.
    Failed {
        /// The mailbox.
        mailbox: String,
        /// The folder.
        folder: String,
        /// Why.
        error: String,
        /// What can be done.
        hint: String,
    },
    /// It is done.
    Finished(ResyncSummary),
}

/// What became of a mail.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutcomeLine {
    /// The mailbox.
    pub mailbox: String,
    /// The folder.
    pub folder: String,
    /// The mail's UID.
    pub uid: u32,
    /// `updated`, `duplicate`, `older`, `held`, `ignored` or `undecided`.
    pub outcome: String,
    /// A stable code, where there is a reason.
    pub reason: Option<String>,
    /// The reason in words.
    pub detail: Option<String>,
    /// Whose token it brought.
    pub username: Option<String>,
    /// Its `Message-ID`.
    pub message_id: Option<String>,
}

/// What came of a resync.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ResyncSummary {
    /// Mails looked at.
    pub looked_at: usize,
    /// New tokens.
    pub updated: usize,
    /// Known tokens.
    pub duplicate: usize,
    /// Older tokens.
    pub older: usize,
    /// Mails for a person.
    pub held: usize,
    /// Other mails.
    pub ignored: usize,
    /// Mails whose sender cannot be judged now.
    pub undecided: usize,
    /// Folders that could not be looked through.
    pub failed: usize,
}

/// One line of the answer to `POST /v1/login/MAILBOX`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum SignInEvent {
    /// A page is to be opened, anywhere, and a code entered there.
    Device {
        /// The page.
        url: String,
        /// The code.
        code: String,
        /// A page that has the code already.
        complete_url: Option<String>,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// A page is to be opened on this machine.
    Browser {
        /// The page.
        url: String,
        /// The port that the browser comes back to.
        port: u16,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// The sign-in is done, and kept.
    Done,
    /// It failed.
    Failed(ErrorBody),
}

/// One version of an account's token, for `credential history`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionLine {
    /// Its number.
    pub version: u64,
    /// `pending`, `current`, `previous` or `superseded`.
    pub label: String,
    /// A keyed hash of the token.
    pub fingerprint: String,
    /// Where the mail was: mailbox, folder, UIDVALIDITY, UID.
    pub source: String,
    /// The mail's `Message-ID`.
    pub message_id: Option<String>,
    /// Why its sender was trusted.
    pub proof: String,
    /// When Salesforce sent it.
    pub originated: Timestamp,
    /// When the server received it.
    pub received: Timestamp,
    /// When it was stored.
    pub stored: Timestamp,
    /// When its label last moved.
    pub moved: Timestamp,
    /// What Salesforce said of it, where that was asked.
    pub verdict: Option<String>,
    /// When that was.
    pub checked: Option<Timestamp>,
}

/// A sink and an account that it is told of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SinkStatus {
    /// The sink's name.
    pub name: String,
    /// The account.
    pub username: String,
    /// Whether it has the credential of now.
    pub state: SinkState,
    /// Since when.
    pub since: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again.
    pub next_attempt: Option<Timestamp>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// What a person can do about it.
    pub hint: Option<String>,
}

/// Whether a sink has the credential of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SinkState {
    /// It was told.
    Delivered,
    /// It is to be told.
    Waiting,
    /// It could not be told, and is tried again.
    Failing,
}

/// A mail that waits for a person: one entry of `GET /v1/held`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeldLine {
    /// The number by which it is accepted or dropped.
    pub id: i64,
    /// The mailbox.
    pub mailbox: String,
    /// The folder.
    pub folder: String,
    /// The folder's UIDVALIDITY.
    pub uid_validity: u32,
    /// The mail's UID.
    pub uid: u32,
    /// Why it is held: a stable code.
    pub reason: Option<String>,
    /// The reason in words.
    pub detail: Option<String>,
    /// Whom its `From` names; nothing proves that.
    pub sender: Option<String>,
    /// Whose token it brings, where that is certain.
    pub username: Option<String>,
    /// Its `Message-ID`.
    pub message_id: Option<String>,
    /// When the server received it.
    pub received: Timestamp,
    /// Since when it is held.
    pub held_since: Timestamp,
    /// Whether it can be accepted, as far as is known without fetching it.
    pub acceptable: bool,
    /// What can be done with it.
    pub hint: String,
}

/// `POST /v1/held/{id}/accept`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptRequest {
    /// The `confirm` of the answer that a person has seen; without it nothing
    /// is done but to show that answer.
    #[serde(default)]
    pub confirm: Option<String>,
}

/// What accepting a held mail will do, or has done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Acceptance {
    /// The mail's number.
    pub id: i64,
    /// The mailbox.
    pub mailbox: String,
    /// The folder.
    pub folder: String,
    /// The mail's UID.
    pub uid: u32,
    /// The account whose token it brings.
    pub username: String,
    /// Whom its `From` names.
    pub sender: Option<String>,
    /// What is to be thought of that now: `trusted`, `untrusted` or `undecided`.
    pub verdict: String,
    /// The verdict's stable code; `null` where it is `trusted`.
    pub reason: Option<String>,
    /// The verdict in words.
    pub detail: String,
    /// Its `Message-ID`.
    pub message_id: Option<String>,
    /// When it was sent, as far as that can be believed.
    pub originated: Timestamp,
    /// When the server received it.
    pub received: Timestamp,
    /// A keyed hash of its token.
    pub fingerprint: String,
    /// The newest token that was known before.
    pub known: Option<VersionLine>,
    /// `updated`, `duplicate` (known already) or `older` (a newer one is
    /// known); the last two change no credential.
    pub outcome: String,
    /// Stands for all of this: what is sent back to have it done.
    pub confirm: String,
    /// Whether it was done.
    pub done: bool,
}

/// One line of the doctor's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckLine {
    /// What was looked at.
    pub what: String,
    /// Whether it is well.
    pub ok: bool,
    /// It is well as long as somebody meant it so; the hint says what else could be done.
    #[serde(default)]
    pub warning: bool,
    /// What was found.
    pub found: String,
    /// What can be done, where it is not well or a warning.
    pub hint: Option<String>,
}

impl CheckLine {
    /// A line for what is well.
    pub fn well(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ok: true,
            warning: false,
            found: found.into(),
            hint: None,
        }
    }

    /// A line for what is well if it was meant.
    pub fn warning(
        what: impl Into<String>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            warning: true,
            hint: Some(hint.into()),
            ..Self::well(what, found)
        }
    }

    /// A line for what is not.
    pub fn ill(what: impl Into<String>, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ok: false,
            warning: false,
            found: found.into(),
            hint: Some(hint.into()),
        }
    }
}

/// An error, for a person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: String,
    /// Why, from the outside in.
    #[serde(default)]
    pub causes: Vec<String>,
    /// What can be done.
    pub hint: Option<String>,
    /// The exit code of a command that fails for it.
    pub exit_code: u8,
}
