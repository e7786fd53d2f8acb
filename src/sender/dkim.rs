//! DKIM signatures (RFC 6376), verified by mail-auth, with their keys from the DNS.
//!
//! Only signatures whose domain aligns with `From` are looked at, and at most
//! [`MAX_SIGNATURES`] of them, so that a mail cannot make us ask the DNS about
//! other people's names. A signature that does not cover `From`, or that
//! covers only a part of the body (`l=`), is none.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::system_conf::read_system_conf;
use mail_auth::common::crypto::Algorithm;
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, MessageAuthenticator, Parameters, ResolverCache,
    Txt,
};
use mail_parser::Message;

use super::{Distrust, Proof, Uncertainty, Verdict, aligned};

/// How many aligned signatures of one mail are looked at.
const MAX_SIGNATURES: usize = 4;

/// How long all look-ups for one mail may take together.
const DEADLINE: Duration = Duration::from_secs(15);

/// How many keys are remembered. Salesforce uses a handful.
const MAX_CACHED: usize = 128;

/// Where DKIM keys come from: the DNS, through a cache.
#[derive(Clone)]
pub struct Keys {
    servers: Arc<[SocketAddr]>,
    resolver: Arc<Mutex<Arc<MessageAuthenticator>>>,
    cache: Arc<Cache>,
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

    fn resolver(&self) -> Arc<MessageAuthenticator> {
        let resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&resolver)
    }

    /// After a failure: the system's resolvers may be others by now, and they
    /// were read when this began.
    fn renew(&self) {
        match resolver(&self.servers) {
            Ok(fresh) => {
                *self.resolver.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
            }
            Err(error) => {
                tracing::debug!(event = "dns.renew", %error, "the resolver stays as it is");
            }
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

/// What the signatures say.
pub(super) enum Answer {
    /// No aligned signature that could count.
    NoSignature,
    /// The verdict.
    Verdict(Verdict),
}

pub(super) async fn verify(
    raw: &[u8],
    parsed: &Message<'_>,
    from_domain: &str,
    keys: &Keys,
) -> Answer {
    // `strict`: signatures with `l=` are turned into errors by mail-auth.
    let mut message = AuthenticatedMessage::from_parsed(parsed, raw, true);
    message.dkim_headers.retain(|header| {
        aligned(&header.header.d, from_domain)
            && header
                .header
                .h
                .iter()
                .any(|name| name.eq_ignore_ascii_case("from"))
            && header.header.l == 0
            // RFC 8301, section 3.1: SHA-1 signatures are none.
            && header.header.a != Algorithm::RsaSha1
    });
    message.dkim_headers.truncate(MAX_SIGNATURES);
    for header in &mut message.dkim_headers {
        // No reports to anyone (RFC 6651): they would be look-ups for a stranger.
        header.header.r = false;
        header.header.atps = None;
    }
    if message.dkim_headers.is_empty() {
        return Answer::NoSignature;
    }
    let parameters = Parameters::new(&message).with_txt_cache(keys.cache.as_ref());
    let resolver = keys.resolver();
    let Ok(outputs) = tokio::time::timeout(DEADLINE, resolver.verify_dkim(parameters)).await else {
        keys.renew();
        return undecided("no answer in time");
    };
    let outputs: Vec<&DkimOutput<'_>> = outputs
        .iter()
        .filter(|output| output.signature().is_some())
        .collect();
    if let Some(signature) = outputs
        .iter()
        .find(|output| *output.result() == DkimResult::Pass)
        .and_then(|output| output.signature())
    {
        return Answer::Verdict(Verdict::Trusted(Proof::Dkim {
            domain: signature.d.clone(),
            selector: signature.s.clone(),
            date_signed: signature
                .h
                .iter()
                .any(|name| name.eq_ignore_ascii_case("date")),
        }));
    }
    let mut why = String::from("no result");
    for output in outputs {
        match output.result() {
            // A failure that may pass away outweighs one that will not.
            DkimResult::TempError(error) => {
                keys.renew();
                return undecided(&error.to_string());
            }
            DkimResult::Fail(error) | DkimResult::Neutral(error) | DkimResult::PermError(error) => {
                why = error.to_string();
            }
            DkimResult::Pass | DkimResult::None => {}
        }
    }
    Answer::Verdict(Verdict::Untrusted(Distrust::DkimFailed(why)))
}

fn undecided(why: &str) -> Answer {
    Answer::Verdict(Verdict::Undecided(Uncertainty::Dns(why.to_owned())))
}

/// Keys that were looked up, until their time to live is over.
#[derive(Default)]
struct Cache(Mutex<HashMap<Box<str>, (Txt, Instant)>>);

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
