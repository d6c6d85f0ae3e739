//! DERP as the binary messages of a WebSocket (RFC 6455, subprotocol `derp`): message borders mean nothing, the payloads
//! are one byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use hyper::HeaderMap;
use hyper::header::{self, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use wire::derp::{HEADER_LEN, MAX_BODY_SERVER};

/// What client and server must agree to speak.
pub(crate) const SUBPROTOCOL: &str = "derp";

/// The `Sec-WebSocket-Accept` for a client's handshake, if it is one.
pub(crate) fn accept(request: &HeaderMap) -> Option<HeaderValue> {
    if request.get(header::SEC_WEBSOCKET_VERSION)? != "13" {
        return None;
    }
    let key = request.get(header::SEC_WEBSOCKET_KEY)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

/// The byte stream inside a WebSocket.
pub(crate) struct WebSocketStream<S> {
    messages: tokio_tungstenite::WebSocketStream<S>,
    /// Of the message being read.
    rest: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// The server's side, after the handshake.
    pub(crate) async fn server(stream: S) -> Self {
        // A client that cuts frames into messages needs no more; one that does not may send a few frames at once.
        let limit = Some(2 * (HEADER_LEN + MAX_BODY_SERVER));
        let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(limit);
        let messages =
            tokio_tungstenite::WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        Self { messages, rest: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.messages).poll_next(cx)).transpose().map_err(to_io)? {
                Some(Message::Binary(payload)) => self.rest = payload,
                // Pings are answered by the library; text has no meaning here.
                Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Some(Message::Text(_)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "DERP is binary")));
                }
                Some(Message::Close(_)) | None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.messages).poll_ready(cx)).map_err(to_io)?;
        let message = Message::Binary(Bytes::copy_from_slice(buf));
        Pin::new(&mut self.messages).start_send(message).map_err(to_io)?;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_flush(cx).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_close(cx).map_err(to_io)
    }
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::ConnectionAborted.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn messages_are_one_byte_stream_both_ways() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut server = WebSocketStream::server(near).await;
        let messages = tokio_tungstenite::WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let mut client = WebSocketStream { messages, rest: Bytes::new() };
        for piece in ["a", "", "bcd"] {
            client.write_all(piece.as_bytes()).await.unwrap();
        }
        client.flush().await.unwrap();
        let mut seen = [0; 4];
        server.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"abcd");
        server.write_all(b"answer").await.unwrap();
        server.flush().await.unwrap();
        let mut seen = [0; 6];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"answer");
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0);
    }

    #[test]
    fn the_accept_key_is_the_rfcs() {
        let mut request = HeaderMap::new();
        request.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept(&request), None);
        request.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        assert_eq!(accept(&request).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
