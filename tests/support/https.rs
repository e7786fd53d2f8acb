//! An HTTPS server on loopback that remembers what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::support::authority::Certified;

/// A running server. It ends with the process.
pub struct Https {
    pub address: SocketAddr,
    /// The authority that signed its certificate, as PEM.
    pub authority: String,
}

/// What a server was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Https {
    /// Serves this on a port of its own.
    pub fn new(router: Router) -> Self {
        let certified = Certified::new(None);
        let chain = CertificateDer::pem_slice_iter(certified.certificate.as_bytes());
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (send, bound) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
                send.send(tcp.local_addr().unwrap()).unwrap();
                let tls = TlsAcceptor::from(Arc::new(config));
                axum::serve(Listener { tcp, tls }, router).await.unwrap();
            });
        });
        Self {
            address: bound.recv().unwrap(),
            authority: certified.authority,
        }
    }

    /// An address on it.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }
}

struct Listener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            // Who does not trust us hangs up.
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// Answers one after the other, and 204 when there are none left.
#[derive(Clone, Default)]
pub struct Script {
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<VecDeque<(StatusCode, HeaderMap, String)>>>,
}

impl Script {
    pub fn router(&self) -> Router {
        let script = self.clone();
        Router::new().fallback(
            async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
                script.answer(Asked {
                    method,
                    uri,
                    headers,
                    body,
                })
            },
        )
    }

    /// The next answer, with header fields.
    pub fn then(&self, status: u16, headers: &[(&'static str, &str)]) {
        self.then_with(status, headers, String::new());
    }

    /// The next answer, with a body.
    pub fn then_with(&self, status: u16, headers: &[(&'static str, &str)], body: String) {
        let status = StatusCode::from_u16(status).unwrap();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let answer = (status, headers, body);
        self.answers.lock().unwrap().push_back(answer);
    }

    /// What was asked so far; it is forgotten.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn answer(&self, asked: Asked) -> Response {
        self.asked.lock().unwrap().push(asked);
        match self.answers.lock().unwrap().pop_front() {
            Some(answer) => answer.into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        }
    }
}
