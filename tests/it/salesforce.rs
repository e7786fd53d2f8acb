//! The room `salesforce` against a server that answers as Salesforce does.

use std::io;
use std::sync::{Arc, Mutex};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokenwatch::http::Http;
use tokenwatch::salesforce::{Answer, Endpoint, log_in};
use tokenwatch::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::salesforce::{Order, SESSION, Salesforce};

const USER: &str = "mariana@idalko.com.uat";
const PASSWORD: &str = "canary & <ünter> \"quoted\" 'x' ]]> &amp;";
const TOKEN: &str = "Efdli7MO6ISYJj5Jy3tSDc5";

fn http(ca_pem: &str) -> Http {
    Http::new(tls(ca_pem), None).unwrap()
}

fn tls(ca_pem: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn checked(server: &Salesforce, password_and_token: &str) -> Answer {
    let endpoint = Endpoint::new(server.url(), "64.0").unwrap();
    let secret = Secret::new(password_and_token.to_owned());
    let http = http(server.ca_pem());
    let login = log_in(&http, &endpoint, USER, &secret).await;
    let answer = login.answer;
    login.log_out(&http, &endpoint).await;
    answer
}

async fn right(server: &Salesforce) -> Answer {
    server.set(USER, PASSWORD, TOKEN);
    checked(server, &format!("{PASSWORD}{TOKEN}")).await
}

#[tokio::test]
async fn a_credential_works_over_tls_and_its_session_is_ended() {
    let server = Salesforce::start_tls().await;
    assert_eq!(right(&server).await, Answer::Works);
    assert_eq!(server.sessions(), [1, 1, 0]);
    let attempts = server.attempts();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].username, USER);
    assert_eq!(attempts[0].password, format!("{PASSWORD}{TOKEN}"));
    // A server that nobody vouches for has seen nothing.
    let endpoint = Endpoint::new(server.url(), "64.0").unwrap();
    let secret = Secret::new("x".into());
    let login = log_in(&http(""), &endpoint, USER, &secret).await;
    assert_eq!(login.answer, Answer::Unreachable);
    assert_eq!(server.attempts().len(), 1);
}

#[tokio::test]
async fn a_password_that_has_expired_does_not_work_and_its_session_is_ended_too() {
    let server = Salesforce::start().await;
    server.order(Order::Expired);
    assert_eq!(right(&server).await, Answer::PasswordExpired);
    assert_eq!(server.sessions(), [1, 1, 0]);
}

#[tokio::test]
async fn ten_refusals_lock_the_user_out_and_the_right_password_with_him() {
    let server = Salesforce::start().await;
    assert_eq!(right(&server).await, Answer::Works);
    for _ in 0..10 {
        assert!(!server.is_locked_out(USER));
        assert_eq!(checked(&server, "wrong").await, Answer::Refused);
    }
    assert!(server.is_locked_out(USER));
    assert_eq!(right(&server).await, Answer::Refused);
    server.unlock(USER);
    assert_eq!(right(&server).await, Answer::Works);
    assert_eq!(server.attempts_with(&USER.to_uppercase(), "wrong"), 10);
    assert_eq!(server.attempts().len(), 13);
}

/// What everything that can happen comes to.
fn happenings() -> Vec<(Order, Answer)> {
    let page = |status| Order::Answer(status, "<html><p>canary<br></html>".into());
    let mut table = vec![
        (page(200), Answer::Unknown),
        (page(302), Answer::Unknown),
        (page(404), Answer::Unknown),
        (page(429), Answer::RateLimited),
        (page(500), Answer::Unknown),
        (page(502), Answer::Unknown),
        (page(503), Answer::Unreachable),
        (page(504), Answer::Unknown),
        (Order::Answer(200, String::new()), Answer::Unknown),
        (Order::Answer(200, "x".repeat(70_000)), Answer::Unknown),
        (Order::CloseAtOnce, Answer::Unknown),
        (Order::CloseUnanswered, Answer::Unknown),
        (Order::CloseHalfAnswered, Answer::Unknown),
    ];
    for (code, answer) in [
        ("INVALID_LOGIN", Answer::Refused),
        ("LOGIN_MUST_USE_SECURITY_TOKEN", Answer::Refused),
        ("PASSWORD_LOCKOUT", Answer::Locked),
        ("ORG_LOCKED", Answer::Locked),
        ("LOGIN_DURING_RESTRICTED_DOMAIN", Answer::Restricted),
        ("LOGIN_DURING_RESTRICTED_TIME", Answer::Restricted),
        ("LOGIN_CHALLENGE_ISSUED", Answer::Restricted),
        ("LOGIN_CHALLENGE_PENDING", Answer::Restricted),
        ("API_CURRENTLY_DISABLED", Answer::NotAvailable),
        ("API_DISABLED_FOR_ORG", Answer::NotAvailable),
        ("INVALID_OPERATION", Answer::NotAvailable),
        ("INSUFFICIENT_ACCESS", Answer::NotAvailable),
        ("TRIAL_EXPIRED", Answer::NotAvailable),
        ("UNSUPPORTED_API_VERSION", Answer::NotAvailable),
        ("REQUEST_LIMIT_EXCEEDED", Answer::RateLimited),
        ("SERVER_UNAVAILABLE", Answer::Unreachable),
        ("UNKNOWN_EXCEPTION", Answer::Unknown),
        ("INVALID_LOGIN_OF_TOMORROW", Answer::Unknown),
    ] {
        table.push((Order::Fault(code), answer));
    }
    table
}

#[tokio::test]
async fn whatever_happens_has_its_answer_and_is_one_attempt() {
    let server = Salesforce::start().await;
    for (order, answer) in happenings() {
        let (before, [_, logouts, _]) = (server.attempts().len(), server.sessions());
        let is_read = !matches!(order, Order::CloseAtOnce);
        server.order(order.clone());
        assert_eq!(right(&server).await, answer, "{order:?}");
        let attempts = server.attempts().len() - before;
        assert_eq!(attempts, usize::from(is_read), "{order:?}");
        assert_eq!(server.sessions()[1], logouts, "{order:?}");
    }
    // And none of it stands in the way of the next.
    assert_eq!(right(&server).await, Answer::Works);
}

#[tokio::test]
async fn a_server_that_is_not_there_has_seen_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let endpoint = Endpoint::new(&url, "64.0").unwrap();
    let secret = Secret::new("x".into());
    let login = log_in(&http(""), &endpoint, USER, &secret).await;
    assert_eq!(login.answer, Answer::Unreachable);
}

#[tokio::test]
async fn whoever_does_not_let_us_through_has_seen_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let secret = Secret::new("x".into());
    // A server that takes the connection and never speaks TLS.
    let endpoint = Endpoint::new(&format!("https://127.0.0.1:{port}"), "64.0").unwrap();
    let direct = http("");
    let checking = log_in(&direct, &endpoint, USER, &secret);
    let silent = async {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::time::pause();
        stream
    };
    let (login, stream) = tokio::join!(checking, silent);
    tokio::time::resume();
    assert_eq!(login.answer, Answer::Unreachable);
    drop(stream);
    // A proxy that refuses the way.
    let proxy = format!("http://127.0.0.1:{port}");
    let through = Http::new(tls(""), Some(&proxy)).unwrap();
    let endpoint = Endpoint::new("https://login.example", "64.0").unwrap();
    for refusal in ["407 Who are you", "502 No", "403 Never"] {
        let checking = log_in(&through, &endpoint, USER, &secret);
        let refusing = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
            }
            let answer = format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        };
        let (login, asked) = tokio::join!(checking, refusing);
        assert_eq!(login.answer, Answer::Unreachable, "{refusal}");
        assert!(asked.starts_with("CONNECT login.example:443 "), "{asked}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_may_have_seen_it() {
    let server = Salesforce::start().await;
    server.order(Order::Stall);
    let read = async {
        server.wait_for_attempts(1).await;
        // The request is there, so there is nothing left to wait for but the deadline.
        tokio::time::pause();
    };
    let (answer, ()) = tokio::join!(right(&server), read);
    assert_eq!(answer, Answer::Unknown);
    assert_eq!(server.attempts().len(), 1);
}

#[tokio::test]
async fn a_session_goes_to_no_stranger_and_a_failed_logout_changes_nothing() {
    let (server, stranger) = (Salesforce::start_tls().await, Salesforce::start().await);
    for base in [
        stranger.url(),
        "https://salesforce.com.example",
        "https://[::1]:1",
        "no url",
    ] {
        server.send_sessions_to(base);
        assert_eq!(right(&server).await, Answer::Works, "{base}");
    }
    assert_eq!(server.sessions(), [4, 0, 4]);
    assert_eq!(stranger.connections(), 0);
    // A server that is ours and does not know the session.
    let other = Salesforce::start().await;
    stranger.send_sessions_to(other.url());
    assert_eq!(right(&stranger).await, Answer::Works);
    assert_eq!(other.sessions(), [0, 0, 0]);
    // One that is not there any more.
    stranger.send_sessions_to("http://127.0.0.1:1");
    assert_eq!(right(&stranger).await, Answer::Works);
    assert_eq!(stranger.sessions(), [2, 0, 2]);
}

/// A log that can be read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_in_the_log_at_trace() {
    let log = Log::default();
    let writer = log.clone();
    // The test and all that it starts are on one thread, and others have tests of their own. A
    // subscriber of the thread alone would not do: whether anybody listens is remembered for all.
    let here = std::thread::current().id();
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .with_filter(dynamic_filter_fn(move |_, _| {
            std::thread::current().id() == here
        }));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    let plain = Salesforce::start().await;
    let tls = Salesforce::start_tls().await;
    for server in [&plain, &tls] {
        for (order, _) in happenings() {
            server.order(order);
            right(server).await;
        }
        right(server).await;
        checked(server, "canary-wrong").await;
        server.send_sessions_to("https://elsewhere.example");
        right(server).await;
    }
    // A code that is what was sent, or looks like anything.
    for code in ["CANARY_AS_PASSWORD", "canary", "Canary: x"] {
        plain.order(Order::Fault(code));
        let answer = checked(&plain, "CANARY_AS_PASSWORD").await;
        assert_eq!(answer, Answer::Unknown);
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for seen in [
        "INVALID_LOGIN_OF_TOMORROW",
        "PASSWORD_LOCKOUT",
        "rate-limited",
        "logged out again",
        "none that a secret may go to",
        "TRACE",
    ] {
        assert!(log.contains(seen), "{seen} in {log}");
    }
    for canary in ["canary", "CANARY", TOKEN, SESSION, "quoted", "ünter"] {
        assert!(!log.contains(canary), "{canary} in {log}");
    }
}
