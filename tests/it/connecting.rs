//! The way to a server: whom we trust, through which proxy, and from which byte
//! on what is said counts.

use std::time::Duration;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokenwatch::mailbox::{Class, MailboxError, Proxy, Roots, Security, Server, Session};
use tokenwatch::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::imap_server::{ImapServer, Options};
use crate::support::proxy::{self, Manners};
use crate::support::scripted::Scripted;

const GREETING: &[u8] = b"* OK [CAPABILITY IMAP4rev1 IDLE] hi\r\n";

fn server(port: u16, security: Security) -> Server {
    Server {
        host: "localhost".to_owned(),
        port,
        security,
        ca_file: None,
        pin: None,
        proxy: Proxy::None,
        max_mail_size: 256 * 1024,
        patience: Duration::from_secs(10),
    }
}

async fn connect(server: &Server) -> Result<Session, MailboxError> {
    Session::connect(server, &Roots::of_the_system()).await
}

/// The error of a connection that must not come about.
async fn refusal(server: &Server) -> MailboxError {
    match connect(server).await {
        Ok(_) => panic!("connected to {server:?}"),
        Err(error) => error,
    }
}

/// All that a user would read of an error.
fn told(error: &MailboxError) -> String {
    format!("{} {} {error:?}", tokenwatch::chain(error), error.hint())
}

fn written(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    (folder, path)
}

/// Tasks and what they serve; they end when this is dropped.
struct Serving {
    port: u16,
    _tasks: JoinSet<()>,
}

/// Serves each connection by `talk`, with all of a connection's errors ignored.
async fn serving<F>(talk: impl Fn(TcpStream) -> F + Send + 'static) -> Serving
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let talk = talk(stream);
            connections.spawn(async move { talk.await.unwrap_or_default() });
        }
    });
    Serving {
        port,
        _tasks: tasks,
    }
}

/// A certificate as an appliance has it: signed by itself, an authority, for a
/// name that is not ours, and long expired.
fn of_an_appliance() -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["appliance.internal".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.der().clone(), key)
}

/// Greets under TLS with this certificate and key.
async fn tls(
    certificate: CertificateDer<'static>,
    key: &KeyPair,
    version: &'static rustls::SupportedProtocolVersion,
) -> Serving {
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serving(move |tcp| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(tcp).await?;
            stream.write_all(GREETING).await?;
            stream.read_to_end(&mut Vec::new()).await?;
            Ok(())
        }
    })
    .await
}

fn sha256(certificate: &CertificateDer<'_>) -> [u8; 32] {
    digest(&SHA256, certificate).as_ref().try_into().unwrap()
}

#[tokio::test]
async fn a_pinned_certificate_is_trusted_whatever_stands_in_it_and_no_other() {
    let (certificate, key) = of_an_appliance();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let serving = tls(certificate.clone(), &key, version).await;
        let unpinned = server(serving.port, Security::Tls);
        assert!(matches!(refusal(&unpinned).await, MailboxError::Tls { .. }));

        let pinned = Server {
            pin: Some(sha256(&certificate)),
            ..unpinned.clone()
        };
        let roots = Roots::of_the_system();
        // Twice: the second time the session is resumed.
        for _ in 0..2 {
            let session = Session::connect(&pinned, &roots).await.unwrap();
            assert!(session.can_idle());
        }

        let other = Server {
            pin: Some([7; 32]),
            ..unpinned
        };
        let error = refusal(&other).await;
        let hex: String = sha256(&certificate).map(|b| format!("{b:02x}")).concat();
        assert!(
            matches!(&error, MailboxError::Pin { host, found } if host == "localhost" && *found == hex),
            "{error:?}"
        );
        assert_eq!(error.class(), Class::Person);
        assert_eq!(error.code(), "mailbox-tls");
        assert!(error.hint().contains("openssl x509 -noout -fingerprint"));
    }
}

#[tokio::test]
async fn a_pin_outweighs_every_authority_and_wants_the_key_too() {
    let imap = ImapServer::start(Options::default()).await;
    let (_folder, ca_file) = written(imap.ca_pem());
    let trusted = Server {
        ca_file: Some(ca_file),
        ..server(imap.port(), Security::Tls)
    };
    assert!(connect(&trusted).await.is_ok());
    let pinned = Server {
        pin: Some([7; 32]),
        ..trusted
    };
    assert!(matches!(refusal(&pinned).await, MailboxError::Pin { .. }));

    // A certificate is public: who shows it must have its key.
    let (certificate, _) = of_an_appliance();
    let thief = KeyPair::generate().unwrap();
    let key = PrivateKeyDer::Pkcs8(thief.serialize_der().into());
    let stolen = certificate.clone();
    let provider = rustls::crypto::ring::default_provider();
    let signing = provider.key_provider.load_private_key(key).unwrap();
    let certified = Arc::new(rustls::sign::CertifiedKey::new(vec![stolen], signing));
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let serving = serving(move |tcp| {
        let accept = acceptor.accept(tcp);
        async move { accept.await?.write_all(GREETING).await }
    })
    .await;
    let pinned = Server {
        pin: Some(sha256(&certificate)),
        ..server(serving.port, Security::Tls)
    };
    assert!(matches!(refusal(&pinned).await, MailboxError::Tls { .. }));
}

#[tokio::test]
async fn a_changed_ca_file_counts_at_the_next_connection() {
    let (first, second) = (
        ImapServer::start(Options::default()).await,
        ImapServer::start(Options::default()).await,
    );
    let (_folder, ca_file) = written(first.ca_pem());
    let roots = Roots::of_the_system();
    let to = |imap: &ImapServer| Server {
        ca_file: Some(ca_file.clone()),
        ..server(imap.port(), Security::Tls)
    };
    let (to_first, to_second) = (to(&first), to(&second));
    assert!(Session::connect(&to_first, &roots).await.is_ok());
    assert!(Session::connect(&to_second, &roots).await.is_err());
    std::fs::write(&ca_file, second.ca_pem()).unwrap();
    assert!(Session::connect(&to_first, &roots).await.is_err());
    assert!(Session::connect(&to_second, &roots).await.is_ok());
}

/// Speaks in clear before TLS, then hands the line on to a server with TLS.
async fn before_tls(imap: u16, behind_the_answer: &'static [u8]) -> Serving {
    serving(move |mut client| async move {
        client.write_all(b"* OK hello\r\n").await?;
        let mut asked = [0; 13];
        client.read_exact(&mut asked).await?;
        assert_eq!(&asked, b"s1 STARTTLS\r\n");
        let answer = [b"* OK soon\r\ns1 OK begin\r\n", behind_the_answer].concat();
        client.write_all(&answer).await?;
        let mut imap = TcpStream::connect(("127.0.0.1", imap)).await?;
        copy_bidirectional(&mut client, &mut imap).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn starttls_leads_to_tls_and_nothing_comes_between() {
    let imap = ImapServer::start(Options::default()).await;
    let (_folder, ca_file) = written(imap.ca_pem());
    let front = before_tls(imap.port(), b"").await;
    let honest = Server {
        ca_file: Some(ca_file),
        ..server(front.port, Security::StartTls)
    };
    assert!(connect(&honest).await.unwrap().can_idle());

    let front = before_tls(imap.port(), b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n").await;
    let injected = Server {
        port: front.port,
        ..honest
    };
    let error = refusal(&injected).await;
    assert!(
        matches!(error, MailboxError::StartTlsInjection),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Transient);

    let goodbye =
        serving(
            |mut client| async move { client.write_all(b"* BYE too many connections\r\n").await },
        )
        .await;
    let error = refusal(&server(goodbye.port, Security::StartTls)).await;
    assert!(told(&error).contains("too many connections"), "{error:?}");
}

fn through(url: String) -> Proxy {
    Proxy::Url(Secret::new(url))
}

#[tokio::test]
async fn a_proxy_carries_the_line_and_looks_names_up_itself() {
    let imap = ImapServer::start(Options::default()).await;
    let (_folder, ca_file) = written(imap.ca_pem());
    for (scheme, kind) in [
        ("http", "connect"),
        ("socks5", "socks5"),
        ("socks5h", "socks5"),
    ] {
        let manners = Manners {
            password: Some(("me", "p@ss:word")),
            ..Manners::default()
        };
        let proxy = proxy::Proxy::start(imap.port(), manners).await;
        let url = format!("{scheme}://me:p%40ss%3Aword@localhost:{}", proxy.port());
        let behind = Server {
            ca_file: Some(ca_file.clone()),
            proxy: through(url),
            ..server(993, Security::Tls)
        };
        assert!(connect(&behind).await.is_ok(), "{scheme}");
        assert_eq!(proxy.asked(), [format!("{kind} localhost:993")]);

        // This name is in no DNS: only the proxy knows it.
        let unknown = Server {
            host: "imap.invalid".to_owned(),
            pin: Some([7; 32]),
            ..behind
        };
        let error = refusal(&unknown).await;
        assert!(matches!(error, MailboxError::Pin { .. }), "{error:?}");
        assert_eq!(proxy.asked()[1], format!("{kind} imap.invalid:993"));
    }
}

#[tokio::test]
async fn a_greeting_right_behind_the_proxys_answer_is_not_lost() {
    let imap = Scripted::answering(|_| "TAG OK\r\n".to_owned()).await;
    for scheme in ["http", "socks5"] {
        let manners = Manners {
            greets: true,
            ..Manners::default()
        };
        let proxy = proxy::Proxy::start(imap.port(), manners).await;
        let behind = Server {
            host: "127.0.0.1".to_owned(),
            proxy: through(format!("{scheme}://127.0.0.1:{}", proxy.port())),
            ..server(143, Security::Plain)
        };
        // The capabilities are those of the greeting, and no command was sent.
        assert!(connect(&behind).await.unwrap().can_idle(), "{scheme}");
        assert!(proxy.asked()[0].ends_with(" 127.0.0.1:143"));
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_let_us_through_is_named_without_its_password() {
    let refusing = Manners {
        refuses: true,
        ..Manners::default()
    };
    let asking = Manners {
        password: Some(("me", "right")),
        ..Manners::default()
    };
    for scheme in ["http", "socks5"] {
        for manners in [&refusing, &asking] {
            let proxy = proxy::Proxy::start(1, manners.clone()).await;
            let behind = Server {
                proxy: through(format!("{scheme}://me:hunter2@127.0.0.1:{}", proxy.port())),
                ..server(993, Security::Tls)
            };
            let start = std::time::Instant::now();
            let error = refusal(&behind).await;
            assert!(start.elapsed().as_secs() < 10, "the refusal was not heard");
            let name = format!("127.0.0.1:{}", proxy.port());
            assert!(
                matches!(&error, MailboxError::Proxy { proxy, .. } if *proxy == name),
                "{error:?}"
            );
            assert_eq!(error.class(), Class::Transient);
            assert_eq!(error.code(), "mailbox-unreachable");
            let told = told(&error);
            assert!(told.contains("`proxy`"), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_dead_proxy_is_not_gone_around() {
    let imap = Scripted::answering(|_| "TAG OK\r\n".to_owned()).await;
    let direct = server(imap.port(), Security::Plain);
    assert!(connect(&direct).await.is_ok());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let environment = |no: &str| Server {
        proxy: Proxy::Environment {
            https: None,
            all: Some(Secret::new(format!("socks5://127.0.0.1:{port}"))),
            no: Some(no.to_owned()),
        },
        ..direct.clone()
    };
    let error = refusal(&environment("")).await;
    assert!(matches!(error, MailboxError::Proxy { .. }), "{error:?}");
    assert!(connect(&environment("localhost")).await.is_ok());
}
