//! Webhooks, against a server that checks the signature by itself.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokenwatch::sink::{Class, Credential, Delivered, SinkError};

use crate::https::{Asked, Https, Script};
use crate::receivers::{Receiver, credential};

const PASSWORD: &str = "pa'ss\"wört TOKEN";

struct Hook {
    server: Https,
    script: Script,
    folder: tempfile::TempDir,
}

impl Hook {
    fn new() -> Self {
        let script = Script::default();
        let server = Https::new(script.router());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &server.authority).unwrap();
        Self {
            server,
            script,
            folder,
        }
    }

    async fn receiver(&self, path: &str, lines: &str) -> Result<Receiver, SinkError> {
        let url = self.server.url(path);
        let configuration = format!(
            "[[sink]]\nkind='webhook'\nname='hook'\nca-file='ca.pem'\nurl='{url}'\n{lines}\n"
        );
        let vault = [
            ("sink/hook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ("sink/hook/authorization", "Bearer abc"),
        ];
        Receiver::new(self.folder.path(), &configuration, &vault).await
    }

    fn one(&self) -> Asked {
        let mut asked = self.script.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }
}

fn header(asked: &Asked, name: &str) -> String {
    asked.headers[name].to_str().unwrap().to_owned()
}

/// HMAC by its definition (RFC 2104, section 2).
fn hmac(key: &[u8], message: &[u8]) -> String {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let keyed = |pad: u8, message: &[u8]| {
        let mut text: Vec<u8> = block.iter().map(|byte| byte ^ pad).collect();
        text.extend_from_slice(message);
        digest(&SHA256, &text).as_ref().to_vec()
    };
    STANDARD.encode(keyed(0x5c, &keyed(0x36, message)))
}

fn check_signature(asked: &Asked, key: &[u8]) {
    let mut message = format!(
        "{}.{}.",
        header(asked, "webhook-id"),
        header(asked, "webhook-timestamp")
    )
    .into_bytes();
    message.extend_from_slice(&asked.body);
    let expected = format!("v1,{}", hmac(key, &message));
    assert_eq!(header(asked, "webhook-signature"), expected);
    let sent: i64 = header(asked, "webhook-timestamp").parse().unwrap();
    assert!((jiff::Timestamp::now().as_second() - sent).abs() < 60);
}

/// The receiver has nothing of the secret, however it is written.
fn holds_no_secret(asked: &Asked) {
    let shown = format!("{asked:?}{}", String::from_utf8_lossy(&asked.body));
    for part in ["TOKEN", "pa'ss", "w\u{f6}rt"] {
        assert!(!shown.contains(part), "{shown}");
    }
}

#[test]
fn our_hmac_is_that_of_the_rfc() {
    // RFC 4231, section 4.3, and the example of the libraries of Standard Webhooks.
    let expected = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";
    assert_eq!(hmac(b"Jefe", b"what do ya want for nothing?"), expected);
    let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let message = b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}";
    let expected = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    assert_eq!(hmac(&key, message), expected);
}

#[tokio::test]
async fn a_webhook_is_signed_and_says_no_secret_unless_it_is_told_to() {
    let hook = Hook::new();
    let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let receiver = hook.receiver("/hooks/{username}?x=1", "").await.unwrap();
    let credential = credential(PASSWORD);
    let delivered = receiver.deliver(&credential).await.unwrap();
    assert_eq!(delivered, Delivered::New);
    assert!(receiver.sink.is_there(&credential).await);
    let asked = hook.one();
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.uri, "/hooks/mariana%40idalko.com?x=1");
    assert_eq!(header(&asked, "content-type"), "application/json");
    assert_eq!(header(&asked, "webhook-id"), credential.id);
    check_signature(&asked, &key);
    holds_no_secret(&asked);
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    let mut expected = json!({
        "type": "credential.updated", "username": "mariana@idalko.com", "version": 3,
        "fingerprint": "0f1e2d3c", "received": "2026-11-24T15:00:00Z", "id": credential.id,
    });
    assert_eq!(body, expected);

    // The same once more, as it is after a crash: the id is the same.
    receiver.deliver(&credential).await.unwrap();
    assert_eq!(header(&hook.one(), "webhook-id"), credential.id);

    let receiver = hook
        .receiver(
            "/",
            "include-secret=true\nmethod='PUT'\nheaders={Authorization='vault'}",
        )
        .await
        .unwrap();
    receiver.deliver(&credential).await.unwrap();
    let asked = hook.one();
    check_signature(&asked, &key);
    assert_eq!(asked.method, "PUT");
    assert_eq!(header(&asked, "authorization"), "Bearer abc");
    expected["password"] = PASSWORD.into();
    assert_eq!(
        serde_json::from_slice::<Value>(&asked.body).unwrap(),
        expected
    );
}

#[tokio::test]
async fn a_template_makes_the_body() {
    let hook = Hook::new();
    let template = |text: &str| std::fs::write(hook.folder.path().join("t"), text).unwrap();
    template("<p u=\"{{ username }}\" v={{ version }} id={{ id }}/>");
    let lines = "template='t'\nsecret='none'\ncontent-type='application/xml'";
    let receiver = hook.receiver("/", lines).await.unwrap();
    receiver.deliver(&credential(PASSWORD)).await.unwrap();
    let asked = hook.one();
    let expected = "<p u=\"mariana@idalko.com\" v=3 id=msg_2KWPBgLlAfxdpx2AI54pPJ85f4W/>";
    assert_eq!(asked.body, expected);
    assert_eq!(header(&asked, "content-type"), "application/xml");
    assert!(!asked.headers.contains_key("webhook-signature"));

    // The secret is not there to be written by accident.
    template("{{ password }}");
    let error = hook.receiver("/", lines).await.err().unwrap();
    assert_eq!((error.class(), error.code()), (Class::Person, "template"));
    let lines = format!("{lines}\ninclude-secret=true");
    let receiver = hook.receiver("/", &lines).await.unwrap();
    receiver.deliver(&credential(PASSWORD)).await.unwrap();
    assert_eq!(hook.one().body, PASSWORD);
}

#[tokio::test]
async fn each_answer_has_its_class() {
    let hook = Hook::new();
    let receiver = hook.receiver("/", "").await.unwrap();
    let credential = credential(PASSWORD);
    for status in [200, 201, 202, 204] {
        hook.script.then(status, &[]);
        receiver.deliver(&credential).await.unwrap();
    }
    // A page that nobody reads has arrived all the same.
    hook.script.then_with(200, &[], "x".repeat(1 << 20));
    receiver.deliver(&credential).await.unwrap();
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(120);
    let soon = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&soon)
        .unwrap();
    for (status, wait, class, code, least, most) in [
        (408, "", Class::Transient, "busy", 0, 0),
        (425, "", Class::Transient, "busy", 0, 0),
        (429, "7", Class::Transient, "busy", 7, 7),
        (500, "", Class::Transient, "busy", 0, 0),
        (503, "86400", Class::Transient, "busy", 3600, 3600),
        (503, &soon, Class::Transient, "busy", 90, 120),
        (503, "soon", Class::Transient, "busy", 0, 0),
        (400, "7", Class::Person, "refused", 0, 0),
        (401, "", Class::Person, "refused", 0, 0),
        (404, "", Class::Person, "refused", 0, 0),
        (410, "", Class::Person, "refused", 0, 0),
    ] {
        let headers = [("retry-after", wait)];
        hook.script
            .then(status, if wait.is_empty() { &[] } else { &headers });
        let error = receiver.deliver(&credential).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (class, code), "{status}");
        let waits = error.retry_after().unwrap_or_default().as_secs();
        assert!((least..=most).contains(&waits), "{status}: {waits}");
        assert!(error.to_string().contains(&status.to_string()) && !error.hint().is_empty());
    }
    // Nobody sends us elsewhere with the secret.
    hook.script.asked();
    let elsewhere = hook.server.url("/elsewhere");
    hook.script.then(307, &[("location", &elsewhere)]);
    let error = receiver.deliver(&credential).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Person, "refused"));
    assert_eq!(hook.one().uri, "/");
}

#[tokio::test]
async fn who_cannot_be_reached_trusted_or_waited_for_gets_nothing() {
    let hook = Hook::new();
    let credential = credential(PASSWORD);
    // Another authority.
    let stranger = Https::new(Script::default().router());
    std::fs::write(hook.folder.path().join("ca.pem"), stranger.authority).unwrap();
    let receiver = hook.receiver("/", "include-secret=true").await.unwrap();
    let error = receiver.deliver(&credential).await.unwrap_err();
    assert_eq!(
        (error.class(), error.code()),
        (Class::Transient, "unreachable")
    );
    assert!(hook.script.asked().is_empty());

    // A server that takes the request and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let lines = format!(
        "[[sink]]\nkind='webhook'\nsecret='none'\ntimeout='1s'\nurl='http://127.0.0.1:{port}/'"
    );
    let receiver = Receiver::new(hook.folder.path(), &lines, &[])
        .await
        .unwrap();
    let begun = std::time::Instant::now();
    let error = receiver.deliver(&credential).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("TOKEN"), "{shown}");
}

#[tokio::test]
async fn what_is_missing_for_a_request_is_said_before_it_is_sent() {
    let hook = Hook::new();
    let mut receiver = hook
        .receiver("/", "headers={Authorization='vault'}")
        .await
        .unwrap();
    let code = async |receiver: &Receiver, credential: &Credential| {
        let error = receiver.deliver(credential).await.unwrap_err();
        assert_eq!(error.class(), Class::Person);
        let shown = format!("{error} {error:?} {}", error.hint());
        assert!(!shown.contains("hunter2"), "{shown}");
        error.code()
    };
    let credential = credential(PASSWORD);
    let secret = |text: &str| tokenwatch::secret::Secret::new(text.to_owned());
    receiver.secrets.key = Some(secret("whsec_hunter2!"));
    assert_eq!(code(&receiver, &credential).await, "signing-key");
    // A key of nothing is known to everybody.
    receiver.secrets.key = Some(secret("whsec_"));
    assert_eq!(code(&receiver, &credential).await, "signing-key");
    receiver.secrets.key = None;
    assert_eq!(code(&receiver, &credential).await, "no-secret");
    receiver.secrets.key = Some(secret("any text is a key"));
    receiver.secrets.headers[0].1 = secret("hunter2\r\nX: y");
    assert_eq!(code(&receiver, &credential).await, "header");
    receiver.secrets.headers.clear();
    assert_eq!(code(&receiver, &credential).await, "no-secret");
    assert!(hook.script.asked().is_empty());
    receiver.secrets.headers = vec![("authorization".into(), secret("x"))];
    receiver.deliver(&credential).await.unwrap();
    check_signature(&hook.one(), b"any text is a key");
}
