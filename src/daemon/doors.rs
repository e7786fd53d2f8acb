//! The way into the mailboxes, for all that go in: the lines, a resync, the
//! doctor.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hyper::Uri;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::InboxError;
use super::gate::{Gate, Inside};
use crate::config::{self, Config, Tls};
use crate::http::{Http, HttpError};
use crate::mailbox::{Credential, MailboxError, Proxy, Roots, Security, Server, Session};
use crate::secret::Secret;

/// So many connect at once: a thousand that come back in the same instant
/// would keep each other from it. But nobody waits for those whose server is
/// dead.
const CONNECTING: usize = 64;
const TURN: Duration = Duration::from_secs(10);

/// How long a server may be silent while it owes an answer; but it must have
/// been heard within `idle-renew` and half a minute.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(20);

/// The way into the mailboxes.
#[derive(Clone)]
pub(super) struct Doors {
    roots: Roots,
    gates: Arc<BTreeMap<String, Gate>>,
    connecting: Arc<Semaphore>,
}

impl Doors {
    pub(super) fn new(config: &Config) -> Self {
        let gates = config.mailboxes.iter().map(|mailbox| {
            let gate = Gate::new(mailbox.max_connections);
            (mailbox.name.clone(), gate)
        });
        Self {
            roots: Roots::of_the_system(),
            gates: Arc::new(gates.collect()),
            connecting: Arc::new(Semaphore::new(CONNECTING)),
        }
    }

    /// The way to a server that is asked over HTTPS.
    pub(super) async fn http(
        &self,
        ca_file: Option<&Path>,
        through: &config::Proxy,
        url: &str,
    ) -> Result<Http, WayError> {
        let tls = self.roots.client_config(ca_file).await?;
        let address: Option<Uri> = url.parse().ok();
        let host = address.as_ref().and_then(Uri::host).unwrap_or_default();
        let through = proxy(through);
        let through = through.url_for(host).map(Secret::expose);
        Ok(Http::new(rustls::ClientConfig::clone(&tls), through)?)
    }

    /// Whether the certificates of a `ca-file` can be read.
    pub(super) async fn trust(&self, ca_file: &Path) -> Result<(), InboxError> {
        self.roots.client_config(Some(ca_file)).await?;
        Ok(())
    }

    /// The gate of a mailbox, which is one of the configuration's.
    pub(super) fn gate(&self, mailbox: &str) -> &Gate {
        static STRANGERS: LazyLock<Gate> = LazyLock::new(|| Gate::new(1));
        self.gates.get(mailbox).unwrap_or(&STRANGERS)
    }

    /// Connects; the greeting is read, nothing more. Others wait for their turn
    /// until what comes with the session is dropped.
    pub(super) async fn connect(
        &self,
        mailbox: &config::Mailbox,
    ) -> Result<(Session, Turn), InboxError> {
        let turn = Arc::clone(&self.connecting).acquire_owned();
        let permit = tokio::time::timeout(TURN, turn).await;
        let permit = Turn(permit.ok().and_then(Result::ok));
        let session = Session::connect(&server(mailbox), &self.roots).await?;
        Ok((session, permit))
    }

    /// Logs in, through the mailbox's gate, within the time that a server may
    /// take for one answer.
    pub(super) async fn log_in(
        &self,
        session: &mut Session,
        mailbox: &config::Mailbox,
        credential: &Credential,
    ) -> Result<Inside, InboxError> {
        // Each access token is another one, and the person behind them is not.
        let secret = match credential {
            Credential::Password(password) => Some(password),
            Credential::Bearer(_) => None,
        };
        let login = async {
            let login = session.log_in(&mailbox.user, credential);
            match tokio::time::timeout(PATIENCE, login).await {
                Ok(ended) => Ok(ended?),
                Err(_) => Err(MailboxError::LoginDropped.into()),
            }
        };
        self.gate(&mailbox.name).pass(secret, login).await
    }
}

/// There is no way to a server that is asked over HTTPS.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// The certificates cannot be read.
    #[error(transparent)]
    Roots(#[from] MailboxError),
    /// The proxy cannot be used.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// Somebody who is logged in.
pub(super) struct Entered {
    pub(super) session: Session,
    pub(super) _inside: Inside,
}

/// A turn to connect.
pub(super) struct Turn(
    #[expect(dead_code, reason = "it is there to be dropped")] Option<OwnedSemaphorePermit>,
);

fn server(mailbox: &config::Mailbox) -> Server {
    Server {
        host: mailbox.host.clone(),
        port: mailbox.port,
        security: match mailbox.tls {
            Tls::Implicit => Security::Tls,
            Tls::StartTls => Security::StartTls,
            Tls::None => Security::Plain,
        },
        ca_file: mailbox.ca_file.clone(),
        pin: mailbox.tls_pin,
        proxy: match mailbox.tls {
            // It is for this machine alone.
            Tls::None => Proxy::None,
            Tls::Implicit | Tls::StartTls => proxy(&mailbox.proxy),
        },
        max_mail_size: mailbox.max_mail_size,
        patience: PATIENCE.min(mailbox.idle_renew.saturating_add(ANSWER)),
    }
}

/// What stands between a server and us, as the room has it.
pub(super) fn proxy(proxy: &config::Proxy) -> Proxy {
    match proxy.clone() {
        config::Proxy::None => Proxy::None,
        config::Proxy::Url(url) => Proxy::Url(Secret::new(url)),
        config::Proxy::Environment { https, all, no } => Proxy::Environment { https, all, no },
    }
}
