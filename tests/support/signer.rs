//! Signs mails with DKIM as Salesforce would, with a key of our own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;

/// A signing key.
pub struct Signer {
    pkcs8: Vec<u8>,
}

impl Signer {
    pub fn new() -> Self {
        Self {
            pkcs8: Ed25519Key::generate_pkcs8().unwrap(),
        }
    }

    fn key(&self) -> Ed25519Key {
        Ed25519Key::from_pkcs8_der(&self.pkcs8).unwrap()
    }

    /// The record that belongs under `SELECTOR._domainkey.DOMAIN`.
    pub fn record(&self) -> String {
        let public = STANDARD.encode(self.key().public_key());
        format!("v=DKIM1; k=ed25519; p={public}")
    }

    /// The mail with its signature on top.
    pub fn sign(&self, mail: &[u8], domain: &str, selector: &str, headers: &[&str]) -> Vec<u8> {
        let signature = DkimSigner::from_key(self.key())
            .domain(domain)
            .selector(selector)
            .headers(headers.iter().copied())
            .sign(mail)
            .unwrap();
        let mut signed = signature.to_header().into_bytes();
        signed.extend(mail);
        signed
    }
}
