//! The client of a node's LocalAPI: HTTP/1.1 over its unix socket, one connection a request.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use wire::local::{CheckPrefsResponse, MaskedPrefs, Notify, NotifyMask, PREFIX, Prefs, Status};

/// Where a node's socket is when nobody says otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/underpass/underpass.sock";

/// Why a request to the node failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody answers.
    #[error("no node answers at {path}: {source}{}", hint(source))]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The node knows who we are, and that is not enough.
    #[error("{0}")]
    Denied(String),
    /// The node refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the node said.
        message: String,
    },
    /// The connection broke, or whoever answers is no node.
    #[error("the node's answer could not be read: {0}")]
    Protocol(String),
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "\nThe folder of the socket is closed to you: use sudo.",
        _ => {
            "\nStart the node with `sudo underpass node` (it stays in the foreground), or name another node's \
             socket with --socket."
        }
    }
}

fn protocol(error: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol(error.to_string())
}

/// A node, by its socket.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: Option<PathBuf>) -> Self {
        Self { socket: socket.unwrap_or_else(|| DEFAULT_SOCKET.into()) }
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The status, with or without peers.
    pub(crate) async fn status(&self, peers: bool) -> Result<Status, ClientError> {
        self.get(if peers { "status" } else { "status?peers=false" }).await
    }

    /// All settings.
    pub(crate) async fn prefs(&self) -> Result<Prefs, ClientError> {
        self.get("prefs").await
    }

    /// Changes some settings.
    pub(crate) async fn edit_prefs(&self, edit: &MaskedPrefs) -> Result<Prefs, ClientError> {
        decode(&self.call(Method::PATCH, "prefs", body(edit)?).await?)
    }

    /// Whether the node would take these settings.
    pub(crate) async fn check_prefs(&self, prefs: &Prefs) -> Result<(), ClientError> {
        let answer = self.call(Method::POST, "check-prefs", body(prefs)?).await?;
        match decode::<CheckPrefsResponse>(&answer)? {
            CheckPrefsResponse { error } if error.is_empty() => Ok(()),
            CheckPrefsResponse { error } => Err(ClientError::Refused { status: 200, message: error }),
        }
    }

    /// `GET` of something that is JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        decode(&self.call(Method::GET, path, Bytes::new()).await?)
    }

    /// `GET` of text.
    pub(crate) async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let answer = self.call(Method::GET, path, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// `POST` without a body, for JSON.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        decode(&self.call(Method::POST, path, Bytes::new()).await?)
    }

    /// `POST` of which only the success matters.
    pub(crate) async fn post_unit(&self, path: &str) -> Result<(), ClientError> {
        self.call(Method::POST, path, Bytes::new()).await.map(drop)
    }

    /// `POST` of JSON of which only the success matters.
    pub(crate) async fn post_json(&self, path: &str, value: &impl Serialize) -> Result<(), ClientError> {
        self.call(Method::POST, path, body(value)?).await.map(drop)
    }

    /// The bus, from now on.
    pub(crate) async fn watch(&self, mask: NotifyMask) -> Result<Stream, ClientError> {
        self.stream(&format!("watch-ipn-bus?mask={}", mask.0)).await
    }

    /// An answer of JSON lines without an end.
    pub(crate) async fn stream(&self, path: &str) -> Result<Stream, ClientError> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(failure(response.status(), &collect(response).await?));
        }
        Ok(Stream { body: response.into_body(), buffer: BytesMut::new() })
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let answer = collect(response).await?;
        if status.is_success() { Ok(answer) } else { Err(failure(status, &answer)) }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable { path: self.socket.clone(), source })?;
        let (mut http, connection) = handshake(TokioIo::new(stream)).await.map_err(protocol)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}{path}"))
            .header(HOST, wire::local::HOST)
            .body(Full::new(body))
            .map_err(protocol)?;
        http.send_request(request).await.map_err(protocol)
    }
}

/// An answer of JSON lines.
pub(crate) struct Stream {
    body: Incoming,
    buffer: BytesMut,
}

impl Stream {
    /// The next message of the bus.
    pub(crate) async fn notify(&mut self) -> Result<Notify, ClientError> {
        let line = self.line().await?;
        decode(&line)
    }

    /// The next line.
    pub(crate) async fn line(&mut self) -> Result<Bytes, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1).freeze();
                return Ok(line.slice(..end));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.map_err(protocol)?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => {
                    return Err(protocol(
                        "the node closed the stream; it was stopped, or we read too slowly",
                    ));
                }
            }
        }
    }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    Ok(response.into_body().collect().await.map_err(protocol)?.to_bytes())
}

fn body(value: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(protocol)
}

fn decode<T: DeserializeOwned>(answer: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(answer).map_err(protocol)
}

/// Errors are `{"Error": ...}` or a line of text.
fn failure(status: StatusCode, answer: &[u8]) -> ClientError {
    let message = match serde_json::from_slice::<CheckPrefsResponse>(answer) {
        Ok(answer) if !answer.error.is_empty() => answer.error,
        _ => String::from_utf8_lossy(answer).trim().to_owned(),
    };
    match status {
        StatusCode::FORBIDDEN => ClientError::Denied(message),
        _ => ClientError::Refused { status: status.as_u16(), message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_error_are_one_sentence() {
        let text = |status, body: &str| failure(status, body.as_bytes()).to_string();
        assert_eq!(text(StatusCode::BAD_REQUEST, "{\"Error\":\"no\"}\n"), "no");
        assert_eq!(text(StatusCode::NOT_FOUND, "404 page not found\n"), "404 page not found");
        assert!(matches!(failure(StatusCode::FORBIDDEN, b"x"), ClientError::Denied(_)));
    }

    #[tokio::test]
    async fn a_missing_node_says_how_to_start_one() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(Some(folder.path().join("none.sock")));
        let text = client.status(true).await.unwrap_err().to_string();
        assert!(text.contains("none.sock") && text.contains("sudo underpass node"), "{text}");
    }
}
