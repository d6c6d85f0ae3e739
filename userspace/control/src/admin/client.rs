//! The typed client of the administrator's API: one method a verb, one connection for all of them.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api::{
    ApproveNode, ApproveRoutes, CreateKey, CreateUser, CreatedKey, Failure, KeyInfo, NodeInfo, PendingInfo,
    RenameNode, ServerInfo, UserInfo,
};

/// An answer longer than this is not believed: a network of 10,000 nodes needs some 10 MB.
const MAX_ANSWER: usize = 64 << 20;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket, or it may not be opened.
    #[error(
        "cannot reach the server at {path}: {source}; is `underpass server` running, and are you its user or root?"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server refused, in its words.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What happened and what to do.
        message: String,
    },
    /// The connection broke, or the answer is not of this API.
    #[error("the server's answer could not be read: {0}")]
    Protocol(String),
}

/// A connection to a running server.
pub struct Client {
    http: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects to the admin socket at `path`.
    ///
    /// # Errors
    /// When nobody listens there or it may not be opened.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
        let (http, connection) = handshake(TokioIo::new(stream)).await.map_err(protocol)?;
        tokio::spawn(connection);
        Ok(Self { http })
    }

    /// The running server.
    ///
    /// # Errors
    /// See [`ClientError`]; so for every verb below.
    pub async fn server(&mut self) -> Result<ServerInfo, ClientError> {
        self.get("/v1/server").await
    }

    /// All users.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn users(&mut self) -> Result<Vec<UserInfo>, ClientError> {
        self.get("/v1/users").await
    }

    /// Creates a user.
    ///
    /// # Errors
    /// Refused when the name is taken or malformed.
    pub async fn create_user(&mut self, request: &CreateUser) -> Result<UserInfo, ClientError> {
        self.post("/v1/users", request).await
    }

    /// All auth keys, without their secrets.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn keys(&mut self) -> Result<Vec<KeyInfo>, ClientError> {
        self.get("/v1/keys").await
    }

    /// Creates an auth key; the answer is the only time its secret is seen.
    ///
    /// # Errors
    /// Refused when the user is unknown or a tag is malformed.
    pub async fn create_key(&mut self, request: &CreateKey) -> Result<CreatedKey, ClientError> {
        self.post("/v1/keys", request).await
    }

    /// Withdraws an auth key; nodes it admitted stay.
    ///
    /// # Errors
    /// Refused when there is no such key.
    pub async fn revoke_key(&mut self, id: i64) -> Result<KeyInfo, ClientError> {
        self.post(&format!("/v1/keys/{id}/revoke"), &()).await
    }

    /// All nodes, sorted by id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn nodes(&mut self) -> Result<Vec<NodeInfo>, ClientError> {
        self.get("/v1/nodes").await
    }

    /// One node, by number, name or overlay address.
    ///
    /// # Errors
    /// Refused when there is no such node.
    pub async fn node(&mut self, node: &str) -> Result<NodeInfo, ClientError> {
        self.get(&format!("/v1/nodes/{}", escape(node))).await
    }

    /// Machines that wait for an approval.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pending(&mut self) -> Result<Vec<PendingInfo>, ClientError> {
        self.get("/v1/pending").await
    }

    /// Admits the machine that waits under `key` as a node of `user`.
    ///
    /// # Errors
    /// Refused when nobody waits under the key or the user is unknown.
    pub async fn approve(&mut self, key: &str, user: &str) -> Result<NodeInfo, ClientError> {
        let request = ApproveNode { user: user.to_owned() };
        self.post(&format!("/v1/pending/{}/approve", escape(key)), &request).await
    }

    /// Sets which routes a node may serve.
    ///
    /// # Errors
    /// Refused when there is no such node or a prefix has host bits set.
    pub async fn approve_routes(&mut self, node: &str, routes: Vec<IpNet>) -> Result<NodeInfo, ClientError> {
        self.post(&format!("/v1/nodes/{}/routes", escape(node)), &ApproveRoutes { routes }).await
    }

    /// Gives a node another name.
    ///
    /// # Errors
    /// Refused when there is no such node or the name is taken or malformed.
    pub async fn rename(&mut self, node: &str, name: &str) -> Result<NodeInfo, ClientError> {
        let request = RenameNode { name: name.to_owned() };
        self.post(&format!("/v1/nodes/{}/rename", escape(node)), &request).await
    }

    /// Expires a node's key now: it must log in again.
    ///
    /// # Errors
    /// Refused when there is no such node.
    pub async fn expire(&mut self, node: &str) -> Result<NodeInfo, ClientError> {
        self.post(&format!("/v1/nodes/{}/expire", escape(node)), &()).await
    }

    /// Removes a node from the network; the answer is what it was.
    ///
    /// # Errors
    /// Refused when there is no such node.
    pub async fn delete(&mut self, node: &str) -> Result<NodeInfo, ClientError> {
        self.call(Method::DELETE, &format!("/v1/nodes/{}", escape(node)), Bytes::new()).await
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(protocol)?;
        self.call(Method::POST, path, body.into()).await
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        self.http.ready().await.map_err(protocol)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "underpass")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(protocol)?;
        let response = self.http.send_request(request).await.map_err(protocol)?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(protocol)?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(protocol);
        }
        let message = match serde_json::from_slice::<Failure>(&body) {
            Ok(failure) => failure.error,
            Err(_) => format!("the server answered {status}: {}", String::from_utf8_lossy(&body)),
        };
        Err(ClientError::Refused { status: status.as_u16(), message })
    }
}

fn protocol(error: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol(error.to_string())
}

/// Percent-encodes what may not stand in one segment of a path.
fn escape(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment_of_the_path() {
        assert_eq!(escape("gw-1.lan"), "gw-1.lan");
        assert_eq!(escape("fd7a::1/../x?y"), "fd7a%3A%3A1%2F..%2Fx%3Fy");
    }
}
