//! HTTP/1.1 requests on one stream: an upgrade that hands the stream back, or a single exchange.
//!
//! ts2021 and DERP both begin as an HTTP upgrade, so that proxies and port 443 let them through.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::stream::{Prefixed, Stream};

/// As much of a refusal's body as is shown.
const MAX_REFUSAL: usize = 1024;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server answered, but not with what was asked for.
    #[error("the server answered {status}{}{text}", if text.is_empty() { "" } else { ": " })]
    Status {
        /// The status.
        status: StatusCode,
        /// The beginning of the body.
        text: String,
    },
    /// What came back is not HTTP: most often TLS.
    #[error("the server does not speak plain HTTP here (is it https?)")]
    NotHttp,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(#[from] hyper::Error),
    /// The body is longer than the caller allows, or broke off.
    #[error("cannot read the answer: {0}")]
    Body(String),
}

fn classify(error: hyper::Error) -> HttpError {
    if error.is_parse() { HttpError::NotHttp } else { HttpError::Lost(error) }
}

/// A request without a body for [`send`] and [`upgrade`]. `path` is an absolute path, `host` what `Host` says.
///
/// # Errors
/// When `path` or `host` cannot stand in a request.
pub fn request(method: Method, path: &str, host: &str) -> Result<Request<Full<Bytes>>, http::Error> {
    Request::builder().method(method).uri(path).header(HOST, host).body(Full::default())
}

/// Sends `request` with `Upgrade: protocol` and returns the stream once the server has switched.
///
/// # Errors
/// When the server does not switch, or does not speak HTTP.
pub async fn upgrade<S: Stream + 'static>(
    stream: S,
    mut request: Request<Full<Bytes>>,
    protocol: &'static str,
) -> Result<Prefixed<S>, HttpError> {
    let headers = request.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));

    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = std::pin::pin!(connection.without_shutdown());
    let mut answer = std::pin::pin!(sender.send_request(request));
    let mut parts = None;
    let response = loop {
        tokio::select! {
            response = &mut answer => break response.map_err(classify)?,
            ended = &mut connection, if parts.is_none() => parts = Some(ended.map_err(classify)?),
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect();
        let body = tokio::select! {
            body = body => body.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
            _ = connection, if parts.is_none() => Bytes::new(),
        };
        return Err(HttpError::Status { status, text: first_line(&body) });
    }
    let parts = match parts {
        Some(parts) => parts,
        None => connection.await.map_err(classify)?,
    };
    Ok(Prefixed::new(parts.read_buf, parts.io.into_inner()))
}

/// One request, one answer of at most `limit` bytes, whatever its status.
///
/// # Errors
/// When the server does not speak HTTP, the connection breaks or the answer is too long.
pub async fn send<S: Stream + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Response<Bytes>, HttpError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(classify)?.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|e| HttpError::Body(e.to_string()))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = connection => {
            // What has arrived before the end is still to be had.
            ended.map_err(classify)?;
            exchange.await
        }
    }
}

fn first_line(body: &[u8]) -> String {
    String::from_utf8_lossy(body).lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// A server that reads one request's head and answers `answer`, then echoes.
    fn server(answer: &'static [u8]) -> DuplexStream {
        let (near, mut far) = tokio::io::duplex(10_000);
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await?);
            }
            far.write_all(answer).await?;
            let (mut read, mut write) = tokio::io::split(far);
            tokio::io::copy(&mut read, &mut write).await
        });
        near
    }

    fn get() -> Request<Full<Bytes>> {
        request(Method::GET, "/derp", "relay").unwrap()
    }

    #[tokio::test]
    async fn bytes_after_the_switch_are_kept() {
        let stream =
            server(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\nfirst");
        let mut stream = upgrade(stream, get(), "DERP").await.unwrap();
        let mut heard = [0; 10];
        stream.write_all(b"after").await.unwrap();
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"firstafter");
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_words() {
        let stream = server(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nnot you\r\n");
        let error = upgrade(stream, get(), "DERP").await.err().unwrap();
        assert_eq!(error.to_string(), "the server answered 403 Forbidden: not you");
    }

    #[tokio::test]
    async fn tls_instead_of_http_is_named() {
        let alert = server(b"\x15\x03\x01\x00\x02\x02\x46");
        assert!(matches!(upgrade(alert, get(), "DERP").await.err(), Some(HttpError::NotHttp)));
        let alert = server(b"\x15\x03\x01\x00\x02\x02\x46");
        assert!(matches!(send(alert, get(), 100).await.err(), Some(HttpError::NotHttp)));
    }

    #[tokio::test]
    async fn an_answer_over_the_limit_is_refused() {
        let stream = server(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour");
        assert_eq!(send(stream, get(), 4).await.unwrap().body(), &b"four"[..]);
        let stream = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfives");
        assert!(matches!(send(stream, get(), 4).await, Err(HttpError::Body(_))));
    }
}
