//! The manual resync: the folders are looked through again, over one more
//! connection a mailbox, while watching goes on.
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
use super::doors::Entered;
use super::lessons::{Lessons, MAX_LESSONS};
use super::looking::{Looked, Sheaf, Target, Tools};
use crate::api::{OutcomeLine, ResyncEvent, ResyncRequest, ResyncSummary};
use crate::config::{self, Config, Since};
use crate::journal::Kind;
use crate::mailbox::Access;

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

/// A run is to be found for as long as this is there.
struct Listed<'a>(&'a StdMutex<Vec<Run>>, &'a Listeners);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(self.0).retain(|run| !Arc::ptr_eq(&run.listeners, self.1));
    }
}

fn lock<T>(shared: &StdMutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many resyncs may run or wait.
const QUEUE: usize = 4;

/// How many may listen to one.
const MAX_LISTENERS: usize = 16;

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
            let mut listeners = lock(&run.listeners);
            if listeners.len() >= MAX_LISTENERS {
                return Err(ResyncError::Busy);
            }
            listeners.push(events);
            drop(listeners);
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
        let listed = Listed(&self.runs, &plan.listeners);
        let _one_at_a_time = self.running.lock().await;
        let folders = plan.mailboxes.iter().map(|mailbox| mailbox.folders.len());
        let folders = folders.sum();
        tracing::info!(
            event = "resync.started",
            folders,
            dry_run = plan.dry_run,
            "looking through the mailboxes again"
        );
        let mut teller = Teller {
            listeners: Arc::clone(&plan.listeners),
            summary: ResyncSummary::default(),
        };
        teller.tell(ResyncEvent::Started { folders }).await;
        for mailbox in &plan.mailboxes {
            // One connection a mailbox, whatever it has of folders.
            let mut entered = None;
            let mut folders = mailbox.folders.iter();
            while let Some(folder) = folders.next() {
                let looking = self.folder(&plan, mailbox, folder, &mut entered, &mut teller);
                let looked = AssertUnwindSafe(looking).catch_unwind().await;
                if let Err(error) = looked.unwrap_or(Err(InboxError::Panicked)) {
                    teller.failed(mailbox, folder, &error).await;
                    if entered.take().is_none() {
                        // Who does not get in for one folder does not for the others.
                        for folder in folders {
                            teller.failed(mailbox, folder, &error).await;
                        }
                        break;
                    }
                }
            }
            if let Some(entered) = entered {
                entered.session.log_out().await;
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
        drop(listed);
        teller.tell(ResyncEvent::Finished(summary)).await;
    }

    /// Looks through a folder, and begins anew where its server fails at some
    /// of it.
    async fn folder(
        &self,
        plan: &Plan,
        mailbox: &config::Mailbox,
        folder: &str,
        entered: &mut Option<Entered>,
        teller: &mut Teller,
    ) -> Result<(), InboxError> {
        let mut progress = Progress {
            lessons: Lessons::new(Duration::ZERO),
            first: 1,
        };
        for _ in 0..MAX_LESSONS {
            match self
                .look(plan, mailbox, folder, &mut progress, entered, teller)
                .await
            {
                Err(error) if progress.lessons.learn(&error) => *entered = None,
                looked => return looked,
            }
        }
        self.look(plan, mailbox, folder, &mut progress, entered, teller)
            .await
    }

    async fn look(
        &self,
        plan: &Plan,
        mailbox: &config::Mailbox,
        folder: &str,
        progress: &mut Progress,
        entered: &mut Option<Entered>,
        teller: &mut Teller,
    ) -> Result<(), InboxError> {
        let session = self.tools.inside(entered, mailbox).await?;
        let opened = session.open(folder, Access::Read).await?;
        let since = plan.since.as_ref().unwrap_or(&mailbox.since);
        let wanted = self.tools.wanted(mailbox);
        let target = Target {
            mailbox,
            folder,
            uid_validity: opened.uid_validity,
            moves_cursor: false,
            dry_run: plan.dry_run,
        };
        let since = since.first_day(Timestamp::now());
        let mut look = progress
            .lessons
            .look_through(opened, progress.first, since)
            .tolerant();
        let mut sheaf = Sheaf::default();
        while let Some(looked) = self
            .tools
            .step(&mut look, session, &wanted, &target, &mut sheaf)
            .await?
        {
            for looked in looked {
                match looked {
                    Looked::Seen { next_uid } => progress.first = next_uid,
                    Looked::Mail { uid, outcome } => {
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
                }
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
        Ok(())
    }
}

/// How far one folder is.
struct Progress {
    lessons: Lessons,
    /// Up to there everything has been told.
    first: u32,
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

    async fn failed(&mut self, mailbox: &config::Mailbox, folder: &str, error: &InboxError) {
        self.summary.failed = self.summary.failed.saturating_add(1);
        let (error, hint) = (crate::chain(error), error.hint(&mailbox.name));
        tracing::warn!(
            event = "resync.failed",
            mailbox = mailbox.name,
            folder,
            error,
            hint,
            "a folder could not be looked through"
        );
        self.tell(ResyncEvent::Failed {
            mailbox: mailbox.name.clone(),
            folder: folder.to_owned(),
            error,
            hint,
        })
        .await;
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
