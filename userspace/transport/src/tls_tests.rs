//! Client and server over an in-memory pipe, with certificates made on the spot.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedKey, IsCa, KeyPair, date_time_ymd,
    generate_simple_self_signed,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

struct Made {
    pem: String,
    key: String,
    pin: String,
}

fn made(CertifiedKey { cert, signing_key }: CertifiedKey<KeyPair>) -> Made {
    Made { pem: cert.pem(), key: signing_key.serialize_pem(), pin: pin(cert.der()) }
}

fn self_signed(name: &str) -> Made {
    made(generate_simple_self_signed(vec![name.to_owned()]).unwrap())
}

/// What `openssl req -x509` makes: a CA that is shown by a server itself.
fn self_signed_ca(name: &str, last_year: i32) -> Made {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(last_year, 12, 31);
    let signing_key = KeyPair::generate().unwrap();
    made(CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key })
}

/// A server that shows the certificate and sends one byte.
fn serve(certificate: &Made) -> DuplexStream {
    let acceptor = acceptor(certificate.pem.as_bytes(), certificate.key.as_bytes()).unwrap();
    let (near, far) = tokio::io::duplex(10_000);
    tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await?;
        stream.write_all(b"!").await?;
        stream.shutdown().await
    });
    near
}

async fn connect(certificate: &Made, trust: &Trust, host: &str, expect: Expect) -> Result<u8, TlsError> {
    let mut stream = trust.connect(serve(certificate), host, &expect).await?;
    Ok(stream.read_u8().await.unwrap())
}

#[tokio::test]
async fn a_given_root_is_trusted_for_its_name_only() {
    let certificate = self_signed("203.0.113.10");
    let trust = Trust::pem(certificate.pem.as_bytes()).unwrap();
    assert_eq!(connect(&certificate, &trust, "203.0.113.10", Expect::Host).await.unwrap(), b'!');
    let other = connect(&certificate, &trust, "control.example", Expect::Host).await;
    assert!(matches!(other, Err(TlsError::Untrusted { .. })), "{other:?}");
}

#[tokio::test]
async fn a_root_that_a_server_shows_itself_is_trusted_like_any_other() {
    let certificate = self_signed_ca("203.0.113.10", 4000);
    let trust = Trust::pem(certificate.pem.as_bytes()).unwrap();
    assert_eq!(connect(&certificate, &trust, "203.0.113.10", Expect::Host).await.unwrap(), b'!');
    let other_name = connect(&certificate, &trust, "control.example", Expect::Host).await;
    assert!(matches!(other_name, Err(TlsError::Untrusted { .. })), "{other_name:?}");
    let other_root = self_signed_ca("203.0.113.10", 4000);
    let other_key = connect(&other_root, &trust, "203.0.113.10", Expect::Host).await;
    assert!(matches!(other_key, Err(TlsError::Untrusted { .. })), "{other_key:?}");

    let old = self_signed_ca("203.0.113.10", 2001);
    let trust = Trust::pem(old.pem.as_bytes()).unwrap();
    let expired = connect(&old, &trust, "203.0.113.10", Expect::Host).await;
    assert!(matches!(expired, Err(TlsError::Clock { .. })), "{expired:?}");
}

#[tokio::test]
async fn an_unknown_root_is_refused_with_advice() {
    let trust = Trust::pem(self_signed("other").pem.as_bytes()).unwrap();
    let error = connect(&self_signed("control.example"), &trust, "control.example", Expect::Host).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("control.example is not trusted") && text.contains("SSL_CERT_FILE"), "{text}");
}

#[tokio::test]
async fn a_pin_needs_no_roots_and_admits_one_certificate() {
    let (good, bad) = (self_signed("relay"), self_signed("relay"));
    let trust = Trust::of(|_| None);
    let expect = Expect::from_cert_name(&good.pin).unwrap();
    assert_eq!(connect(&good, &trust, "192.0.2.1", expect.clone()).await.unwrap(), b'!');
    assert!(matches!(connect(&bad, &trust, "relay", expect).await, Err(TlsError::Untrusted { .. })));
    assert!(matches!(connect(&good, &trust, "relay", Expect::Host).await, Err(TlsError::Untrusted { .. })));
}

#[tokio::test]
async fn another_name_may_be_expected() {
    let certificate = self_signed("real.example");
    let trust = Trust::pem(certificate.pem.as_bytes()).unwrap();
    let expect = Expect::from_cert_name("real.example").unwrap();
    assert_eq!(connect(&certificate, &trust, "front.example", expect).await.unwrap(), b'!');
}

#[tokio::test]
async fn an_expired_certificate_speaks_of_the_clock() {
    let mut params = CertificateParams::new(vec!["old.example".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2001, 1, 1);
    let signing_key = KeyPair::generate().unwrap();
    let certificate = made(CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key });
    let trust = Trust::pem(certificate.pem.as_bytes()).unwrap();
    let error = connect(&certificate, &trust, "old.example", Expect::Host).await.unwrap_err();
    assert!(matches!(error, TlsError::Clock { .. }), "{error}");
    assert!(error.to_string().contains("clock"), "{error}");
}

#[tokio::test]
async fn plain_http_is_named() {
    let (near, mut far) = tokio::io::duplex(10_000);
    tokio::spawn(async move { far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await });
    let trust = Trust::of(|_| None);
    let error = trust.connect(near, "control.example", &Expect::Host).await.unwrap_err();
    assert!(matches!(error, TlsError::NotTls { .. }), "{error}");
}

#[test]
fn cert_names() {
    assert_eq!(Expect::from_cert_name("").unwrap(), Expect::Host);
    assert_eq!(
        Expect::from_cert_name(&format!("sha256-raw:{}", "ab".repeat(32))).unwrap(),
        Expect::Pin([0xab; 32])
    );
    for bad in ["sha256-raw:12", "no name at all"] {
        assert!(matches!(Expect::from_cert_name(bad), Err(TlsError::Config { .. })), "{bad}");
    }
}

#[test]
fn certificate_and_key_must_match() {
    let (a, b) = (self_signed("a"), self_signed("b"));
    assert!(matches!(acceptor(a.pem.as_bytes(), b.key.as_bytes()), Err(TlsError::Config { .. })));
    assert!(matches!(acceptor(b"", a.key.as_bytes()), Err(TlsError::Config { .. })));
    assert!(matches!(Trust::pem(b"text"), Err(TlsError::Config { .. })));
}
