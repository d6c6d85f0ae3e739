//! One small document by HTTP or HTTPS, without redirects: what a server reads at its start.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::derp::{DerpError, Server};
use crate::dial::Dialer;
use crate::stream::BoxStream;
use crate::tls::Trust;
use crate::upgrade;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an `http://` or `https://` URL, or no connection.
    #[error(transparent)]
    Reach(#[from] DerpError),
    /// It answered something else.
    #[error("the server answered {0}")]
    Status(StatusCode),
}

/// The document at `url`, at most `limit` bytes long.
///
/// # Errors
/// When it cannot be had.
pub async fn get(url: &str, trust: &Trust, limit: usize) -> Result<Bytes, FetchError> {
    let server = Server::from_url(url)?;
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("/", |index| &after_scheme[index..]);
    let tcp = Dialer::default().tcp(&server.host, server.port).await.map_err(DerpError::from)?;
    let stream: BoxStream = match &server.expect {
        Some(expect) => Box::new(trust.connect(tcp, &server.host, expect).await.map_err(DerpError::from)?),
        None => Box::new(tcp),
    };
    let wrong = |error: http::Error| DerpError::Server { server: url.to_owned(), why: error.to_string() };
    let request = upgrade::request(Method::GET, path, &server.host_header()).map_err(wrong)?;
    let answer = upgrade::send(stream, request, limit).await.map_err(DerpError::from)?;
    if answer.status() == StatusCode::OK {
        Ok(answer.into_body())
    } else {
        Err(FetchError::Status(answer.status()))
    }
}
