//! From a mailbox to the worker: each mail that a look finds is judged, and its
//! outcome made durable before the folder's cursor passes it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::doors::{Doors, Entered};
use super::tokens::{self, Tokens};
use super::worker::{self, Content, Handle, Outcome, Report, SecretName, Worker};
use super::{DaemonError, InboxError, StateError, policy};
use crate::api::MailboxState;
use crate::config::{self, Auth, Config, SecretSource};
use crate::journal::{Cursor, Kind, Place};
use crate::judge::{Finding, Policy, judge};
use crate::mailbox::{Credential, Found, Look, MailboxError, Session, Step, Wanted};
use crate::notice;
use crate::oauth;
use crate::secret::Secret;
use crate::sender::Keys;

/// So many mails are taken in together at most.
const SHEAF: usize = 64;

/// What every look needs.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) worker: Handle,
    policy: Arc<Policy>,
    keys: Keys,
    pub(super) doors: Doors,
    pub(super) tokens: Arc<Tokens>,
    /// All tasks, so that a stop waits for what must not be cut off.
    pub(super) tasks: TaskTracker,
}

/// One folder, open.
pub(super) struct Target<'a> {
    pub(super) mailbox: &'a config::Mailbox,
    pub(super) folder: &'a str,
    pub(super) uid_validity: u32,
    /// The outcomes move the folder's cursor.
    pub(super) moves_cursor: bool,
    pub(super) dry_run: bool,
}

impl Target<'_> {
    fn report(&self, uid: u32, received: Timestamp, content: Content) -> Report {
        Report {
            place: self.place(uid),
            received,
            content,
            cursor: self
                .moves_cursor
                .then_some(Cursor::at(self.uid_validity, uid.saturating_add(1))),
            dry_run: self.dry_run,
        }
    }

    fn place(&self, uid: u32) -> Place {
        Place {
            mailbox: self.mailbox.name.clone(),
            folder: self.folder.to_owned(),
            uid_validity: self.uid_validity,
            uid,
        }
    }

    /// A mail that is not at hand. The cursor stays: mails with smaller UIDs
    /// may be still to come.
    fn missing(&self, uid: u32, content: Content) -> Report {
        Report {
            cursor: None,
            ..self.report(uid, Timestamp::now(), content)
        }
    }
}

impl Tools {
    pub(super) fn new(config: &Config, worker: Handle) -> Result<Self, DaemonError> {
        Ok(Self {
            worker,
            policy: Arc::new(policy(config)?),
            keys: Keys::new(&config.trust.dns_servers)?,
            doors: Doors::new(config),
            tokens: Arc::new(Tokens::new(config)),
            tasks: TaskTracker::new(),
        })
    }

    /// For a command that finds no daemon: what it needs, and the end of the
    /// worker, which comes when all of it is dropped.
    pub(super) fn alone(
        config: &Config,
        worker: Worker,
    ) -> Result<(Self, oneshot::Receiver<()>), DaemonError> {
        let (handle, ended) = worker::start(worker).map_err(DaemonError::Thread)?;
        Ok((Self::new(config, handle)?, ended))
    }

    /// Which mails of a mailbox are looked at.
    pub(super) fn wanted(&self, mailbox: &config::Mailbox) -> Wanted {
        let policy = Arc::clone(&self.policy);
        Wanted {
            from: policy.trust.senders.clone(),
            subjects: policy.wordings.subjects().map(str::to_owned).collect(),
            fields: Box::new(move |fields| {
                notice::worth_reading(fields, &policy.trust.senders, &policy.wordings)
            }),
            max_size: mailbox.max_mail_size,
        }
    }

    /// Connects and logs in. Nobody is called before it is known with what to
    /// log in, and that now is the time.
    pub(super) async fn enter(
        &self,
        mailbox: &config::Mailbox,
        tell: impl Fn(MailboxState),
    ) -> Result<Entered, InboxError> {
        self.doors.gate(&mailbox.name).is_open()?;
        tell(MailboxState::Connecting);
        let credential = self.credential(mailbox).await?;
        let (mut session, _turn) = self.doors.connect(mailbox).await?;
        tell(MailboxState::Authenticating);
        let entered = self.doors.log_in(&mut session, mailbox, &credential).await;
        if let Err(
            InboxError::Mailbox(MailboxError::TokenRefused { .. })
            | InboxError::OneTooMany(MailboxError::TokenRefused { .. }),
        ) = &entered
        {
            // The next login is made with another access token.
            self.tokens.forget(&mailbox.name).await;
        }
        Ok(Entered {
            session,
            _inside: entered?,
        })
    }

    /// A session that there is, or a new one.
    pub(super) async fn inside<'a>(
        &self,
        entered: &'a mut Option<Entered>,
        mailbox: &config::Mailbox,
    ) -> Result<&'a mut Session, InboxError> {
        let entered = match entered.take() {
            Some(there) => entered.insert(there),
            None => entered.insert(self.enter(mailbox, |_| {}).await?),
        };
        Ok(&mut entered.session)
    }

    /// What a mailbox logs in with.
    pub(super) async fn credential(
        &self,
        mailbox: &config::Mailbox,
    ) -> Result<Credential, InboxError> {
        match &mailbox.auth {
            Auth::Password(source) => {
                let name = SecretName::Mailbox(mailbox.name.clone());
                let password = self.secret(source, name).await?;
                password
                    .map(Credential::Password)
                    .ok_or_else(|| InboxError::NoPassword(mailbox.name.clone()))
            }
            Auth::Oauth2(oauth2) => {
                let token = self.tokens.access(mailbox, oauth2, self).await;
                if let Err(InboxError::Oauth(error)) = &token
                    && error.class() != oauth::Class::Transient
                {
                    // The provider is not to be hammered either.
                    self.doors.gate(&mailbox.name).refuse();
                }
                token.map(Credential::Bearer)
            }
        }
    }

    /// Whether there is what a mailbox logs in with, as far as that can be said without asking
    /// anybody else.
    pub(super) async fn can_log_in(&self, mailbox: &config::Mailbox) -> Result<(), InboxError> {
        match &mailbox.auth {
            Auth::Password(_) => self.credential(mailbox).await.map(drop),
            Auth::Oauth2(oauth2) => tokens::is_signed_in(mailbox, oauth2, &self.worker).await,
        }
    }

    async fn secret(
        &self,
        source: &SecretSource,
        name: SecretName,
    ) -> Result<Option<Secret>, InboxError> {
        Ok(self.worker.secret(source, name).await?)
    }

    /// The password of a mailbox, where it may change without our being told.
    pub(super) async fn secret_in_a_file(&self, mailbox: &config::Mailbox) -> Option<Secret> {
        match &mailbox.auth {
            Auth::Password(source @ (SecretSource::File(_) | SecretSource::Credential(_))) => {
                let name = SecretName::Mailbox(mailbox.name.clone());
                self.secret(source, name).await.ok().flatten()
            }
            Auth::Password(SecretSource::Vault | SecretSource::Command(_)) | Auth::Oauth2(_) => {
                None
            }
        }
    }

    /// One step of a look, and the outcomes that have become durable meanwhile;
    /// `None` at its end, when all of them have been handed out.
    pub(super) async fn step(
        &self,
        look: &mut Look,
        session: &mut Session,
        wanted: &Wanted,
        target: &Target<'_>,
        sheaf: &mut Sheaf,
    ) -> Result<Option<Vec<Looked>>, InboxError> {
        if let Some(error) = sheaf.failed.take() {
            return Err(error.into());
        }
        let step = match look.next(session, wanted).await {
            Ok(step) => step,
            Err(error) => {
                // What was found before the server failed is not looked for again.
                sheaf.failed = Some(error);
                return sheaf.hand_in(&self.worker).await.map(Some);
            }
        };
        let report = match step {
            None => {
                let rest = sheaf.hand_in(&self.worker).await?;
                if std::mem::take(&mut sheaf.brought) {
                    let (name, folder) = (target.mailbox.name.clone(), target.folder.to_owned());
                    let through = self.worker.run(move |worker| {
                        worker.looked_through(&name, &folder);
                        Ok(())
                    });
                    through.await?;
                }
                return Ok((!rest.is_empty()).then_some(rest));
            }
            Some(Step::Seen { next_uid }) => {
                let mut looked = sheaf.hand_in(&self.worker).await?;
                if target.moves_cursor {
                    let (name, folder) = (target.mailbox.name.clone(), target.folder.to_owned());
                    let cursor = Cursor::at(target.uid_validity, next_uid);
                    self.worker
                        .run(move |worker| worker.move_cursor(&name, &folder, cursor))
                        .await?;
                }
                looked.push(Looked::Seen { next_uid });
                return Ok(Some(looked));
            }
            Some(Step::Mail(found)) => self.judge(found, target).await,
            Some(Step::Unfetchable { uid }) => target.missing(uid, Content::Unfetchable),
            Some(Step::Gone { uid }) => target.missing(uid, Content::Gone),
        };
        sheaf.add(report, self).await.map(Some)
    }

    /// One mail, fetched and judged again. Nobody is told of it yet.
    pub(super) async fn look_at(
        &self,
        uid: u32,
        session: &mut Session,
        target: &Target<'_>,
    ) -> Result<Report, InboxError> {
        let wanted = self.wanted(target.mailbox);
        let mut look = Look::again_at([uid]);
        while let Some(step) = look.next(session, &wanted).await? {
            match step {
                Step::Mail(found) => return Ok(self.judge(found, target).await),
                Step::Unfetchable { uid } => return Ok(target.missing(uid, Content::Unfetchable)),
                Step::Gone { uid } => return Ok(target.missing(uid, Content::Gone)),
                Step::Seen { .. } => {}
            }
        }
        Ok(target.missing(uid, Content::Gone))
    }

    async fn judge(&self, found: Found, target: &Target<'_>) -> Report {
        let Found {
            head,
            received,
            raw,
        } = found;
        let content = match &raw {
            // A panic over one mail must not keep the others from being seen.
            Some(raw) => AssertUnwindSafe(judge(raw, &self.policy, &self.keys))
                .catch_unwind()
                .await
                .map_or(Content::Unreadable, |judgement| {
                    Content::Judged(Box::new(judgement))
                }),
            None => Content::TooLarge {
                announced: head.fields.is_some_and(|fields| {
                    notice::worth_reading(&fields, &[], &self.policy.wordings)
                }),
            },
        };
        if let Content::Judged(judgement) = &content
            && let Finding::Notice(notice, _) = &judgement.finding
            && let Some(length) = notice.unusual_length()
        {
            tracing::info!(
                event = "notice.length",
                uid = head.uid,
                length,
                "the token is shorter or longer than the usual 24 or 25 characters"
            );
        }
        target.report(head.uid, received, content)
    }
}

/// Mails on their way to the worker. One that comes alone goes at once; those
/// that are judged while the worker is busy with it go together, for together
/// they are durable sooner.
#[derive(Default)]
pub(super) struct Sheaf {
    judged: Vec<Report>,
    with_worker: Option<JoinHandle<Result<Vec<Looked>, StateError>>>,
    /// Some of them have brought tokens.
    brought: bool,
    /// Why there are no more.
    failed: Option<MailboxError>,
}

impl Sheaf {
    /// Adds a mail, and says what has become of those before it.
    async fn add(&mut self, report: Report, tools: &Tools) -> Result<Vec<Looked>, InboxError> {
        self.judged.push(report);
        let looked = match &self.with_worker {
            Some(task) if !task.is_finished() && self.judged.len() < SHEAF => {
                return Ok(Vec::new());
            }
            _ => self.back().await?,
        };
        let (worker, judged) = (tools.worker.clone(), std::mem::take(&mut self.judged));
        // It is not cut off where the look is.
        let task = tools
            .tasks
            .spawn(async move { take_in(&worker, judged).await });
        self.with_worker = Some(task);
        Ok(looked)
    }

    /// Has the worker take in all that there is, and waits for it.
    async fn hand_in(&mut self, worker: &Handle) -> Result<Vec<Looked>, InboxError> {
        let mut looked = self.back().await?;
        let judged = std::mem::take(&mut self.judged);
        if !judged.is_empty() {
            let rest = take_in(worker, judged).await?;
            looked.extend(self.noticed(rest));
        }
        Ok(looked)
    }

    /// Waits for those that are with the worker.
    async fn back(&mut self) -> Result<Vec<Looked>, InboxError> {
        match self.with_worker.take() {
            Some(task) => {
                let looked = task.await.unwrap_or(Err(StateError::Stopped))?;
                Ok(self.noticed(looked))
            }
            None => Ok(Vec::new()),
        }
    }

    fn noticed(&mut self, looked: Vec<Looked>) -> Vec<Looked> {
        self.brought |= looked.iter().any(|looked| {
            matches!(looked, Looked::Mail { outcome, .. } if outcome.kind == Kind::Updated)
        });
        looked
    }
}

async fn take_in(worker: &Handle, judged: Vec<Report>) -> Result<Vec<Looked>, StateError> {
    let uids: Vec<u32> = judged.iter().map(|report| report.place.uid).collect();
    let outcomes = worker
        .run(move |worker| worker.receive_some(judged))
        .await?;
    let looked = |(uid, outcome)| Looked::Mail { uid, outcome };
    Ok(uids.into_iter().zip(outcomes).map(looked).collect())
}

/// What a step brought.
pub(super) enum Looked {
    /// A mail, and what became of it.
    Mail { uid: u32, outcome: Outcome },
    /// Everything below this UID was looked at.
    Seen { next_uid: u32 },
}
