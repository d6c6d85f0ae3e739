//! A ts2021 session as a byte stream, for both roles.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use types::{CapabilityVersion, MachinePrivate, MachinePublic};
use wire::control::EarlyNoise;
use wire::ts2021::{
    ClientHandshake, EARLY_HEADER_LEN, HandshakeError, MAX_PLAINTEXT, Records, ServerHandshake, early_len,
    encode_early, encode_error, parse_early, reply_len,
};

use crate::upgrade::HttpError;

/// How much is sealed in one write: a few records, so that one system call sends them.
const WRITE_CHUNK: usize = 8 * MAX_PLAINTEXT;

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
pub enum NoiseError {
    /// The other side is not who it should be, or does not speak ts2021.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The connection broke.
    #[error("connection lost during the handshake: {0}")]
    Io(#[from] io::Error),
    /// The server did not switch from HTTP.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The upgrade request cannot be written; a host name with odd characters does that.
    #[error("upgrade request: {0}")]
    Request(#[from] http::Error),
}

/// A Noise session over `S`. Without data in flight it owns no buffers.
pub struct NoiseStream<S> {
    inner: S,
    records: Records,
    peer: MachinePublic,
    version: CapabilityVersion,
    /// Sealed bytes read, not yet a whole record.
    sealed_in: BytesMut,
    /// Opened bytes, not yet read by the caller.
    plain: BytesMut,
    /// Sealed bytes, not yet written.
    sealed_out: BytesMut,
    /// The client's first bytes may be an early payload; looked at once.
    expect_early: bool,
    early: Option<EarlyNoise>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> NoiseStream<S> {
    /// As client: `handshake` has been started and its initiation sent (in the upgrade request); reads the answer.
    ///
    /// An early payload of the server is taken off silently when the first bytes are read.
    ///
    /// # Errors
    /// When the server refuses or is not the one meant, or the connection breaks.
    pub async fn connect(
        mut inner: S,
        handshake: ClientHandshake,
        server: MachinePublic,
        version: CapabilityVersion,
    ) -> Result<Self, NoiseError> {
        let mut reply = vec![0; 3];
        inner.read_exact(&mut reply).await?;
        reply.resize(3 + reply_len([reply[0], reply[1], reply[2]])?, 0);
        inner.read_exact(&mut reply[3..]).await?;
        let records = handshake.finish(&reply)?;
        Ok(Self { expect_early: true, ..Self::new(inner, records, server, version) })
    }

    /// As server with the key `server`: answers `initiation`, and sends `early` when the client knows it (version 49).
    ///
    /// # Errors
    /// When the initiation is bad (the client is told so), or the connection breaks.
    pub async fn accept(
        mut inner: S,
        initiation: &[u8],
        server: &MachinePrivate,
        early: Option<&EarlyNoise>,
    ) -> Result<Self, NoiseError> {
        let handshake = match ServerHandshake::accept(initiation, server) {
            Ok(handshake) => handshake,
            Err(error) => {
                inner.write_all(&encode_error(&error.to_string())).await?;
                inner.flush().await?;
                return Err(error.into());
            }
        };
        let (peer, version) = (handshake.peer(), handshake.version());
        let (response, records) = handshake.respond();
        let mut stream = Self::new(inner, records, peer, version);
        stream.sealed_out.extend_from_slice(&response);
        if let Some(early) = early.filter(|_| version >= EARLY_VERSION) {
            stream.records.seal(&encode_early(early), &mut stream.sealed_out);
        }
        stream.flush().await?;
        Ok(stream)
    }

    fn new(inner: S, records: Records, peer: MachinePublic, version: CapabilityVersion) -> Self {
        let (sealed_in, plain, sealed_out) = Default::default();
        Self { inner, records, peer, version, sealed_in, plain, sealed_out, expect_early: false, early: None }
    }

    /// The machine key at the other end.
    pub fn peer(&self) -> MachinePublic {
        self.peer
    }

    /// The version both ends agreed on, which is the client's.
    pub fn version(&self) -> CapabilityVersion {
        self.version
    }

    /// The server's early payload, once the first bytes have been read; `None` when there was none.
    pub fn early(&self) -> Option<&EarlyNoise> {
        self.early.as_ref()
    }

    /// Reads once and opens what is whole. `false` at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        // On the stack: most streams wait here for a long time, and a thousand of them should not hold buffers.
        let mut space = [0; 4096];
        let mut buf = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
        if buf.filled().is_empty() {
            if self.sealed_in.is_empty() {
                return Poll::Ready(Ok(false));
            }
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.sealed_in.extend_from_slice(buf.filled());
        while let Some(plain) = self.records.open(&mut self.sealed_in).map_err(invalid)? {
            self.plain.unsplit(plain);
        }
        if self.sealed_in.is_empty() {
            self.sealed_in = BytesMut::new();
        }
        Poll::Ready(Ok(true))
    }

    /// Takes an early payload off the front of `plain`. `false` when it takes more bytes to decide.
    fn take_early(&mut self) -> io::Result<bool> {
        let Some(header) = self.plain.first_chunk::<EARLY_HEADER_LEN>() else { return Ok(false) };
        if let Some(len) = early_len(*header).map_err(invalid)? {
            let Some(json) = self.plain.get(EARLY_HEADER_LEN..EARLY_HEADER_LEN + len) else {
                return Ok(false);
            };
            self.early = Some(parse_early(json).map_err(invalid)?);
            self.plain.advance(EARLY_HEADER_LEN + len);
        }
        self.expect_early = false;
        Ok(true)
    }

    /// Writes what is sealed.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealed_out.is_empty() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.sealed_out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sealed_out.advance(n);
        }
        self.sealed_out = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

/// The first version whose clients know the early payload (`tailcfg.CapabilityVersion` 49).
const EARLY_VERSION: CapabilityVersion = CapabilityVersion(49);

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for NoiseStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while (this.expect_early && !this.take_early()?) || this.plain.is_empty() {
            if !ready!(this.poll_fill(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
        let n = this.plain.len().min(buf.remaining());
        buf.put_slice(&this.plain[..n]);
        this.plain.advance(n);
        if this.plain.is_empty() {
            this.plain = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for NoiseStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // A record once sealed must be sent; so nothing new is sealed before what is there has gone.
        ready!(this.poll_drain(cx))?;
        let n = buf.len().min(WRITE_CHUNK);
        this.records.seal(&buf[..n], &mut this.sealed_out);
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "noise_tests.rs"]
mod tests;
