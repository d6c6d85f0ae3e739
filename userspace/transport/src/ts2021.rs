//! The way from a stream to a Noise session: the upgrade request, as the client sends it and the server reads it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::Full;
use types::{CapabilityVersion, MachinePrivate, MachinePublic};
use wire::ts2021::{ClientHandshake, HANDSHAKE_HEADER, PATH, UPGRADE};

use crate::noise::{NoiseError, NoiseStream};
use crate::stream::{Prefixed, Stream};
use crate::upgrade::{request, upgrade};

/// Opens a session on `stream` as `machine`, with the server that has the key `server`; `host` is what `Host` says.
///
/// # Errors
/// When the server does not switch, refuses, or is not the one meant.
pub async fn connect<S: Stream + 'static>(
    stream: S,
    host: &str,
    machine: &MachinePrivate,
    server: MachinePublic,
    version: CapabilityVersion,
) -> Result<NoiseStream<Prefixed<S>>, NoiseError> {
    let (handshake, initiation) = ClientHandshake::start(machine, &server, version)?;
    let stream = upgrade(stream, upgrade_request(host, &initiation)?, UPGRADE).await?;
    NoiseStream::connect(stream, handshake, server, version).await
}

fn upgrade_request(host: &str, initiation: &[u8]) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = request(Method::POST, PATH, host)?;
    let value = HeaderValue::from_str(&STANDARD.encode(initiation))?;
    request.headers_mut().insert(HANDSHAKE_HEADER, value);
    Ok(request)
}

/// The initiation in an upgrade request's headers, for [`NoiseStream::accept`]; `None` when there is none to read.
pub fn initiation(headers: &HeaderMap) -> Option<Vec<u8>> {
    STANDARD.decode(headers.get(HANDSHAKE_HEADER)?).ok()
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::upgrade::HttpError;

    const VERSION: CapabilityVersion = CapabilityVersion(130);

    fn keys() -> (MachinePrivate, MachinePrivate) {
        (MachinePrivate::from_random([1; 32]), MachinePrivate::from_random([2; 32]))
    }

    /// A hyper server that upgrades and speaks in the session.
    async fn switch(
        mut request: Request<hyper::body::Incoming>,
    ) -> Result<Response<Full<Bytes>>, http::Error> {
        let Some(initiation) = initiation(request.headers()) else {
            return Response::builder().status(StatusCode::BAD_REQUEST).body("no handshake".into());
        };
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let stream = TokioIo::new(upgraded.await.unwrap());
            let mut session = NoiseStream::accept(stream, &initiation, &keys().1, None).await.ok().unwrap();
            session.write_all(b"no http/2 here").await.unwrap();
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("Upgrade", UPGRADE)
            .header("Connection", "upgrade")
            .body(Full::default())
    }

    #[tokio::test]
    async fn through_an_http_server() {
        let (near, far) = tokio::io::duplex(10_000);
        let http = hyper::server::conn::http1::Builder::new();
        tokio::spawn(http.serve_connection(TokioIo::new(far), service_fn(switch)).with_upgrades());
        let (machine, server) = keys();
        let mut session = connect(near, "control", &machine, server.public(), VERSION).await.ok().unwrap();
        let mut heard = [0; 14];
        session.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"no http/2 here");
    }

    #[tokio::test]
    async fn a_server_that_is_none_of_ours_is_named() {
        let (near, far) = tokio::io::duplex(10_000);
        let not_found = service_fn(async |_| {
            Response::builder().status(StatusCode::NOT_FOUND).body(Full::new(Bytes::from_static(b"lost")))
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), not_found),
        );
        let (machine, server) = keys();
        let error = connect(near, "control", &machine, server.public(), VERSION).await.err().unwrap();
        assert!(matches!(error, NoiseError::Http(HttpError::Status { status: StatusCode::NOT_FOUND, .. })));
    }
}
