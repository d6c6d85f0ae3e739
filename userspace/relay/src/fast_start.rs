//! Upgrades without an answer.
//!
//! A client that read the server's key from its certificate (see [`crate::meta_certificate`]) sends `Derp-Fast-Start: 1`
//! and begins with DERP at once; no HTTP response may come. HTTP libraries always send one, so the listener's stream is
//! wrapped: once armed by the request's handler, it swallows the next response head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const END_OF_HEAD: &[u8; 4] = b"\r\n\r\n";

/// Arms one [`HttpStream`]; travels as an extension of each of its requests.
#[derive(Clone, Debug, Default)]
pub struct FastStart(Arc<AtomicBool>);

impl FastStart {
    pub(crate) fn arm(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A listener's stream that can keep one response head to itself.
#[derive(Debug)]
pub struct HttpStream<S> {
    stream: S,
    armed: FastStart,
    /// How much of [`END_OF_HEAD`] has passed.
    matched: usize,
}

impl<S> HttpStream<S> {
    /// Wraps a stream before HTTP is spoken on it. Put the [`FastStart`] into the extensions of every request from it.
    pub fn new(stream: S) -> (Self, FastStart) {
        let armed = FastStart::default();
        (Self { stream, armed: armed.clone(), matched: 0 }, armed)
    }

    /// How many of `bytes` belong to the head that is to be swallowed; 0 when nothing is.
    fn swallow(&mut self, bytes: &[u8]) -> usize {
        if !self.armed.0.load(Ordering::Acquire) {
            return 0;
        }
        for (index, byte) in bytes.iter().enumerate() {
            self.matched = match *byte {
                byte if byte == END_OF_HEAD[self.matched] => self.matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.matched == END_OF_HEAD.len() {
                self.matched = 0;
                self.armed.0.store(false, Ordering::Release);
                return index + 1;
            }
        }
        bytes.len()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HttpStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.swallow(buf) {
            0 => Pin::new(&mut self.stream).poll_write(cx, buf),
            swallowed => Poll::Ready(Ok(swallowed)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.armed.0.load(Ordering::Acquire) {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn an_armed_stream_swallows_one_head_wherever_it_is_cut() {
        const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: DERP\r\n\r\n";
        for cut in 0..HEAD.len() {
            let (near, mut far) = tokio::io::duplex(1024);
            let (mut stream, fast_start) = HttpStream::new(near);
            fast_start.arm();
            stream.write_all(&HEAD[..cut]).await.unwrap();
            stream.write_all(&[&HEAD[cut..], b"body\r\n\r\n"].concat()).await.unwrap();
            drop(stream);
            let mut seen = Vec::new();
            far.read_to_end(&mut seen).await.unwrap();
            assert_eq!(seen, b"body\r\n\r\n");
        }
    }
}
