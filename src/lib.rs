//! tokenwatch watches IMAP inboxes for Salesforce's security token mails and
//! keeps the credential that Exalate logs in with up to date.
//!
//! # The map of the house
//!
//! One mail goes one way, through every room once:
//!
//! ```text
//! IMAP server ──▶ mailbox ──bytes──▶ notice ──▶ sender ──trusted──▶ rotation ──actions──▶ vault
//!                    ▲                  └─ judge ─┘                                         │
//!                    └────────── the cursor moves last ◀───────── journal ◀─────────────────┘
//!                                                                    └──errands──▶ salesforce, sink
//! ```
//!
//! In reading order:
//!
//! * [`secret`]: the type that cannot be printed.
//! * [`http`]: HTTPS to whoever is asked something.
//! * [`notice`]: PURE. The bytes of a mail → username and token, or why not.
//! * [`sender`]: who sent it: the `From` list, DKIM, Authentication-Results.
//! * [`judge`]: where the two meet; the daemon and `extract` both call it.
//! * [`rotation`]: PURE. (account, event) → (account, actions).
//! * [`vault`]: where secrets are kept: keyring-core stores, one of them ours.
//! * [`journal`]: what became of which mail, and how far each folder was read.
//! * [`mailbox`]: IMAP, with a guard under the parser.
//! * [`oauth`]: signing in at an OAuth 2 provider, and access tokens from then on.
//! * [`salesforce`]: checks a credential by one real login.
//! * [`sink`]: who is handed a new credential: files, commands, webhooks.
//! * [`config`]: as written → as meant; the one room that reads the environment.
//! * [`daemon`]: the one place that knows all rooms. Its worker owns all change.
//! * [`api`]: what the daemon and the commands say to each other.
//! * [`cli`]: one file a command; errors and exit codes.
//! * [`telemetry`]: the log.
//!
//! The rooms do not know each other, and a test sees to it.
//!
//! # The invariants
//!
//! 1. **Nothing lost.** A cursor passes a mail only when its outcome is in the
//!    journal and what it brought is in the vault.
//! 2. **Never backwards.** An older notice never replaces a newer one.
//! 3. **No guessing.** Where two things could be meant, nothing is picked.
//! 4. **Nobody else writes our credentials.** Only a trusted sender changes anything,
//!    or a person who accepts a mail and has seen what that will do.
//! 5. **No secret leaves.** Not in a log, a status, an error, a journal row.
//! 6. **No lock-out.** A pair of token and password is tried once, or twice
//!    where the mail was young.
//! 7. **One writer.** All change goes through one worker.
//! 8. **The mailbox is left as it was.** EXAMINE and BODY.PEEK, unless `after` says so.
//! 9. **Bounded.** Whatever a server sends, our memory is bounded.
//!
//! ARCHITECTURE.md names the test that guards each.

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod http;
pub mod journal;
pub mod judge;
pub mod mailbox;
pub mod notice;
pub mod oauth;
pub mod rotation;
pub mod salesforce;
pub mod secret;
pub mod sender;
pub mod sink;
pub mod telemetry;
pub mod vault;

use std::error::Error;

/// The service under which tokenwatch keeps its own secrets in the vault.
pub const INTERNAL_SERVICE: &str = "tokenwatch";

/// An error and its causes on one line, for the log and the board.
pub fn chain(error: &dyn Error) -> String {
    std::iter::once(error.to_string())
        .chain(causes(error))
        .collect::<Vec<_>>()
        .join(": ")
}

/// The causes of an error, from the outside in.
pub fn causes(error: &dyn Error) -> impl Iterator<Item = String> {
    std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string)
}
