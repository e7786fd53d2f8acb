//! One certificate that is trusted by its fingerprint, and no other.
//!
//! Who signed it, and which names and dates stand in it, does not count: the
//! fingerprint says all of that. The server must still prove by its signature
//! over the handshake that the certificate is its own.

use std::io;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

/// Trusts the certificate with this SHA-256.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) pin: [u8; 32],
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// The server showed another certificate; its fingerprint in hex.
#[derive(Debug, thiserror::Error)]
#[error("the certificate has the fingerprint {0}")]
struct Another(String);

/// The fingerprint of the certificate that was found instead of the pinned one.
pub(super) fn found(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = error else {
        return None;
    };
    Some(other.downcast_ref::<Another>()?.0.clone())
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let fingerprint = digest(&SHA256, end_entity);
        if fingerprint.as_ref() == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        let hex = fingerprint
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"));
        let another = OtherError(Arc::new(Another(hex.collect())));
        Err(CertificateError::Other(another).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
