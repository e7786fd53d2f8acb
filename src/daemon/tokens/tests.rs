//! Tokens and their renewal, with a provider of a few lines.
#![expect(clippy::disallowed_methods, reason = "a test writes its configuration")]

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::header;
use axum::routing::post;
use jiff::SignedDuration;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::super::board::Board;
use super::super::worker::{self, Worker};
use super::*;
use crate::config::Auth;

/// More than anything takes here: who waits for longer waits for ever.
const FOR_EVER: Duration = Duration::from_secs(30);

/// A mailbox whose provider rotates the refresh token. Each answer costs a permit.
struct Rig {
    config: Arc<Config>,
    tools: Tools,
    asked: Arc<AtomicUsize>,
    permits: Arc<Semaphore>,
    served: JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, permits) = (Arc::<AtomicUsize>::default(), Arc::new(Semaphore::new(0)));
        let answered = {
            let (asked, permits) = (Arc::clone(&asked), Arc::clone(&permits));
            async move || {
                asked.fetch_add(1, Ordering::SeqCst);
                permits.acquire().await.unwrap().forget();
                let answer = r#"{"access_token":"new","token_type":"bearer","expires_in":3600,
                    "refresh_token":"rotated"}"#;
                ([(header::CONTENT_TYPE, "application/json")], answer)
            }
        };
        let router = Router::new().route("/token", post(answered));
        let mut served = JoinSet::new();
        served.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenwatch.toml");
        let text = format!(
            "state-dir = \"{}\"\n[[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\n\
             user = \"ops@example.com\"\nauth = \"oauth2\"\n[mailbox.oauth2]\n\
             provider = \"other\"\ntoken-url = \"http://{address}/token\"\n\
             client-id = \"tokenwatch\"\n",
            folder.path().join("state").display()
        );
        std::fs::write(&file, text).unwrap();
        let config = Arc::new(Config::load(Some(&file)).unwrap());
        let board = Arc::new(Board::new(&config));
        let mut worker = Worker::open(Arc::clone(&config), board).unwrap();
        worker.set_secret(&oauth(), &secret("first")).unwrap();
        let (worker, _) = worker::start(worker).unwrap();
        Self {
            tools: Tools::new(&config, worker).unwrap(),
            config,
            asked,
            permits,
            served,
            _folder: folder,
        }
    }

    fn slot(&self) -> &Mutex<Slot> {
        &self.tools.tokens.slots["ops"]
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A line that wants to log in.
    fn line(&self, lines: &mut JoinSet<Secret>) {
        let mailbox = self.config.mailbox("ops").unwrap().clone();
        let Auth::Oauth2(oauth2) = mailbox.auth.clone() else {
            panic!("it logs in by OAuth 2");
        };
        let tools = self.tools.clone();
        lines.spawn(async move {
            let token = tools.tokens.access(&mailbox, &oauth2, &tools).await;
            token.unwrap()
        });
    }

    /// All that a stop would wait for has ended.
    async fn drained(&self) {
        self.tools.tasks.close();
        let ended = tokio::time::timeout(FOR_EVER, self.tools.tasks.wait()).await;
        ended.expect("the tasks end");
    }

    async fn kept(&self) -> String {
        let read = |worker: &mut Worker| worker.secret(&oauth());
        let kept = self.tools.worker.run(read).await.unwrap().unwrap();
        kept.expose().to_owned()
    }
}

fn oauth() -> SecretName {
    SecretName::Oauth("ops".into())
}

fn secret(text: &str) -> Secret {
    Secret::new(text.into())
}

#[tokio::test]
async fn a_token_from_before_a_sleep_is_not_used() {
    let rig = Rig::new().await;
    rig.permits.add_permits(1);
    let now = Moment::now();
    let good = now.checked_add(Duration::from_secs(3600)).unwrap();
    // The timers have stood still, and the wall clock has not.
    let slept_through = Moment {
        wall: now.wall - SignedDuration::from_secs(1),
        ..good
    };
    let run_out = Moment {
        timer: now.timer,
        ..good
    };
    assert!(good.is_after(now) && !run_out.is_after(now));
    for (until, token, asked) in [(good, "old", 0), (slept_through, "new", 1)] {
        rig.slot().lock().await.access = Some((secret("old"), until));
        let mut lines = JoinSet::new();
        rig.line(&mut lines);
        let obtained = lines.join_next().await.unwrap().unwrap();
        assert_eq!((obtained.expose(), rig.asked()), (token, asked));
    }
}

#[tokio::test]
async fn a_refresh_token_that_is_not_stored_outlives_a_change_of_other_secrets() {
    let rig = Rig::new().await;
    let client = SecretName::Client("ops".into());
    let password = SecretName::Mailbox("ops".into());
    let good = Moment::now().checked_add(FOR_EVER).unwrap();
    for (name, succeeds, access, unsaved) in [
        (&client, false, true, true),
        (&client, true, false, true),
        (&password, true, false, true),
        (&oauth(), false, true, true),
        (&oauth(), true, false, false),
    ] {
        *rig.slot().lock().await = Slot {
            access: Some((secret("access"), good)),
            unsaved: Some(secret("only one")),
        };
        let change = async || if succeeds { Ok(()) } else { Err(()) };
        let changed = rig.tools.tokens.change(name, change()).await;
        assert_eq!(changed.is_ok(), succeeds);
        let slot = rig.slot().lock().await;
        let left = (slot.access.is_some(), slot.unsaved.is_some());
        assert_eq!(left, (access, unsaved), "{name}");
    }
}

#[tokio::test]
async fn a_renewal_that_was_asked_for_is_stored_though_the_line_is_gone() {
    let mut rig = Rig::new().await;
    let mut lines = JoinSet::new();
    rig.line(&mut lines);
    while rig.asked() == 0 {
        tokio::task::yield_now().await;
    }
    lines.shutdown().await;
    rig.permits.add_permits(1);
    rig.drained().await;
    assert_eq!(rig.kept().await, "rotated");
    rig.served.shutdown().await;
}

#[tokio::test]
async fn nobody_waits_for_a_renewal_that_was_not_asked_for() {
    let rig = Rig::new().await;
    let (release, held) = oneshot::channel::<()>();
    let (begun, busy) = oneshot::channel();
    // As where a command takes long to print a secret.
    let worker = rig.tools.worker.clone();
    let mut working = JoinSet::new();
    working.spawn(async move {
        worker
            .run(move |_| {
                begun.send(()).unwrap();
                held.blocking_recv().unwrap();
                Ok(())
            })
            .await
    });
    busy.await.unwrap();
    let mut lines = JoinSet::new();
    rig.line(&mut lines);
    while rig.tools.tasks.is_empty() {
        tokio::task::yield_now().await;
    }
    lines.shutdown().await;
    rig.drained().await;
    release.send(()).unwrap();
    working.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!((rig.asked(), rig.kept().await.as_str()), (0, "first"));
}
