//! The server's DERP key inside its TLS handshake (tailscale `derp/derpserver`, `initMetacert`).
//!
//! Sent after the real chain, where TLS 1.3 encrypts it, this certificate proves nothing and is checked by nobody. It tells
//! a client the server's key one round trip early: the client then asks for a [`crate::FastStart`].

use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};
use types::NodePublic;
use wire::derp::VERSION;

/// How clients recognize it: this, then the key's 64 hex digits, as common name.
const NAME_PREFIX: &str = "derpkey";

/// The certificate in PEM form, to append to the chain of a listener that wraps its streams in [`crate::HttpStream`].
///
/// # Errors
/// When the random source of the TLS library fails.
pub fn meta_certificate(server: &NodePublic) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    let digits = server.to_string().replace(NodePublic::PREFIX, "");
    params.distinguished_name.push(DnType::CommonName, format!("{NAME_PREFIX}{digits}"));
    params.serial_number = Some(SerialNumber::from(u64::from(VERSION)));
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    let key = KeyPair::generate()?;
    Ok(params.self_signed(&key)?.pem())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn the_key_is_the_common_name() {
        let server = NodePublic::from_bytes([0xab; 32]);
        let pem = meta_certificate(&server).unwrap();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let name = format!("derpkey{}", "ab".repeat(32));
        assert!(certificate.windows(name.len()).any(|window| window == name.as_bytes()));
    }
}
