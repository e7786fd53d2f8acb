//! Who calls over the control socket: how many are let in at once, and how long
//! who says nothing is waited for.
//!
//! A whole group gets as far as the socket. None of them may take up the files
//! that the mailboxes need, hold up a stop, or keep root and the daemon's own
//! user out: each user has a number of connections of his own, and strangers
//! together no more than two users have. Where one is too many, the oldest that
//! waits for no answer makes room; nobody is cut off in the middle of one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// How many connections a user may have.
const A_USER: usize = 16;

/// How many all may have together who are neither root nor the daemon's user.
const STRANGERS: usize = 32;

/// How long the head of a request may take, and a connection be without one.
const HEAD: Duration = Duration::from_secs(10);

/// How long answers may take to end when the daemon stops.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long nobody is let in after the system could not let somebody in.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

/// Who is at the other end, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    uid: Option<u32>,
}

impl Peer {
    fn of(stream: &UnixStream) -> Self {
        Self {
            uid: stream.peer_cred().ok().map(|peer| peer.uid()),
        }
    }

    /// Root, or the daemon's own user.
    pub(super) fn is_owner(self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.uid.is_some_and(|uid| uid == 0 || uid == own)
    }
}

/// A connection that was let in.
struct Caller {
    peer: Peer,
    /// One here, one at the connection, and one for an answer that is made or sent.
    answers: Arc<()>,
    task: AbortHandle,
}

impl Caller {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.answers) <= 2
    }
}

/// What becomes of one who comes.
#[derive(Debug, PartialEq, Eq)]
enum Admission {
    /// There is room.
    Enter,
    /// This one goes, who waits for no answer.
    Replace(usize),
    /// All are waiting for answers.
    TurnAway,
}

/// Who is there, in the order in which they came, each with whether he is idle.
fn admission(there: &[(Peer, bool)], newcomer: Peer) -> Admission {
    let of_his_own = |peer: Peer| peer == newcomer;
    let strange = |peer: Peer| !peer.is_owner() && !newcomer.is_owner();
    let bounds: [(&dyn Fn(Peer) -> bool, usize); 2] =
        [(&of_his_own, A_USER), (&strange, STRANGERS)];
    for (counts, most) in bounds {
        let counted = || there.iter().zip(0..).filter(|((peer, _), _)| counts(*peer));
        if counted().count() >= most {
            let idle = counted().find(|((_, idle), _)| *idle);
            return idle.map_or(Admission::TurnAway, |(_, index)| Admission::Replace(index));
        }
    }
    Admission::Enter
}

/// Lets callers in until it is stopped, and ends when none is left.
pub(super) async fn serve(socket: UnixListener, router: Router, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut callers: Vec<Caller> = Vec::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(event = "control.failed", %error, "a caller cannot be let in");
                let pause = tokio::time::sleep(AFTER_A_FAILURE);
                stop.run_until_cancelled(pause).await;
                continue;
            }
        };
        let peer = Peer::of(&stream);
        callers.retain(|caller| !caller.task.is_finished());
        let there: Vec<_> = callers.iter().map(|it| (it.peer, it.is_idle())).collect();
        match admission(&there, peer) {
            Admission::Enter => {}
            Admission::Replace(index) => {
                let replaced = callers.remove(index);
                replaced.task.abort();
                // Its file is free before another takes one.
                while !replaced.task.is_finished() && tasks.join_next().await.is_some() {}
            }
            Admission::TurnAway => {
                tracing::debug!(event = "control.full", ?peer, "a caller is turned away");
                continue;
            }
        }
        let answers = Arc::new(());
        let answering = answer(
            stream,
            peer,
            router.clone(),
            Arc::clone(&answers),
            stop.clone(),
        );
        callers.push(Caller {
            peer,
            answers,
            task: tasks.spawn(answering),
        });
    }
    drop(socket);
    let ended = async { while tasks.join_next().await.is_some() {} };
    // Who holds half a request does not hold the daemon.
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        tasks.shutdown().await;
    }
}

/// Answers the requests of one connection. At a stop, the one that is under way.
async fn answer(
    stream: UnixStream,
    peer: Peer,
    router: Router,
    answers: Arc<()>,
    stop: CancellationToken,
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let answer = Arc::clone(&answers);
        request.extensions_mut().insert(peer);
        let answering = router.clone().oneshot(request);
        async move {
            let mut response = answering.await?;
            // The body below does not tell its length any more.
            if let Some(length @ 1..) = response.body().size_hint().exact() {
                let headers = response.headers_mut();
                headers.entry(CONTENT_LENGTH).or_insert(length.into());
            }
            // It is there until the last of the body has been taken.
            let sent = |body: axum::body::Body| {
                body.map_frame(move |frame| {
                    let _: &Arc<()> = &answer;
                    frame
                })
            };
            Ok::<_, Infallible>(response.map(sent))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(event = "control.caller", %error, "a caller's connection has broken");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Semaphore;
    use tokio::time::Instant;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: tokenwatch\r\n\r\n";

    const ROOT: Peer = Peer { uid: Some(0) };

    /// A user who is neither root nor whoever runs the tests.
    fn stranger(number: u32) -> Peer {
        let own = rustix::process::geteuid().as_raw();
        Peer {
            uid: Some(own.max(1).checked_add(number).unwrap()),
        }
    }

    /// A socket where each answer costs a permit.
    struct Rig {
        folder: tempfile::TempDir,
        permits: Arc<Semaphore>,
        stop: CancellationToken,
        served: JoinSet<()>,
    }

    impl Rig {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = UnixListener::bind(folder.path().join("socket")).unwrap();
            let (permits, stop) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
            let wanted = Arc::clone(&permits);
            let answered = async move || {
                wanted.acquire().await.unwrap().forget();
                "answered"
            };
            let router = Router::new().route("/", get(answered));
            let mut served = JoinSet::new();
            served.spawn(serve(socket, router, stop.clone()));
            Self {
                folder,
                permits,
                stop,
                served,
            }
        }

        /// One who calls and says so much.
        async fn caller(&self, says: &[u8]) -> UnixStream {
            let socket = self.folder.path().join("socket");
            let mut stream = UnixStream::connect(socket).await.unwrap();
            stream.write_all(says).await.unwrap();
            stream
        }
    }

    /// What comes until the connection is closed.
    async fn rest(mut stream: UnixStream) -> String {
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap_or_default();
        said
    }

    #[test]
    fn no_user_keeps_another_out() {
        let (a, b, c) = (stranger(1), stranger(2), stranger(3));
        let many = |peer, idle, times| vec![(peer, idle); times];
        // Alone, one has as many as he may have, and then the oldest idle one goes.
        let mut there = many(a, true, A_USER - 1);
        assert_eq!(admission(&there, a), Admission::Enter);
        there.insert(0, (a, false));
        assert_eq!(admission(&there, a), Admission::Replace(1));
        assert_eq!(admission(&many(a, false, A_USER), a), Admission::TurnAway);
        assert_eq!(admission(&many(a, false, A_USER), b), Admission::Enter);
        // Strangers have a bound together, which is none for root.
        let mut there = many(a, false, A_USER);
        there.extend(many(b, false, A_USER));
        assert_eq!(admission(&there, c), Admission::TurnAway);
        assert_eq!(admission(&there, ROOT), Admission::Enter);
        there.extend(many(ROOT, true, 1));
        assert_eq!(admission(&there, c), Admission::TurnAway, "not root's");
        there.swap_remove(20);
        there.push((b, true));
        assert_eq!(admission(&there, c), Admission::Replace(there.len() - 1));
        assert_eq!(
            admission(&many(ROOT, true, A_USER), ROOT),
            Admission::Replace(0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_no_whole_head_is_not_waited_for() {
        let rig = Rig::new();
        for says in [&b""[..], b"GET / HTTP/1.1\r\nho"] {
            let begun = Instant::now();
            assert_eq!(rest(rig.caller(says).await).await, "");
            assert!(begun.elapsed() >= HEAD && begun.elapsed() < HEAD * 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_of_one_user_make_room_but_for_those_that_wait_for_an_answer() {
        let mut rig = Rig::new();
        let begun = Instant::now();
        let waiting = rig.caller(REQUEST).await;
        let mut idle = Vec::new();
        for _ in 0..200 {
            idle.push(rig.caller(b"").await);
        }
        let last = rig.caller(REQUEST).await;
        rig.permits.add_permits(2);
        for mut answered in [waiting, last] {
            let mut said = vec![0; 8192];
            let length = answered.read(&mut said).await.unwrap();
            let said = String::from_utf8_lossy(&said[..length]);
            assert!(said.ends_with("answered"), "{said}");
        }
        for gone in idle.drain(..idle.len() - A_USER) {
            assert_eq!(rest(gone).await, "");
        }
        assert!(begun.elapsed() < HEAD, "not for their silence");
        rig.stop.cancel();
        rig.served.join_next().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn at_a_stop_what_is_being_answered_is_and_half_a_request_is_not() {
        let mut rig = Rig::new();
        let half = rig.caller(b"GET / HT").await;
        let asked = rig.caller(REQUEST).await;
        // Both have been read before it is stopped.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        rig.stop.cancel();
        rig.permits.add_permits(1);
        let said = rest(asked).await;
        assert!(said.ends_with("answered"), "{said}");
        rig.served.join_next().await.unwrap().unwrap();
        assert!(begun.elapsed() < HEAD);
        assert_eq!(rest(half).await, "");
    }
}
