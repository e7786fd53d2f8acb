//! Whom we trust: the system's roots, those of a `ca-file`, or one pinned
//! certificate.
//!
//! A rustls configuration holds all the roots, so mailboxes that trust the same
//! share one.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::super::MailboxError;
use super::pin::Pinned;

/// How many TLS sessions are kept for resumption: eight for each of as many
/// servers as that makes. Each holds the server's certificates.
const SESSIONS: usize = 64;

/// The system's root certificates, read once. Clones are the same roots.
#[derive(Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    /// For servers without a `ca-file`: one configuration for all of them.
    shared: Arc<ClientConfig>,
    others: Arc<Mutex<Others>>,
}

/// The configurations of those that trust somebody else. There is one for each
/// `ca-file` and pin of the configuration at most.
#[derive(Default)]
struct Others {
    /// By the file, with the SHA-256 of what stood in it.
    files: HashMap<PathBuf, (Fingerprint, Arc<ClientConfig>)>,
    pins: HashMap<Fingerprint, Arc<ClientConfig>>,
}

type Fingerprint = [u8; 32];

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
        let shared = Arc::new(trusting(store.clone()));
        Self {
            store: Arc::new(store),
            shared,
            others: Arc::default(),
        }
    }

    /// The TLS configuration that trusts the system's roots and those in the
    /// file (PEM). The file is read each time, so that a changed one counts at
    /// once; files with the same content share a configuration.
    ///
    /// # Errors
    ///
    /// [`MailboxError::CaFile`]: the file cannot be read, or is no PEM with
    /// certificates.
    pub async fn client_config(
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
        let content = sha256(&pem);
        // The lock is held while one is made, so that many who come at once
        // make one only.
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = others
            .files
            .get(path)
            .into_iter()
            .chain(others.files.values());
        let config = match known.find(|(known, _)| *known == content) {
            Some((_, config)) => Arc::clone(config),
            None => Arc::new(trusting(self.with(&pem).map_err(failed)?)),
        };
        let entry = (content, Arc::clone(&config));
        others.files.insert(path.to_owned(), entry);
        Ok(config)
    }

    /// The TLS configuration that trusts this one certificate.
    pub(super) fn pinned(&self, pin: Fingerprint) -> Arc<ClientConfig> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let config = others.pins.entry(pin).or_insert_with(|| {
            let provider = provider();
            let verifier = Pinned {
                pin,
                algorithms: provider.signature_verification_algorithms,
            };
            let config = versions(provider)
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth();
            Arc::new(remembering(config))
        });
        Arc::clone(config)
    }

    /// Our roots and those of a file.
    fn with(&self, pem: &[u8]) -> io::Result<RootCertStore> {
        let mut store = RootCertStore::clone(&self.store);
        let mut added = 0_usize;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(io::Error::other)?;
            store.add(certificate).map_err(io::Error::other)?;
            added = added.saturating_add(1);
        }
        if added == 0 {
            return Err(io::Error::other("no certificate stands in it"));
        }
        Ok(store)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.store.len())
    }
}

fn sha256(bytes: &[u8]) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(digest(&SHA256, bytes).as_ref());
    fingerprint
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn versions(provider: Arc<CryptoProvider>) -> ConfigBuilder<ClientConfig, WantsVerifier> {
    #[expect(
        clippy::expect_used,
        reason = "ring offers the cipher suites of TLS 1.2 and 1.3, always"
    )]
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("ring knows TLS 1.2 and 1.3")
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    let config = versions(provider())
        .with_root_certificates(roots)
        .with_no_client_auth();
    remembering(config)
}

fn remembering(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> String {
        let names = vec!["localhost".to_owned()];
        rcgen::generate_simple_self_signed(names)
            .unwrap()
            .cert
            .pem()
    }

    #[tokio::test]
    async fn those_who_trust_the_same_share_and_a_changed_file_counts() {
        let roots = Roots::of_the_system();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| {
            use std::io::Write;
            let mut out = std::fs::File::create(file(name)).unwrap();
            out.write_all(text.as_bytes()).unwrap();
        };
        let (first, second) = (certificate(), certificate());
        write("a.pem", &first);
        write("b.pem", &first);
        let config = async |name: &str| roots.clone().client_config(Some(&file(name))).await;
        let a = config("a.pem").await.unwrap();
        assert!(Arc::ptr_eq(&a, &config("a.pem").await.unwrap()));
        assert!(Arc::ptr_eq(&a, &config("b.pem").await.unwrap()));

        write("a.pem", &second);
        let changed = config("a.pem").await.unwrap();
        assert!(!Arc::ptr_eq(&a, &changed));
        assert!(Arc::ptr_eq(&changed, &config("a.pem").await.unwrap()));
        assert!(Arc::ptr_eq(&a, &config("b.pem").await.unwrap()));

        for (text, name) in [("", "empty"), ("-----BEGIN CERTIFICATE-----\nx", "broken")] {
            write("a.pem", text);
            let error = config("a.pem").await.unwrap_err();
            assert!(matches!(error, MailboxError::CaFile { .. }), "{name}");
        }
        let none = config("none.pem").await.unwrap_err();
        assert!(matches!(none, MailboxError::CaFile { .. }));
        assert!(Arc::ptr_eq(
            &roots.client_config(None).await.unwrap(),
            &roots.shared
        ));
    }

    #[test]
    fn each_pin_has_one_configuration() {
        let roots = Roots::of_the_system();
        let one = roots.pinned([1; 32]);
        assert!(Arc::ptr_eq(&one, &roots.clone().pinned([1; 32])));
        assert!(!Arc::ptr_eq(&one, &roots.pinned([2; 32])));
    }
}
