//! The TLS side of the listener: a certificate from files, or one of the server's own in the state folder (`tls.crt`,
//! `tls.key`), which clients trust by name of the file and relays' clients by its pin in the DERP map.

use std::path::Path;

use anyhow::{Context, bail};
use rcgen::{CertificateParams, DnType, IsCa, KeyPair};
use relay::meta_certificate;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio_rustls::TlsAcceptor;
use types::NodePublic;

use crate::config::{Config, Tls};
use crate::state::{State, write_secret};

/// What the listener and the DERP map need.
pub(crate) struct Certificate {
    /// For the listener; none where TLS is off.
    pub(crate) acceptor: Option<TlsAcceptor>,
    /// `sha256-raw:` and the hash, where the certificate is the server's own.
    pub(crate) pin: Option<String>,
}

impl Certificate {
    /// As the configuration says; `derp` is told to clients in the handshake, which spares them a round trip.
    pub(crate) fn load(config: &Config, state: &State, derp: &NodePublic) -> anyhow::Result<Self> {
        let (chain, key, own) = match &config.tls {
            Tls::Off => return Ok(Self { acceptor: None, pin: None }),
            Tls::Files { cert, key } => (read(cert)?, read(key)?, false),
            Tls::SelfSigned => {
                let (chain, key) = self_signed(state, &config.url.host)?;
                (chain, key, true)
            }
        };
        let pin = if own { Some(transport::tls::pin(&leaf(&chain)?)) } else { None };
        let meta = meta_certificate(derp).context("the TLS library made no certificate")?;
        let acceptor = transport::tls::acceptor(&[chain.as_slice(), meta.as_bytes()].concat(), &key)?;
        Ok(Self { acceptor: Some(acceptor), pin })
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read the TLS file {} (--tls)", path.display()))
}

/// The server's own certificate and key; made when neither is there.
fn self_signed(state: &State, host: &str) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let (cert, key) = (state.path("tls.crt"), state.path("tls.key"));
    if !cert.exists() && !key.exists() {
        let mut params = CertificateParams::new([host.to_owned()])
            .context("--url has a host that no certificate can name")?;
        params.distinguished_name.push(DnType::CommonName, host);
        params.is_ca = IsCa::ExplicitNoCa;
        let pair = KeyPair::generate().context("the TLS library made no key")?;
        let certificate = params.self_signed(&pair).context("the TLS library made no certificate")?;
        let unwritable = || format!("cannot write {}", cert.display());
        write_secret(&key, pair.serialize_pem().as_bytes()).with_context(unwritable)?;
        write_secret(&cert, certificate.pem().as_bytes()).with_context(unwritable)?;
    }
    let chain = read(&cert)?;
    let parsed = leaf(&chain)?;
    let name = ServerName::try_from(host.to_owned()).with_context(|| format!("{host:?} is no host name"))?;
    let parsed =
        ParsedCertificate::try_from(&parsed).with_context(|| format!("{} is damaged", cert.display()))?;
    if verify_server_name(&parsed, &name).is_err() {
        bail!(
            "{} was made for another host than {host} (--url); delete it and tls.key beside it to have a new one made, \
             and give that to every machine that trusts the old one",
            cert.display()
        );
    }
    Ok((chain, read(&key)?))
}

fn leaf(chain: &[u8]) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(chain).context("the TLS certificate is not in PEM form")
}
