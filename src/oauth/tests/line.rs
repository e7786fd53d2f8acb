//! The line to a provider: TLS with our roots, through a proxy where there is one.

use std::net::SocketAddr;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::http::HttpError;

/// A provider behind TLS, for `provider.example`.
struct Secured {
    address: SocketAddr,
    /// The one root that signed its certificate.
    roots: RootCertStore,
    /// What a proxy in front of it was asked for.
    asked: mpsc::Receiver<String>,
}

impl Secured {
    /// With an answer of a proxy, it is asked for the way first, as by `CONNECT`.
    fn start(proxy: Option<&'static str>) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let names = ["provider.example".to_owned(), "localhost".to_owned()];
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, asked) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if let Some(answer) = proxy {
                    sender.send(head(&mut stream)).unwrap();
                    write!(stream, "HTTP/1.1 {answer}\r\n\r\n").unwrap();
                    if !answer.starts_with("200") {
                        continue;
                    }
                }
                let server = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut tls = StreamOwned::new(server, stream);
                // A client that does not trust us says nothing.
                let mut buffer = [0; 4096];
                if tls.read(&mut buffer).is_ok() {
                    let body = r#"{"access_token":"a","token_type":"b"}"#;
                    let length = body.len();
                    write!(
                        tls,
                        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
                    )
                    .unwrap();
                }
            }
        });
        Self {
            address,
            roots,
            asked,
        }
    }

    async fn refresh(
        &self,
        host: &str,
        roots: RootCertStore,
        proxy: Option<&str>,
    ) -> Result<Tokens, OauthError> {
        let mut client = Provider::answering(&[(200, "")]).client();
        client.endpoints.token = format!("https://{host}:{}/token", self.address.port());
        let http = Http::new(tls(roots), proxy).unwrap();
        client.refresh(&http, &secret("r")).await
    }
}

/// The head of a request, up to its empty line.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn our_roots_decide_whom_secrets_go_to() {
    let provider = Secured::start(None);
    let known = provider.roots.clone();
    let tokens = provider.refresh("localhost", known.clone(), None).await;
    assert_eq!(tokens.unwrap().access, secret("a"));
    for (host, roots, words) in [
        ("localhost", RootCertStore::empty(), "UnknownIssuer"),
        ("127.0.0.1", known, "not valid for name"),
    ] {
        let error = provider.refresh(host, roots, None).await.unwrap_err();
        assert!(printed(&error).contains(words), "{}", printed(&error));
        assert_eq!(error.class(), Class::Transient);
    }
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_name_and_its_password_is_not_shown() {
    let proxy = Secured::start(Some("200 OK"));
    let url = format!("http://me:{CANARY}@{}", proxy.address);
    let roots = proxy.roots.clone();
    let tokens = proxy.refresh("provider.example", roots, Some(&url)).await;
    assert_eq!(tokens.unwrap().access, secret("a"));
    let asked = proxy.asked.recv().unwrap().to_lowercase();
    assert!(asked.starts_with("connect provider.example:"), "{asked}");
    assert!(asked.contains("proxy-authorization: basic "), "{asked}");

    let refusing = Secured::start(Some("407 Proxy Authentication Required"));
    let url = format!("http://me:{CANARY}@{}", refusing.address);
    let roots = refusing.roots.clone();
    let error = refusing
        .refresh("provider.example", roots, Some(&url))
        .await;
    let error = error.unwrap_err();
    assert!(!printed(&error).contains(CANARY), "{}", printed(&error));
    assert_eq!(error.class(), Class::Transient);
    assert_eq!(
        format!(
            "{:?}",
            Http::new(tls(RootCertStore::empty()), Some(&url)).unwrap()
        ),
        "Http"
    );

    for wrong in [
        format!("ftp://me:{CANARY}@x"),
        format!("http://me:{CANARY}@"),
    ] {
        let error =
            OauthError::from(Http::new(tls(RootCertStore::empty()), Some(&wrong)).unwrap_err());
        assert!(!printed(&error).contains(CANARY), "{}", printed(&error));
        assert_eq!(error.class(), Class::Person);
    }
}

#[tokio::test]
async fn what_is_on_this_machine_is_reached_without_the_proxy() {
    let provider = Secured::start(None);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let nobody = format!("socks5h://{}", free.unwrap());
    let known = provider.roots.clone();
    let tokens = provider
        .refresh("localhost", known.clone(), Some(&nobody))
        .await;
    assert_eq!(tokens.unwrap().access, secret("a"));
    let error = provider
        .refresh("provider.example", known, Some(&nobody))
        .await;
    assert!(
        matches!(error, Err(OauthError::Http(HttpError::Unreachable { .. }))),
        "{error:?}"
    );
}
