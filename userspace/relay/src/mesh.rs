//! Several servers of one region: clients home at one of them reach those at another.
//!
//! Each server connects to every other as a client that shows the mesh key, asks who is there, and hands packets for those on
//! (tailscale `cmd/derper/mesh.go`, `derp/derphttp/mesh_client.go`). A packet is handed on once at most. Upstream advises one
//! server a region: every server holds a connection to, and the client list of, every other.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::task::Poll;
use std::time::Duration;

use relay_core::Uplink;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};
use transport::derp::{self, DerpError, LoggedIn, Server};
use transport::dial::Dialer;
use transport::stream::BoxStream;
use transport::tls::{Expect, Trust};
use types::{KeyError, MeshKey};
use wire::derp::{ClientInfo, Decoder, Frame, KEEP_ALIVE};

use crate::Relay;
use crate::session::Unwritten;

/// Between attempts, as Tailscale's servers.
const RETRY: Duration = Duration::from_secs(5);
/// For connecting and logging in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says nothing for two keep-alives is gone.
const SILENCE: Duration = Duration::from_secs(2 * KEEP_ALIVE.as_secs());
/// So much is taken from the queue at once.
const WRITE_LEN: usize = 64 << 10;
const APP_NAME: &str = "underpass-mesh";

/// Why a mesh cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The key file cannot be read.
    #[error("cannot read the mesh key {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The key file holds something else.
    #[error("{path} is not a mesh key: 64 hex digits are expected (`openssl rand -hex 32` makes one)")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// Not an address of a server.
    #[error("{text:?} is not HOST[:PORT][/DIAL] or a URL: {why}")]
    Peer {
        /// What was given.
        text: String,
        /// What is wrong.
        why: String,
    },
}

/// The key in a file of 64 hex digits.
///
/// # Errors
/// When it cannot be read or is none.
pub fn read_mesh_key(path: &Path) -> Result<MeshKey, MeshError> {
    let path = path.to_path_buf();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(MeshError::Read { path, source }),
    };
    MeshKey::from_text(&text).map_err(|source| MeshError::Key { path, source })
}

/// Another server of the region: a URL, or derper's `HOST[/DIAL]`, which is HTTPS to HOST by connecting to DIAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshPeer(Server);

impl FromStr for MeshPeer {
    type Err = MeshError;

    fn from_str(text: &str) -> Result<Self, MeshError> {
        let wrong = |why: String| MeshError::Peer { text: text.to_owned(), why };
        let (host, dial) = match text.split_once('/') {
            _ if text.contains("://") => (text.to_owned(), None),
            None => (format!("https://{text}"), None),
            Some((host, dial)) => (format!("https://{host}"), Some(dial.to_owned())),
        };
        let mut server = Server::from_url(&host).map_err(|error| wrong(error.to_string()))?;
        if let Some(dial) = dial {
            server.dial = vec![dial];
        }
        Ok(Self(server))
    }
}

impl MeshPeer {
    /// The same with a pinned certificate.
    #[must_use]
    pub fn expecting(mut self, expect: Expect) -> Self {
        self.0.expect = Some(expect);
        self
    }
}

impl Relay {
    /// Keeps a connection to another server of the region; ends when that server turns out to be this one.
    pub async fn mesh_with(&self, peer: MeshPeer, trust: Trust) {
        let host = peer.0.host.clone();
        loop {
            match self.mesh_once(&peer.0, &trust).await {
                Ok(Myself) => return tracing::info!(host, "this is the server itself: no mesh with it"),
                Err(error) => tracing::warn!(host, %error, "no mesh with another server of the region"),
            }
            sleep(RETRY).await;
        }
    }

    async fn mesh_once(&self, peer: &Server, trust: &Trust) -> Result<Myself, DerpError> {
        let info = ClientInfo::mesh(APP_NAME, self.shared.mesh_key.clone().unwrap_or_default());
        let connecting = async {
            let stream = derp::open(peer, &Dialer::default(), trust).await?;
            derp::log_in(stream, &self.shared.private_key, &info).await
        };
        let logged_in = timeout(LOGIN_TIMEOUT, connecting)
            .await
            .map_err(|_| DerpError::Timeout("let this server in"))??;
        let LoggedIn { stream, decoder, server, .. } = logged_in;
        if server == self.public_key() {
            return Ok(Myself);
        }
        let (reader, mut writer) = tokio::io::split(stream);
        let mut out = Vec::new();
        Frame::WatchConns.encode(&mut out);
        writer.write_all(&out).await?;
        writer.flush().await?;
        tracing::info!(host = peer.host, %server, "mesh with another server of the region");
        let uplink = self.shared.server.add_uplink();
        tokio::select! {
            ended = read(reader, decoder, &uplink) => Err(ended),
            ended = write(writer, &uplink) => Err(ended.into()),
        }
    }
}

/// The other server is this one.
struct Myself;

/// Follows who is at the other server, until the connection ends.
async fn read(mut reader: ReadHalf<BoxStream>, mut decoder: Decoder, uplink: &Uplink) -> DerpError {
    loop {
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some((Frame::PeerPresent { peer, .. }, _))) => uplink.present(peer),
                Ok(Some((Frame::PeerGone { peer, .. }, _))) => uplink.gone(peer),
                Ok(Some(_)) => {}
                Err(error) => return error.into(),
            }
        }
        match timeout(SILENCE, reader.read(decoder.space())).await {
            Err(_) => return DerpError::Timeout("send anything"),
            Ok(Ok(0)) => return DerpError::Closed,
            Ok(Ok(count)) => decoder.filled(count),
            Ok(Err(error)) => return error.into(),
        }
    }
}

/// Hands packets on, until the connection fails.
async fn write(mut writer: WriteHalf<BoxStream>, uplink: &Uplink) -> io::Error {
    let mut unwritten = Unwritten::default();
    let failed = poll_fn(|cx| {
        uplink.register(cx.waker());
        while !unwritten.0.is_empty() || uplink.transmit(WRITE_LEN, &mut unwritten.0) {
            match unwritten.poll_write(&mut writer, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
        match Pin::new(&mut writer).poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            _ => Poll::Pending,
        }
    });
    failed.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_urls_or_derpers_tuples() {
        let server = |text: &str| text.parse::<MeshPeer>().map(|peer| peer.0);
        let plain = server("relay.example").unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.expect.is_some()), ("relay.example", 443, true));
        let tuple = server("relay.example:8443/10.0.0.7").unwrap();
        assert_eq!((tuple.port, tuple.dial), (8443, vec!["10.0.0.7".to_owned()]));
        assert_eq!(server("http://127.0.0.1:3340").unwrap().expect, None);
        assert!(server("").is_err());
    }
}
