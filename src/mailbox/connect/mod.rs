//! The way to a server: TCP, a proxy where there is one, then TLS.
//!
//! Every step has a deadline, and so has the whole. There is no way to switch
//! the check of certificates off: a pin names the one certificate that is
//! trusted.

mod pin;
mod proxy;
mod roots;
mod starttls;
mod tcp;
mod through;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::MailboxError;

pub use proxy::Proxy;
pub use roots::Roots;

/// How long one step may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long all of them may take together.
const WHOLE: Duration = Duration::from_secs(75);

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
    /// SHA-256 of the server's certificate (DER). With it, that certificate is
    /// trusted and no other, whoever signed it; `ca_file` is not read.
    pub pin: Option<[u8; 32]>,
    /// What the connection goes through.
    pub proxy: Proxy,
    /// The largest mail that is fetched whole, in bytes.
    pub max_mail_size: u32,
    /// How long the server may be silent while it owes an answer.
    pub patience: Duration,
}

/// A stream to a server, whatever protects it.
pub(super) trait Line: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Line for S {}

/// Connects. With `STARTTLS` the greeting is consumed here.
pub(super) async fn line(server: &Server, roots: &Roots) -> Result<Box<dyn Line>, MailboxError> {
    tokio::time::timeout(WHOLE, Box::pin(steps(server, roots)))
        .await
        .map_err(|_| MailboxError::Deadline("the connection"))?
}

async fn steps(server: &Server, roots: &Roots) -> Result<Box<dyn Line>, MailboxError> {
    if server.security == Security::Plain {
        return Ok(Box::new(tcp(server).await?));
    }
    // What is wrong with the configuration is said before anybody is called.
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| MailboxError::HostName(server.host.clone()))?;
    let config = match server.pin {
        Some(pin) => roots.pinned(pin),
        None => roots.client_config(server.ca_file.as_deref()).await?,
    };
    let mut tcp = tcp(server).await?;
    if server.security == Security::StartTls {
        within("STARTTLS", starttls::ask(&mut tcp)).await??;
    }
    let handshake = TlsConnector::from(config).connect(name, tcp);
    let tls = within("the TLS handshake", handshake)
        .await?
        .map_err(|source| {
            let host = server.host.clone();
            match pin::found(&source) {
                Some(found) => MailboxError::Pin { host, found },
                None if is_no_tls(&source) => MailboxError::NotTls { host, source },
                None => MailboxError::Tls { host, source },
            }
        })?;
    Ok(Box::new(tls))
}

/// Whether what the server sent is nothing of TLS, such as a greeting in clear.
fn is_no_tls(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(error, Some(rustls::Error::InvalidMessage(_)))
}

async fn tcp(server: &Server) -> Result<TcpStream, MailboxError> {
    if let Some(route) = server.proxy.route(&server.host, server.port)? {
        return route.connect().await;
    }
    tcp::to(&server.host, server.port)
        .await
        .map_err(|source| MailboxError::Connect {
            host: server.host.clone(),
            port: server.port,
            source,
        })
}

async fn within<T>(doing: &'static str, step: impl Future<Output = T>) -> Result<T, MailboxError> {
    tokio::time::timeout(DEADLINE, step)
        .await
        .map_err(|_| MailboxError::Deadline(doing))
}
