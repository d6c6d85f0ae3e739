//! The client's check of a server's certificate, by [`Expect`].

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::tls::Expect;

/// The roots that are believed; never empty.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    pub(crate) anchors: Arc<RootCertStore>,
    pub(crate) webpki: Arc<WebPkiServerVerifier>,
}

impl Roots {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.webpki.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // webpki lets no CA be a server, once its dates are found good; but `openssl req -x509` makes CAs, and Go's
            // verifier, hence every other client of the same network, believes a root that a server shows itself.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    /// Whether the certificate has a root's subject and key.
    fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        let mut shown = RootCertStore::empty();
        shown.add(certificate.clone()).is_ok() && self.anchors.roots.contains(&shown.roots[0])
    }
}

#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) roots: Option<Roots>,
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
        roots.verify(end_entity, intermediates, name, ocsp, now)
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
