//! The keys that signatures are verified with: the DNS, through a cache.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::system_conf::read_system_conf;
use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::{MessageAuthenticator, ResolverCache, Txt};

/// How long all look-ups for the signatures of one mail may take together, and
/// as long again those for its seals.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);

/// How many keys are remembered. Salesforce uses a handful.
const MAX_CACHED: usize = 128;

/// Where DKIM keys come from: the DNS, through a cache.
#[derive(Clone)]
pub struct Keys {
    servers: Arc<[SocketAddr]>,
    resolver: Arc<Mutex<Arc<MessageAuthenticator>>>,
    pub(super) cache: Arc<Cache>,
}

/// Why a key that fits is not relied on.
pub(super) enum Objection {
    /// Its record says so.
    Says(&'static str),
    /// The cache has let it go since it was used.
    NotAtHand,
}

/// The resolver could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The system's resolver configuration could not be read.
    #[error("the system's resolver configuration cannot be read")]
    SystemConfiguration(#[source] NetError),
    /// The resolver does not start.
    #[error("the resolver does not start")]
    Start(#[source] NetError),
}

impl Keys {
    /// A resolver that asks `servers`, or the system's where there are none.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, KeysError> {
        Ok(Self {
            resolver: Arc::new(Mutex::new(resolver(servers)?)),
            servers: servers.into(),
            cache: Arc::default(),
        })
    }

    pub(super) fn resolver(&self) -> Arc<MessageAuthenticator> {
        let resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&resolver)
    }

    /// After a failure: the system's resolvers may be others by now, and they
    /// were read when this began.
    pub(super) fn renew(&self) {
        match resolver(&self.servers) {
            Ok(fresh) => {
                *self.resolver.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
            }
            Err(error) => {
                tracing::debug!(event = "dns.renew", %error, "the resolver stays as it is");
            }
        }
    }

    /// Whether the record of a key that has just verified a signature says that
    /// it must not be relied on. mail-auth 0.13.3 reads these tags and does not
    /// act on them (RFC 6376, section 3.6.1).
    pub(super) fn objection(&self, selector: &str, domain: &str) -> Option<Objection> {
        static TESTING: LazyLock<u64> = LazyLock::new(|| {
            // The library keeps the bit to itself, so it is asked for it.
            DomainKey::parse(
                b"v=DKIM1; t=y; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            )
            .map_or(u64::MAX, |key| key.f)
        });
        let name = format!("{selector}._domainkey.{domain}.");
        let cache = self.cache.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((Txt::DomainKey(key), _)) = cache.get(name.as_str()) else {
            return Some(Objection::NotAtHand);
        };
        let hashes = HashAlgorithm::Sha1 as u64 | HashAlgorithm::Sha256 as u64;
        if key.f & *TESTING != 0 {
            Some(Objection::Says("its key is in testing mode (t=y)"))
        } else if key.f & hashes != 0 && !key.has_flag(HashAlgorithm::Sha256) {
            Some(Objection::Says(
                "its key is for another hash algorithm (h=)",
            ))
        } else {
            None
        }
    }

    /// Whether the DNS answers at all: a name that need not exist is asked for.
    pub async fn probe(&self, name: &str) -> Result<(), String> {
        match tokio::time::timeout(DEADLINE, self.resolver().txt_raw_lookup(name)).await {
            Ok(Ok(_) | Err(mail_auth::Error::Dns(mail_auth::DnsError::RecordNotFound(_)))) => {
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<Arc<MessageAuthenticator>, KeysError> {
    let (config, mut options) = if servers.is_empty() {
        read_system_conf().map_err(KeysError::SystemConfiguration)?
    } else {
        let servers = servers.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut server.connections {
                connection.port = address.port();
            }
            server
        });
        (
            ResolverConfig::from_parts(None, Vec::new(), servers.collect()),
            ResolverOpts::default(),
        )
    };
    options.timeout = Duration::from_secs(4);
    options.attempts = 2;
    MessageAuthenticator::new(config, options)
        .map(Arc::new)
        .map_err(KeysError::Start)
}

/// Keys that were looked up, until their time to live is over.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<Box<str>, (Txt, Instant)>>);

impl ResolverCache<Box<str>, Txt> for Cache {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .get(name)
            .filter(|(_, until)| *until > Instant::now())
            .map(|(record, _)| record.clone())
    }

    fn remove<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.remove(name).map(|(record, _)| record)
    }

    fn insert(&self, name: Box<str>, record: Txt, until: Instant) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_CACHED {
            let now = Instant::now();
            cache.retain(|_, (_, until)| *until > now);
            if cache.len() >= MAX_CACHED {
                cache.clear();
            }
        }
        cache.insert(name, (record, until));
    }
}
