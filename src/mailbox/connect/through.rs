//! Through a proxy: SOCKS5 (RFC 1928, with the passwords of RFC 1929), or
//! CONNECT of HTTP (RFC 9110, section 9.3.6).
//!
//! The proxy is given the server's name and looks it up itself.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::Uri;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::{ServiceExt, service_fn};

use super::{DEADLINE, tcp};
use crate::mailbox::MailboxError;

/// The way to one server through one proxy.
pub(super) struct Route {
    pub(super) kind: Kind,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) proxy: Intercept,
    pub(super) destination: Uri,
}

/// How the proxy is spoken to.
pub(super) enum Kind {
    Socks,
    Tunnel,
}

type Unwilling = Box<dyn Error + Send + Sync>;

impl Route {
    /// Connects to the proxy, and lets it connect to the server.
    pub(super) async fn connect(&self) -> Result<TcpStream, MailboxError> {
        let failed = |source| MailboxError::Proxy {
            proxy: format!("{}:{}", self.host, self.port),
            source,
        };
        let tcp = tcp::to(&self.host, self.port)
            .await
            .map_err(|error| failed(error.into()))?;
        timeout(DEADLINE, self.ask(tcp))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            .map_err(failed)
    }

    async fn ask(&self, tcp: TcpStream) -> Result<TcpStream, Unwilling> {
        let mut connected = Some(Sip(tcp));
        let connector = service_fn(move |_: Uri| {
            let sip = connected.take().ok_or(io::ErrorKind::NotConnected);
            std::future::ready(sip.map(TokioIo::new).map_err(io::Error::from))
        });
        let (proxy, destination) = (self.proxy.uri().clone(), self.destination.clone());
        let through = match self.kind {
            Kind::Tunnel => {
                let mut tunnel = Tunnel::new(proxy, connector);
                if let Some(basic) = self.proxy.basic_auth() {
                    tunnel = tunnel.with_auth(basic.clone());
                }
                tunnel.oneshot(destination).await?
            }
            Kind::Socks => {
                let mut socks = SocksV5::new(proxy, connector);
                if let Some((user, password)) = self.proxy.raw_auth() {
                    socks = socks.with_auth(user.to_owned(), password.to_owned());
                }
                socks.oneshot(destination).await?
            }
        };
        Ok(through.into_inner().0)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({}:{})", self.host, self.port)
    }
}

/// A connection that is read a byte at a time. hyper-util 0.1 drops what it
/// has read behind a proxy's answer (seen 2026-11), and an IMAP server speaks
/// first: its greeting may stand there.
struct Sip(TcpStream);

impl AsyncRead for Sip {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() > 0 {
            let mut byte = [0];
            let mut one = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut self.0).poll_read(cx, &mut one))?;
            buf.put_slice(one.filled());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sip {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
