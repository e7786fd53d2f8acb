//! A person accepts a mail that was held.
//!
//! In two steps, each of which fetches the mail again and judges it anew: the
//! first shows what will be done, the second does it if it is still the same.
//! Between them nothing is kept but what the person holds in hand, so that a
//! crash, a restart, or a daemon that starts or ends meanwhile loses nothing.

use super::looking::{Target, Tools};
use super::state::StateError;
use super::worker::{Report, Worker};
use super::{DaemonError, InboxError};
use crate::api::Acceptance;
use crate::config::{Config, Mailbox};
use crate::journal::Place;
use crate::mailbox::Access;

/// A held mail cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// No such mail waits.
    #[error("no mail {0} is held")]
    NotHeld(i64),
    /// It is on the server no more.
    #[error("mail {0} is on the server no more")]
    Gone(i64),
    /// Its number means nothing any more (RFC 3501, section 2.3.1.1).
    #[error("the server has numbered the mails of {mailbox}/{folder} anew")]
    Renumbered {
        /// The mailbox.
        mailbox: String,
        /// The folder.
        folder: String,
    },
    /// The server does not hand it out.
    #[error("the server does not hand mail {0} out")]
    Unfetchable(i64),
    /// There is no one notice in it that could be meant (invariant 3).
    #[error("mail {id} cannot be accepted: {why}")]
    NoNotice {
        /// The mail.
        id: i64,
        /// What is wrong with it, in words.
        why: String,
    },
    /// It is for somebody whose credential is not kept.
    #[error("no [[account]] is configured for {0}")]
    UnknownAccount(String),
    /// What is kept for the account cannot take it.
    #[error("the token of mail {id} was not taken: {why}")]
    NotTaken {
        /// The mail.
        id: i64,
        /// Why, in words.
        why: String,
    },
    /// It is not what a person has said yes to.
    #[error("mail {0}, or what is known of its account, is not what was shown")]
    Changed(i64),
    /// It cannot be fetched now.
    #[error("the mail cannot be fetched from mailbox {mailbox}")]
    Inbox {
        /// The mailbox.
        mailbox: String,
        /// Why.
        source: Box<InboxError>,
    },
    /// Vault or journal cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// What is needed to fetch a mail cannot be set up.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

impl HeldError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotHeld(_) => "`tokenwatch held` lists the mails that are held".to_owned(),
            Self::Gone(id) => {
                format!("reset the token in Salesforce if it is needed; `tokenwatch held drop {id}`")
            }
            Self::Renumbered { .. } => {
                "the folder is looked through again, and the mail gets another number: see `tokenwatch held`"
                    .to_owned()
            }
            Self::Unfetchable(_) => "look at the mail with a mail program".to_owned(),
            Self::NoNotice { id, .. } => format!(
                "look at the mail yourself and reset the token in Salesforce: that brings a new mail; then `tokenwatch held drop {id}`"
            ),
            Self::UnknownAccount(username) => format!(
                "add an [[account]] with username = \"{username}\", restart the daemon, and accept it then"
            ),
            Self::NotTaken { .. } => "`tokenwatch status` says what is wrong with the account".to_owned(),
            Self::Changed(id) => {
                format!("nothing was changed; see what it is now with `tokenwatch held accept {id}`")
            }
            Self::Inbox { mailbox, source } => source.hint(mailbox),
            Self::State(error) => error.hint(),
            Self::Daemon(_) => return None,
        })
    }

    /// The exit code of a command that fails for it.
    pub fn exit_code(&self) -> u8 {
        const FAILED: u8 = 1;
        const BAD_INPUT: u8 = 65;
        const CONFIGURATION: u8 = 78;
        match self {
            Self::NotHeld(_)
            | Self::Gone(_)
            | Self::Renumbered { .. }
            | Self::Unfetchable(_)
            | Self::NotTaken { .. }
            | Self::Changed(_)
            | Self::State(_)
            | Self::Daemon(_) => FAILED,
            Self::NoNotice { .. } => BAD_INPUT,
            Self::UnknownAccount(_) => CONFIGURATION,
            Self::Inbox { source, .. } => source.exit_code(),
        }
    }
}

/// Shows what accepting a held mail will do; with what that answer had for
/// `confirm`, does it.
pub(super) async fn accept(
    config: &Config,
    tools: &Tools,
    id: i64,
    confirm: Option<String>,
) -> Result<Acceptance, HeldError> {
    let place = tools.worker.run(move |worker| worker.held_place(id));
    let place = place.await?.ok_or(HeldError::NotHeld(id))?;
    let mailbox = config
        .mailbox(&place.mailbox)
        .ok_or(HeldError::NotHeld(id))?;
    let report = match fetch(mailbox, &place, tools).await {
        Ok(Some(report)) => report,
        Ok(None) => {
            return Err(HeldError::Renumbered {
                mailbox: place.mailbox,
                folder: place.folder,
            });
        }
        Err(source) => {
            return Err(HeldError::Inbox {
                mailbox: place.mailbox,
                source: Box::new(source),
            });
        }
    };
    let accepted = tools.worker.run(move |worker| {
        match worker.accept_held(id, &report, confirm.as_deref()) {
            // What fails in the storage is on the board, and what is wrong with
            // the mail is not.
            Err(HeldError::State(error)) => Err(error),
            accepted => Ok(accepted),
        }
    });
    accepted.await?
}

/// The same where no daemon runs. The vault is let go when it is done.
pub async fn accept_alone(
    config: &Config,
    worker: Worker,
    id: i64,
    confirm: Option<String>,
) -> Result<Acceptance, HeldError> {
    let (tools, ended) = Tools::alone(config, worker)?;
    let accepted = accept(config, &tools, id, confirm).await;
    drop(tools);
    // The sender is the worker's own thread: it answers, or is gone.
    ended.await.unwrap_or_default();
    accepted
}

/// Fetches a mail and judges it; `None` where its number means another by now.
/// Whatever `after` says, the mailbox is not changed here (invariant 8).
async fn fetch(
    mailbox: &Mailbox,
    place: &Place,
    tools: &Tools,
) -> Result<Option<Report>, InboxError> {
    let mut entered = tools.enter(mailbox, |_| {}).await?;
    let opened = entered.session.open(&place.folder, Access::Read).await?;
    let report = if opened.uid_validity == place.uid_validity {
        let target = Target {
            mailbox,
            folder: &place.folder,
            uid_validity: place.uid_validity,
            moves_cursor: false,
            dry_run: false,
        };
        let looking = tools.look_at(place.uid, &mut entered.session, &target);
        Some(looking.await?)
    } else {
        None
    };
    entered.session.log_out().await;
    Ok(report)
}
