//! Sinks as a configuration names them, without the daemon.

use std::io::Write;
use std::path::Path;

use tokenwatch::config::{Config, SecretSource};
use tokenwatch::daemon::{self, UnusableSink};
use tokenwatch::secret::Secret;
use tokenwatch::sink::{Credential, Delivered, Secrets, Sink, SinkError};

/// One receiver of a configuration, and the secrets that it needs.
pub struct Receiver {
    pub sink: Sink,
    pub secrets: Secrets,
}

impl Receiver {
    /// The first `[[sink]]` of a configuration that lies in this folder. What is in the vault is
    /// what stands in `vault`; files are read.
    pub async fn new(
        folder: &Path,
        configuration: &str,
        vault: &[(&str, &str)],
    ) -> Result<Self, SinkError> {
        let path = folder.join("tokenwatch.toml");
        let text = format!("state-dir = '/nowhere'\n{configuration}");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let config = Config::load(Some(&path)).unwrap();
        let written = config.sinks.first().unwrap();
        let read = |name: &str, source: &SecretSource| match source {
            SecretSource::Vault => {
                let kept = vault.iter().find(|(known, _)| *known == name);
                kept.map(|(_, secret)| Secret::new((*secret).to_owned()))
            }
            SecretSource::File(path) => {
                let text = std::fs::read_to_string(path).unwrap();
                Some(Secret::new(text.trim_end_matches('\n').to_owned()))
            }
            SecretSource::Credential(_) | SecretSource::Command(_) => panic!("{source:?}"),
        };
        let mut secrets = Secrets::default();
        for (name, source) in written.secrets() {
            let Some(secret) = read(&name, source) else {
                continue;
            };
            match name.split('/').nth(2) {
                Some(header) => secrets.headers.push((header.to_owned(), secret)),
                None => secrets.key = Some(secret),
            }
        }
        match daemon::sink(&config, written).await {
            Ok(sink) => Ok(Self { sink, secrets }),
            Err(UnusableSink::Sink(error)) => Err(error),
            Err(UnusableSink::Way(error)) => panic!("{error}"),
        }
    }

    pub async fn deliver(&self, credential: &Credential) -> Result<Delivered, SinkError> {
        self.sink.deliver(credential, &self.secrets).await
    }
}

/// A credential of Mariana's with this secret.
pub fn credential(secret: &str) -> Credential {
    Credential {
        username: "mariana@idalko.com".into(),
        secret: Secret::new(secret.into()),
        version: 3,
        fingerprint: "0f1e2d3c".into(),
        id: "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W".into(),
        received: Some("2026-11-24T15:00:00Z".parse().unwrap()),
    }
}
