//! The manual resync: the folders are looked through again, each over a
//! connection of its own, while watching goes on.
//!
//! One runs at a time, and who asks for the same while it runs shares it; a few
//! others may wait for it. It does not move a cursor, and since what is known
//! is a duplicate, it can be run at any time.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

use super::InboxError;
use super::looking::{Looked, Target, Tools};
use crate::api::{OutcomeLine, ResyncEvent, ResyncRequest, ResyncSummary};
use crate::config::{self, Config, Since};
use crate::journal::Kind;
use crate::mailbox::{Access, Look, MailboxError, Scope};

/// Runs resyncs.
#[derive(Clone)]
pub(super) struct Resync {
    config: Arc<Config>,
    tools: Tools,
    running: Arc<Mutex<()>>,
    waiting: Arc<Semaphore>,
    /// The runs that are going on or wait, and who listens to each.
    runs: Arc<StdMutex<Vec<Run>>>,
}

/// A run, as others see it.
struct Run {
    request: ResyncRequest,
    listeners: Listeners,
}

type Listeners = Arc<StdMutex<Vec<mpsc::Sender<ResyncEvent>>>>;

fn lock<T>(shared: &StdMutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many resyncs may run or wait.
const QUEUE: usize = 4;

/// How long somebody who listens may take to read a line. Then it goes on
/// without them.
const PATIENCE: Duration = Duration::from_secs(10);

/// A resync that was asked for wrongly.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResyncError {
    #[error("no mailbox {0:?} is configured")]
    UnknownMailbox(String),
    #[error("{0:?} is no span, no date and not `all`")]
    Since(String),
    #[error("{QUEUE} resyncs are running or waiting already")]
    Busy,
}

impl Resync {
    pub(super) fn new(config: Arc<Config>, tools: Tools) -> Self {
        Self {
            config,
            tools,
            running: Arc::default(),
            waiting: Arc::new(Semaphore::new(QUEUE)),
            runs: Arc::default(),
        }
    }

    /// What is asked for: a run of its own, or a place at one that is going on.
    /// The events of the run come to `events`.
    pub(super) fn join(
        &self,
        request: &ResyncRequest,
        events: mpsc::Sender<ResyncEvent>,
    ) -> Result<Option<Plan>, ResyncError> {
        let request = ResyncRequest {
            no_wait: false,
            ..request.clone()
        };
        let mut runs = lock(&self.runs);
        if let Some(run) = runs.iter().find(|run| run.request == request) {
            lock(&run.listeners).push(events);
            tracing::info!(
                event = "resync.joined",
                "a resync that was asked for is going on already"
            );
            return Ok(None);
        }
        let plan = self.plan(&request, events)?;
        runs.push(Run {
            request,
            listeners: Arc::clone(&plan.listeners),
        });
        Ok(Some(plan))
    }

    /// Checks what is asked for, before anything is done.
    fn plan(
        &self,
        request: &ResyncRequest,
        events: mpsc::Sender<ResyncEvent>,
    ) -> Result<Plan, ResyncError> {
        let since = match &request.since {
            Some(text) => Some(Since::parse(text).ok_or_else(|| ResyncError::Since(text.clone()))?),
            None => None,
        };
        let mailboxes: Vec<_> = self
            .config
            .mailboxes
            .iter()
            .filter(|mailbox| {
                request
                    .mailbox
                    .as_ref()
                    .is_none_or(|name| *name == mailbox.name)
            })
            .cloned()
            .collect();
        match &request.mailbox {
            Some(name) if mailboxes.is_empty() => Err(ResyncError::UnknownMailbox(name.clone())),
            _ => Ok(Plan {
                _place: Arc::clone(&self.waiting)
                    .try_acquire_owned()
                    .map_err(|_| ResyncError::Busy)?,
                listeners: Arc::new(StdMutex::new(vec![events])),
                mailboxes,
                since,
                dry_run: request.dry_run,
            }),
        }
    }

    /// Does it. Who listens may go; the run goes on.
    pub(super) async fn run(self, plan: Plan) {
        let _one_at_a_time = self.running.lock().await;
        let folders: Vec<_> = plan
            .mailboxes
            .iter()
            .flat_map(|mailbox| mailbox.folders.iter().map(move |folder| (mailbox, folder)))
            .collect();
        tracing::info!(
            event = "resync.started",
            folders = folders.len(),
            dry_run = plan.dry_run,
            "looking through the mailboxes again"
        );
        let mut teller = Teller {
            listeners: Arc::clone(&plan.listeners),
            summary: ResyncSummary::default(),
        };
        teller
            .tell(ResyncEvent::Started {
                folders: folders.len(),
            })
            .await;
        for (mailbox, folder) in folders {
            let looking = AssertUnwindSafe(self.folder(&plan, mailbox, folder, &mut teller));
            let looked = looking.catch_unwind().await;
            if let Err(error) = looked.unwrap_or(Err(InboxError::Panicked)) {
                teller.summary.failed = teller.summary.failed.saturating_add(1);
                let (error, hint) = (crate::chain(&error), error.hint(&mailbox.name));
                tracing::warn!(
                    event = "resync.failed",
                    mailbox = mailbox.name,
                    folder,
                    error,
                    hint,
                    "a folder could not be looked through"
                );
                teller
                    .tell(ResyncEvent::Failed {
                        mailbox: mailbox.name.clone(),
                        folder: folder.clone(),
                        error,
                        hint,
                    })
                    .await;
            }
        }
        let summary = teller.summary;
        tracing::info!(
            event = "resync.finished",
            looked_at = summary.looked_at,
            updated = summary.updated,
            duplicate = summary.duplicate,
            older = summary.older,
            held = summary.held,
            ignored = summary.ignored,
            undecided = summary.undecided,
            failed = summary.failed,
            "the resync is done"
        );
        // Who comes now wants another one.
        lock(&self.runs).retain(|run| !Arc::ptr_eq(&run.listeners, &plan.listeners));
        teller.tell(ResyncEvent::Finished(summary)).await;
    }

    /// Looks through a folder; where its SEARCH fails, once more without.
    async fn folder(
        &self,
        plan: &Plan,
        mailbox: &config::Mailbox,
        folder: &str,
        teller: &mut Teller,
    ) -> Result<(), InboxError> {
        match self.look(plan, mailbox, folder, true, teller).await {
            Err(InboxError::Mailbox(MailboxError::Search(_))) => {
                self.look(plan, mailbox, folder, false, teller).await
            }
            looked => looked,
        }
    }

    async fn look(
        &self,
        plan: &Plan,
        mailbox: &config::Mailbox,
        folder: &str,
        narrow: bool,
        teller: &mut Teller,
    ) -> Result<(), InboxError> {
        let mut session = self.tools.enter(mailbox).await?;
        let opened = session.open(folder, Access::Read).await?;
        let since = plan.since.as_ref().unwrap_or(&mailbox.since);
        let scope = Scope {
            first: 1,
            since: since.first_day(Timestamp::now()),
            narrow,
        };
        let wanted = self.tools.wanted(mailbox);
        let target = Target {
            mailbox,
            folder,
            uid_validity: opened.uid_validity,
            moves_cursor: false,
            dry_run: plan.dry_run,
        };
        let mut look = Look::through(opened, scope).tolerant();
        while let Some(looked) = self
            .tools
            .step(&mut look, &mut session, &wanted, &target)
            .await?
        {
            if let Looked::Mail { uid, outcome } = looked {
                teller.count(outcome.kind);
                teller
                    .tell(ResyncEvent::Outcome(OutcomeLine {
                        mailbox: mailbox.name.clone(),
                        folder: folder.to_owned(),
                        uid,
                        outcome: outcome.kind.word().to_owned(),
                        reason: outcome.reason,
                        detail: outcome.detail,
                        username: outcome.username,
                        message_id: outcome.message_id,
                    }))
                    .await;
            }
            let (looked_at, of) = look.progress();
            teller.mention(&ResyncEvent::Progress {
                mailbox: mailbox.name.clone(),
                folder: folder.to_owned(),
                looked_at,
                of,
            });
        }
        teller.summary.looked_at = teller.summary.looked_at.saturating_add(look.progress().0);
        session.log_out().await;
        Ok(())
    }
}

/// What is to be looked through.
pub(super) struct Plan {
    /// In the queue, until it is done.
    _place: OwnedSemaphorePermit,
    listeners: Listeners,
    mailboxes: Vec<config::Mailbox>,
    since: Option<Since>,
    dry_run: bool,
}

struct Teller {
    listeners: Listeners,
    summary: ResyncSummary,
}

impl Teller {
    /// Says what must not be missed. Who asked may have gone, or sleep.
    async fn tell(&self, event: ResyncEvent) {
        let listening = lock(&self.listeners).clone();
        for listener in listening {
            let told = listener.send_timeout(event.clone(), PATIENCE).await;
            if told.is_err() {
                lock(&self.listeners).retain(|other| !other.same_channel(&listener));
            }
        }
    }

    /// Says what may be missed.
    fn mention(&self, event: &ResyncEvent) {
        for listener in lock(&self.listeners).iter() {
            listener.try_send(event.clone()).unwrap_or_default();
        }
    }

    fn count(&mut self, kind: Kind) {
        let summary = &mut self.summary;
        let count = match kind {
            Kind::Updated => &mut summary.updated,
            Kind::Duplicate => &mut summary.duplicate,
            Kind::Older => &mut summary.older,
            Kind::Held => &mut summary.held,
            Kind::Ignored => &mut summary.ignored,
            Kind::Undecided => &mut summary.undecided,
        };
        *count = count.saturating_add(1);
    }
}
