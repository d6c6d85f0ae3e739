//! The client's check of a server's certificate, by [`Expect`].

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::tls::Expect;

#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) roots: Option<Arc<WebPkiServerVerifier>>,
    pub(crate) expect: Expect,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialed: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = match &self.expect {
            Expect::Pin(pin) if Sha256::digest(end_entity)[..] == pin[..] => {
                return Ok(ServerCertVerified::assertion());
            }
            Expect::Pin(_) => return Err(CertificateError::ApplicationVerificationFailure.into()),
            Expect::Anything => return Ok(ServerCertVerified::assertion()),
            Expect::Name(name) => name,
            Expect::Host => dialed,
        };
        let roots = self.roots.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        roots.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    // Whoever shows a certificate must own its key, whatever else is asked of it.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
