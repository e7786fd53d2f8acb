//! The room against a provider of a few lines, which says what real ones do not say on demand.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ClientConfig, RootCertStore};

use super::*;

mod line;

/// Stands in every answer and must not come out again.
const CANARY: &str = "c4n4ryInTheAnswer";

/// A provider that gives its answers in turn, the last for ever, and keeps what it was asked.
struct Provider {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Provider {
    fn answering(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let mut answers: Vec<_> = answers
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()))
            .rev()
            .collect();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                noted.lock().unwrap().push(request(&mut stream));
                let (status, body) = answers.last().unwrap();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nlocation: https://{CANARY}.example\r\n\
                     content-type: application/json\r\nx-canary: {CANARY}\r\n\
                     content-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
                if answers.len() > 1 {
                    answers.pop();
                }
            }
        });
        Self { url, asked }
    }

    fn client(&self) -> Client {
        Client {
            endpoints: Endpoints {
                token: self.url.clone(),
                authorization: Some("https://provider.example/authorize".into()),
                device: Some(self.url.clone()),
                authorization_extra: vec![("prompt".into(), "consent".into())],
                redirect_by_name: false,
            },
            client_id: "app".into(),
            client_secret: None,
            scopes: vec!["mail".into(), "more".into()],
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The body of a request.
fn request(stream: &mut TcpStream) -> String {
    let mut whole = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&whole).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return body.to_owned();
            }
        }
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "a whole request");
        whole.extend_from_slice(&buffer[..read]);
    }
}

fn http() -> Http {
    Http::new(tls(RootCertStore::empty()), None).unwrap()
}

fn tls(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn secret(text: &str) -> Secret {
    Secret::new(text.into())
}

async fn refreshed(status: u16, body: &str) -> Result<Tokens, OauthError> {
    let provider = Provider::answering(&[(status, body)]);
    let client = provider.client();
    client.refresh(&http(), &secret(CANARY)).await
}

/// All that could be printed of an error.
fn printed(error: &OauthError) -> String {
    format!("{} {error:?} {}", crate::chain(error), error.hint())
}

#[tokio::test]
async fn a_refresh_asks_for_what_was_agreed_to_and_takes_a_new_refresh_token() {
    let full =
        r#"{"access_token":"a.b","token_type":"Bearer","expires_in":3599,"refresh_token":"r2"}"#;
    let provider = Provider::answering(&[
        (200, full),
        (200, r#"{"access_token":"a","token_type":"bearer"}"#),
    ]);
    let mut client = provider.client();
    let tokens = client.refresh(&http(), &secret("r1")).await.unwrap();
    assert_eq!(tokens.access.expose(), "a.b");
    assert_eq!(tokens.expires_in, Some(Duration::from_secs(3599)));
    assert_eq!(tokens.refresh, Some(secret("r2")));
    client.client_secret = Some(secret("s&="));
    let tokens = client.refresh(&http(), &secret("r2")).await.unwrap();
    assert_eq!((tokens.refresh, tokens.expires_in), (None, None));
    assert_eq!(
        provider.asked(),
        [
            "grant_type=refresh_token&refresh_token=r1&client_id=app",
            "grant_type=refresh_token&refresh_token=r2&client_id=app&client_secret=s%26%3D",
        ]
    );
    client.client_credentials(&http()).await.unwrap();
    assert_eq!(
        provider.asked()[2],
        "grant_type=client_credentials&scope=mail+more&client_id=app&client_secret=s%26%3D"
    );
}

#[tokio::test]
async fn every_refusal_has_its_class_and_repeats_nothing_of_the_answer() {
    let large = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(70_000));
    let table = [
        (
            400,
            r#"{"error":"invalid_grant"}"#,
            Class::SignIn,
            "(invalid_grant)",
        ),
        (
            400,
            r#"{"error":"interaction_required"}"#,
            Class::SignIn,
            "(interaction_required)",
        ),
        (
            401,
            r#"{"error":"invalid_client"}"#,
            Class::Person,
            "(invalid_client)",
        ),
        (
            400,
            r#"{"error":"unauthorized_client"}"#,
            Class::Person,
            "(unauthorized_client)",
        ),
        (
            400,
            r#"{"error":"invalid_scope"}"#,
            Class::Person,
            "(invalid_scope)",
        ),
        (
            400,
            r#"{"error":"c4n4ryInTheAnswer"}"#,
            Class::Person,
            "no plain word",
        ),
        (
            400,
            r#"{"error":"temporarily_unavailable"}"#,
            Class::Transient,
            "temporarily_unavailable",
        ),
        (500, r#"{"error":"invalid_grant"}"#, Class::Transient, "500"),
        (503, "<h1>c4n4ryInTheAnswer</h1>", Class::Transient, "503"),
        (429, "", Class::Transient, "429"),
        (302, "", Class::Transient, "elsewhere"),
        (
            404,
            "<h1>c4n4ryInTheAnswer</h1>",
            Class::Transient,
            "not of OAuth",
        ),
        (401, "", Class::Transient, "not of OAuth"),
        (200, "", Class::Transient, "not of OAuth"),
        (
            200,
            r#"{"access_token":{"c4n4ryInTheAnswer":1}}"#,
            Class::Transient,
            "not of OAuth",
        ),
        (
            200,
            r#"{"access_token":"a\u0001auth=c4n4ryInTheAnswer","token_type":"b"}"#,
            Class::Transient,
            "cannot be sent",
        ),
        (
            200,
            r#"{"access_token":"","token_type":"b"}"#,
            Class::Transient,
            "cannot be sent",
        ),
        (
            200,
            r#"{"access_token":"a","token_type":"b","refresh_token":""}"#,
            Class::Transient,
            "cannot be sent",
        ),
        (200, &large, Class::Transient, "too large"),
    ];
    for (status, body, class, words) in table {
        let body = body.replace(
            r#""}"#,
            &format!(
                r#"","error_description":"{CANARY}","error_uri":"https://{CANARY}.example"}}"#
            ),
        );
        let error = refreshed(status, &body).await.unwrap_err();
        let printed = printed(&error);
        assert_eq!(error.class(), class, "{status} {body}: {printed}");
        assert!(printed.contains(words), "{status} {body}: {printed}");
        assert!(!printed.contains(CANARY), "{printed}");
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_said_without_what_was_sent() {
    let provider = Provider::answering(&[(200, "")]);
    let mut client = provider.client();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    client.endpoints.token = format!("http://{}/{CANARY}", free.unwrap());
    let error = client.refresh(&http(), &secret(CANARY)).await.unwrap_err();
    let printed = printed(&error);
    assert_eq!(error.class(), Class::Transient, "{printed}");
    assert!(printed.contains("Connection refused"), "{printed}");
    assert!(!printed.contains(CANARY), "{printed}");
}

#[tokio::test]
async fn secrets_go_to_https_or_this_machine_alone() {
    let mut client = Provider::answering(&[(200, "")]).client();
    for (url, why) in [
        ("provider.example/token", "is no URL"),
        ("http://provider.example/token", "is not https"),
        ("http://localhost.example/token", "is not https"),
        ("ftp://127.0.0.1/token", "is not https"),
        ("https://a:b@provider.example/token", "more in it"),
        ("https://provider.example/token#x", "more in it"),
    ] {
        client.endpoints.token = url.into();
        let error = client.refresh(&http(), &secret("r")).await.unwrap_err();
        assert!(error.to_string().contains(why), "{url}: {error}");
        assert_eq!(error.class(), Class::Person);
    }
    for url in [
        "http://localhost:1/",
        "http://[::1]/",
        "http://127.9.9.9/",
        "https://a.example/",
    ] {
        assert!(endpoint("token endpoint", url).is_ok(), "{url}");
    }
    for built_in in [
        Endpoints::google(),
        Endpoints::microsoft("a/../b?c.example"),
    ] {
        client.endpoints = built_in;
        client.protocol().unwrap();
    }
    assert!(
        client
            .endpoints
            .token
            .contains("com/a%2F..%2Fb%3Fc.example/oauth2/v2.0/token")
    );
}

#[tokio::test]
async fn a_device_waits_and_asks_again_until_the_person_has_decided() {
    let codes = r#"{"device_code":"d","user_code":"AB-CD","verification_uri":"https://p.example/device","expires_in":60,"interval":1}"#;
    let pending = (400, r#"{"error":"authorization_pending"}"#);
    let given = (
        200,
        r#"{"access_token":"a","token_type":"b","refresh_token":"r"}"#,
    );
    let provider = Provider::answering(&[(200, codes), pending, (503, ""), given]);
    let (told, prompts) = mpsc::channel();
    let tokens = provider
        .client()
        .sign_in_by_device(&http(), move |prompt| told.send(prompt).unwrap())
        .await
        .unwrap();
    assert_eq!(tokens.refresh, Some(secret("r")));
    let prompt = prompts.recv().unwrap();
    assert_eq!(prompt.verification_uri, "https://p.example/device");
    assert_eq!(
        (prompt.user_code.as_str(), prompt.expires_in.as_secs()),
        ("AB-CD", 60)
    );
    let asked = provider.asked();
    assert_eq!(asked.len(), 4);
    assert_eq!(asked[0], "scope=mail+more&client_id=app");
    assert!(asked[3].contains("device_code=d"), "{asked:?}");

    for (answer, class) in [
        ("access_denied", "denied"),
        ("authorization_declined", "denied"),
        ("expired_token", "in time"),
    ] {
        let answer = format!(r#"{{"error":"{answer}"}}"#);
        let provider = Provider::answering(&[(200, codes), (400, &answer)]);
        let signing_in = provider.client();
        let error = signing_in
            .sign_in_by_device(&http(), |_| ())
            .await
            .unwrap_err();
        assert_eq!(error.class(), Class::SignIn);
        assert!(error.to_string().contains(class), "{error}");
    }
}

#[tokio::test]
async fn a_device_code_that_would_harm_is_not_shown() {
    for (codes, words) in [
        (
            r#"{"device_code":"d","user_code":"A\u001b[2J","verification_uri":"https://p.example/","expires_in":60}"#,
            "cannot be shown",
        ),
        (
            r#"{"device_code":"d","user_code":"A","verification_uri":"javascript:x","expires_in":60}"#,
            "cannot be shown",
        ),
        (
            r#"{"device_code":"d","user_code":"A","verification_uri":"https://p.example/","expires_in":60,"interval":18446744073709551615}"#,
            "too long",
        ),
        (r#"{"error":"invalid_scope"}"#, "not of OAuth"),
    ] {
        let provider = Provider::answering(&[(200, codes)]);
        let told = |prompt| panic!("{prompt:?}");
        let error = provider
            .client()
            .sign_in_by_device(&http(), told)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let provider = Provider::answering(&[(200, "")]);
    let mut client = provider.client();
    client.endpoints.device = None;
    let error = client.sign_in_by_device(&http(), |_| ()).await.unwrap_err();
    assert!(matches!(error, OauthError::NoEndpoint(_)), "{error}");
}

/// What a browser would do: one request, and the status of its answer.
fn browse(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

/// Signs in with a browser that asks for these paths; `STATE` in them is ours.
async fn signed_in(client: Client, paths: &'static [(&str, &str)]) -> Result<Tokens, OauthError> {
    let (told, prompts) = mpsc::channel::<BrowserPrompt>();
    let browser = thread::spawn(move || {
        let prompt = prompts.recv().unwrap();
        let url = Url::parse(&prompt.url).unwrap();
        let said: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(said["code_challenge_method"], "S256");
        assert_eq!(said["scope"], "mail more");
        assert_eq!(said["prompt"], "consent");
        assert!(said["redirect_uri"].ends_with(&format!(":{}", prompt.port)));
        // Somebody who connects and says nothing does not hold the sign-in up.
        let silent = TcpStream::connect(("127.0.0.1", prompt.port)).unwrap();
        for (path, status) in paths {
            let path = path.replace("STATE", &said["state"]);
            assert_eq!(browse(prompt.port, &path), *status, "{path}");
        }
        silent
    });
    let result = client
        .sign_in_by_browser(&http(), None, move |prompt| told.send(prompt).unwrap())
        .await;
    browser.join().unwrap();
    result
}

#[tokio::test]
async fn a_browser_brings_the_code_and_nothing_else_ends_the_wait() {
    let given = r#"{"access_token":"a","token_type":"b","refresh_token":"r"}"#;
    let provider = Provider::answering(&[(200, given)]);
    let mut client = provider.client();
    client.endpoints.redirect_by_name = true;
    let paths = &[
        ("/favicon.ico", "404"),
        ("/", "404"),
        ("/?state=x", "404"),
        ("/?code=1&code=2&state=x", "400"),
        ("/elsewhere?code=1&state=STATE", "404"),
        ("/?code=the+code&state=STATE", "200"),
    ];
    let tokens = signed_in(client, paths).await.unwrap();
    assert_eq!(tokens.refresh, Some(secret("r")));
    let asked = provider.asked();
    assert_eq!(asked.len(), 1);
    for part in [
        "grant_type=authorization_code",
        "code=the+code",
        "code_verifier=",
        "redirect_uri=http%3A%2F%2Flocalhost%3A",
    ] {
        assert!(asked[0].contains(part), "{asked:?}");
    }
}

#[tokio::test]
async fn a_browser_with_another_answer_or_bad_news_ends_the_sign_in() {
    let provider = Provider::answering(&[(200, "")]);
    for (paths, words) in [
        (&[("/?code=1&state=other", "200")], "another sign-in"),
        (&[("/?code=1", "200")], "another sign-in"),
        (
            &[("/?error=access_denied&state=other", "200")],
            "another sign-in",
        ),
        (&[("/?error=access_denied&state=STATE", "200")], "denied"),
        (
            &[("/?error=invalid_scope&state=STATE", "200")],
            "invalid_scope",
        ),
    ] {
        let error = signed_in(provider.client(), paths).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(provider.asked().is_empty());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let provider = Provider::answering(&[(200, "")]);
    let (client, http) = (provider.client(), http());
    let signing_in = client.sign_in_by_browser(&http, Some(port), |_| ());
    let error = signing_in.await.unwrap_err();
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    assert_eq!(error.class(), Class::Person);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_says_nothing_is_not_waited_for_longer_than_a_stop_may_take() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let provider = Provider::answering(&[(200, "{}")]);
    let mut client = provider.client();
    client.endpoints.token = format!("http://{}/token", silent.local_addr().unwrap());
    let begun = tokio::time::Instant::now();
    let asked = client.refresh(&http(), &Secret::new("r".into())).await;
    assert!(
        matches!(
            asked,
            Err(OauthError::Http(crate::http::HttpError::Deadline(_)))
        ),
        "{asked:?}"
    );
    assert!(begun.elapsed() <= DEADLINE + Duration::from_secs(1));
}
