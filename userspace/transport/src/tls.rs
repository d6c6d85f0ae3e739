//! TLS, both ends: whom a client believes, and what a server shows.
//!
//! A client believes the machine's own trust store (`SSL_CERT_FILE` and `SSL_CERT_DIR` replace it, as for every other
//! program) and one more file of roots; or, for a relay with a pin in the DERP map, exactly one certificate.
//! Source of the pin's form: tailscale `net/tlsdial`, `derp/derphttp`.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::stream::Stream;
use crate::tls_verify::{Roots, Verifier};

/// What a pin begins with in the DERP map's `CertName`.
const PIN: &str = "sha256-raw:";
/// An upgrade is HTTP/1.1's; HTTP/2 is spoken inside of Noise only.
const ALPN: &[u8] = b"http/1.1";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate file cannot be used.
    #[error("{what}: {why}")]
    Config {
        /// Which file or setting.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate is not one to believe.
    #[error("the TLS certificate of {host} is not trusted: {why}. {TRUST_HINT}")]
    Untrusted {
        /// Whom the client meant to reach.
        host: String,
        /// What is wrong with the certificate.
        why: rustls::Error,
    },
    /// The certificate is not valid now; as often as not it is this machine's clock.
    #[error(
        "the TLS certificate of {host} is not valid at this machine's time: {why}. Check the clock of both"
    )]
    Clock {
        /// Whom the client meant to reach.
        host: String,
        /// Expired, or not valid yet.
        why: rustls::Error,
    },
    /// What came back is not TLS.
    #[error("{host} does not speak TLS on this port (is it http, not https?)")]
    NotTls {
        /// Whom the client meant to reach.
        host: String,
    },
    /// The connection broke, or the handshake failed for another reason.
    #[error("TLS with {host}: {source}")]
    Io {
        /// Whom the client meant to reach.
        host: String,
        /// What happened.
        source: io::Error,
    },
}

const TRUST_HINT: &str = "For a private or self-signed certificate, name its PEM file in SSL_CERT_FILE";

/// What a server's certificate must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Valid for the dialed host.
    Host,
    /// Valid for another name, which is not sent in clear.
    Name(ServerName<'static>),
    /// The one with this SHA-256 of its DER form; nothing else about it matters, not even its dates.
    Pin([u8; 32]),
    /// Anything; for tests, when the DERP map says `InsecureForTests`.
    Anything,
}

impl Expect {
    /// From a DERP node's `CertName`: empty, a name, or `sha256-raw:` and 64 hex digits.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn from_cert_name(cert_name: &str) -> Result<Self, TlsError> {
        let config = |why: String| TlsError::Config { what: format!("CertName {cert_name:?}"), why };
        if cert_name.is_empty() {
            return Ok(Self::Host);
        }
        if let Some(digits) = cert_name.strip_prefix(PIN) {
            let mut pin = [0; 32];
            hex::decode_to_slice(digits, &mut pin).map_err(|error| config(error.to_string()))?;
            return Ok(Self::Pin(pin));
        }
        let name: Result<_, InvalidDnsNameError> = cert_name.to_owned().try_into();
        name.map(Self::Name).map_err(|error| config(error.to_string()))
    }
}

/// A certificate's pin in the form of `CertName`.
pub fn pin(certificate: &CertificateDer<'_>) -> String {
    format!("{PIN}{}", hex::encode(Sha256::digest(certificate)))
}

/// The roots a client believes; read once, shared by all connections.
#[derive(Clone)]
pub struct Trust {
    /// `None` when there are no roots at all: then only pins are believed.
    roots: Arc<LazyRoots>,
    provider: Arc<CryptoProvider>,
}

/// Hundreds of files, ten milliseconds: read in the background, and waited for by the first who needs them.
type LazyRoots = LazyLock<Option<Roots>, Box<dyn FnOnce() -> Option<Roots> + Send>>;

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({})", if self.roots().is_some() { "roots" } else { "pins only" })
    }
}

impl Trust {
    /// The machine's roots and those in the PEM file `extra`. A machine without roots is not an error.
    ///
    /// # Errors
    /// When `extra` cannot be read or holds no certificate.
    pub fn system(extra: Option<&Path>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = extra {
            let what = || format!("CA file {}", path.display());
            let pem =
                std::fs::read(path).map_err(|e| TlsError::Config { what: what(), why: e.to_string() })?;
            add_pem(&mut roots, &pem).map_err(|why| TlsError::Config { what: what(), why })?;
        }
        let trust = Self::of(move |provider| {
            let native = rustls_native_certs::load_native_certs();
            for error in native.errors {
                tracing::warn!("trust store: {error}");
            }
            roots.add_parsable_certificates(native.certs);
            verified_by(roots, provider)
        });
        let early = trust.roots.clone();
        std::thread::spawn(move || LazyLock::force(&early).is_some());
        Ok(trust)
    }

    /// Only the roots in this PEM text.
    ///
    /// # Errors
    /// When it holds no certificate, or one that cannot be a root.
    pub fn pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        add_pem(&mut roots, pem)
            .map_err(|why| TlsError::Config { what: "CA certificates".to_owned(), why })?;
        Ok(Self::of(move |provider| verified_by(roots, provider)))
    }

    fn of(load: impl FnOnce(Arc<CryptoProvider>) -> Option<Roots> + Send + 'static) -> Self {
        let provider = Arc::new(default_provider());
        let for_roots = provider.clone();
        let load: Box<dyn FnOnce() -> Option<Roots> + Send> = Box::new(move || load(for_roots));
        Self { roots: Arc::new(LazyLock::new(load)), provider }
    }

    fn roots(&self) -> Option<&Roots> {
        self.roots.as_ref().as_ref()
    }

    /// TLS on `stream` as a client of `host`, a name or an address.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn connect<S: Stream>(
        &self,
        stream: S,
        host: &str,
        expect: &Expect,
    ) -> Result<TlsStream<S>, TlsError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name: ServerName<'static> =
            bare.to_owned().try_into().map_err(|error: InvalidDnsNameError| TlsError::Config {
                what: format!("host {host:?}"),
                why: error.to_string(),
            })?;
        let verifier = Verifier {
            roots: self.roots().cloned(),
            expect: expect.clone(),
            provider: self.provider.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Config { what: "TLS versions".to_owned(), why: error.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| classify(host, error))
    }
}

fn verified_by(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Option<Roots> {
    if roots.is_empty() {
        return None;
    }
    let anchors = Arc::new(roots);
    let webpki = WebPkiServerVerifier::builder_with_provider(anchors.clone(), provider)
        .build()
        .inspect_err(|error| tracing::warn!(%error, "the trust store cannot be used"))
        .ok()?;
    Some(Roots { anchors, webpki })
}

fn add_pem(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        found = true;
    }
    if found { Ok(()) } else { Err("no certificate in PEM form".to_owned()) }
}

/// What a user can do something about, told apart.
fn classify(host: &str, error: io::Error) -> TlsError {
    use rustls::CertificateError as Certificate;
    let host = host.to_owned();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => TlsError::NotTls { host },
        Some(
            why @ rustls::Error::InvalidCertificate(
                Certificate::Expired
                | Certificate::ExpiredContext { .. }
                | Certificate::NotValidYet
                | Certificate::NotValidYetContext { .. },
            ),
        ) => TlsError::Clock { host, why: why.clone() },
        Some(why @ rustls::Error::InvalidCertificate(_)) => TlsError::Untrusted { host, why: why.clone() },
        _ => TlsError::Io { host, source: error },
    }
}

/// A server's side of TLS: the chain, leaf first, and its key, both in PEM form.
///
/// # Errors
/// When either holds nothing usable, or they do not belong together.
pub fn acceptor(chain: &[u8], key: &[u8]) -> Result<TlsAcceptor, TlsError> {
    let config = |what: &str, why: String| TlsError::Config { what: what.to_owned(), why };
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| config("TLS certificate", error.to_string()))?;
    if chain.is_empty() {
        return Err(config("TLS certificate", "no certificate in PEM form".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| config("TLS key", error.to_string()))?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| config("TLS versions", error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| config("TLS certificate and key", error.to_string()))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
