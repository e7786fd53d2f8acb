//! The way to a server: TCP, then TLS.
//!
//! Every step has a deadline. There is no way to switch the check of
//! certificates off.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::MailboxError;
use super::error::clean;

/// How long one step may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long one of a server's addresses may take to answer.
const AN_ADDRESS: Duration = Duration::from_secs(8);

/// How the line is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte (RFC 8314).
    Tls,
    /// TLS after `STARTTLS` (RFC 3501, section 6.2.1).
    StartTls,
    /// None at all.
    Plain,
}

/// Where a server is.
#[derive(Clone, Debug)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the line is protected.
    pub security: Security,
    /// Certificates (PEM) that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The largest mail that is fetched whole, in bytes.
    pub max_mail_size: u32,
}

/// The system's root certificates, read once.
#[derive(Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    /// For servers without a `ca-file`: one configuration for all of them.
    shared: Arc<ClientConfig>,
    /// For the others: one a `ca-file`, and what stood in it when it was read.
    with_file: Arc<Mutex<HashMap<PathBuf, WithFile>>>,
}

type WithFile = (Vec<u8>, Arc<ClientConfig>);

impl Roots {
    /// Reads the system's root certificates. Those that cannot be read are
    /// told of and left out: a server that needs one says so itself.
    pub fn of_the_system() -> Self {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let (taken, broken) = store.add_parsable_certificates(found.certs);
        if broken > 0 || !found.errors.is_empty() {
            tracing::debug!(
                event = "tls.roots",
                taken,
                broken,
                errors = found.errors.len(),
                "some root certificates of the system cannot be read"
            );
        }
        let store = Arc::new(store);
        Self {
            shared: Arc::new(client_config(Arc::clone(&store))),
            with_file: Arc::default(),
            store,
        }
    }

    async fn client_config(
        &self,
        ca_file: Option<&Path>,
    ) -> Result<Arc<ClientConfig>, MailboxError> {
        let Some(path) = ca_file else {
            return Ok(Arc::clone(&self.shared));
        };
        let failed = |source| MailboxError::CaFile {
            path: path.to_owned(),
            source,
        };
        let pem = tokio::fs::read(path).await.map_err(failed)?;
        let known = || {
            self.with_file
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some((read, config)) = known().get(path)
            && *read == pem
        {
            return Ok(Arc::clone(config));
        }
        let mut store = RootCertStore::clone(&self.store);
        let mut added = 0_usize;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|e| failed(io::Error::other(e)))?;
            store
                .add(certificate)
                .map_err(|e| failed(io::Error::other(e)))?;
            added = added.saturating_add(1);
        }
        if added == 0 {
            return Err(failed(io::Error::other("no certificate stands in it")));
        }
        let config = Arc::new(client_config(Arc::new(store)));
        known().insert(path.to_owned(), (pem, Arc::clone(&config)));
        Ok(config)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.store.len())
    }
}

fn client_config(roots: Arc<RootCertStore>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    #[expect(
        clippy::expect_used,
        reason = "ring offers the cipher suites of the default TLS versions, always"
    )]
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A stream to a server, whatever protects it.
pub(super) trait Line: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Line for S {}

/// Connects. With `STARTTLS` the greeting is consumed here.
pub(super) async fn line(server: &Server, roots: &Roots) -> Result<Box<dyn Line>, MailboxError> {
    let connect = |source| MailboxError::Connect {
        host: server.host.clone(),
        port: server.port,
        source,
    };
    let mut tcp = tcp(server).await.map_err(connect)?;
    tcp.set_nodelay(true).map_err(connect)?;
    if server.security == Security::Plain {
        return Ok(Box::new(tcp));
    }
    if server.security == Security::StartTls {
        within("STARTTLS", start_tls(&mut tcp)).await??;
    }
    let config = roots.client_config(server.ca_file.as_deref()).await?;
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| MailboxError::HostName(server.host.clone()))?;
    let handshake = TlsConnector::from(config).connect(name, tcp);
    let tls = within("the TLS handshake", handshake)
        .await?
        .map_err(|source| MailboxError::Tls {
            host: server.host.clone(),
            source,
        })?;
    Ok(Box::new(tls))
}

/// Tries the server's addresses one after the other. Each has a deadline of its
/// own, for one whose packets are dropped would use the time of them all up.
async fn tcp(server: &Server) -> io::Result<TcpStream> {
    let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
    let looking_up = lookup_host((server.host.as_str(), server.port));
    let addresses = tokio::time::timeout(DEADLINE, looking_up)
        .await
        .unwrap_or_else(|_| Err(timed_out()))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match tokio::time::timeout(AN_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = timed_out(),
        }
    }
    Err(last)
}

async fn within<T>(doing: &'static str, step: impl Future<Output = T>) -> Result<T, MailboxError> {
    tokio::time::timeout(DEADLINE, step)
        .await
        .map_err(|_| MailboxError::Deadline(doing))
}

/// Asks for TLS. Bytes are read one at a time, so that nothing which was sent
/// in clear can be taken for what was sent under TLS.
async fn start_tls(tcp: &mut TcpStream) -> Result<(), MailboxError> {
    let greeting = clear_line(tcp).await?;
    if !greeting.to_ascii_uppercase().starts_with("* OK") {
        return Err(MailboxError::NotImap(clean(&greeting)));
    }
    tcp.write_all(b"s1 STARTTLS\r\n")
        .await
        .map_err(|error| MailboxError::from_stream("STARTTLS", error))?;
    loop {
        let answer = clear_line(tcp).await?.to_ascii_uppercase();
        if answer.starts_with("S1 OK") {
            return Ok(());
        }
        if answer.starts_with("S1 ") {
            return Err(MailboxError::NoStartTls);
        }
    }
}

async fn clear_line(tcp: &mut TcpStream) -> Result<String, MailboxError> {
    let mut line = Vec::new();
    loop {
        let byte = tcp
            .read_u8()
            .await
            .map_err(|error| MailboxError::from_stream("STARTTLS", error))?;
        match byte {
            b'\n' => return Ok(String::from_utf8_lossy(&line).trim().to_owned()),
            _ if line.len() > 4096 => return Err(MailboxError::Unparsable("STARTTLS")),
            _ => line.push(byte),
        }
    }
}
