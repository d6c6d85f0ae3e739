//! `/ts2021`: from HTTP to Noise, and HTTP/2 inside of it. By a POST with an upgrade, or by a WebSocket for browsers and
//! proxies that pass nothing else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use transport::noise::NoiseStream;
use types::ChallengePrivate;
use wire::control::EarlyNoise;
use wire::ts2021::{HANDSHAKE_HEADER, UPGRADE};

use super::{AnyBody, STEP_DEADLINE, Site, machine, text};

/// A node that does not answer a ping within this is gone: its stream ends, and with it its being online.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_DEADLINE: Duration = Duration::from_secs(15);
/// As much as a WebSocket message may have, and as much as waits between it and Noise.
const MESSAGE: usize = 64 << 10;

/// Answers the upgrade; the session runs in a task of its own.
pub(super) fn upgrade(site: &Arc<Site>, mut request: Request<Incoming>) -> Response<AnyBody> {
    let site = site.clone();
    let upgraded = hyper::upgrade::on(&mut request);
    match *request.method() {
        Method::POST => {
            let Some(initiation) = transport::ts2021::initiation(request.headers()) else {
                let hint = "this is the coordination server's Noise endpoint. The handshake header is missing: \
                            a proxy in front must pass Upgrade requests through\n";
                return text(StatusCode::BAD_REQUEST, hint);
            };
            tokio::spawn(async move {
                match upgraded.await {
                    Ok(stream) => session(TokioIo::new(stream), &initiation, site).await,
                    Err(error) => tracing::debug!(%error, "upgrade failed"),
                }
            });
            switching(UPGRADE, None)
        }
        Method::GET => {
            let Some(accept) = websocket_accept(request.headers()) else {
                return text(StatusCode::BAD_REQUEST, "not a WebSocket handshake of version 13\n");
            };
            let Some(initiation) = initiation_in_query(request.uri().query()) else {
                return text(StatusCode::BAD_REQUEST, "no handshake in the query\n");
            };
            tokio::spawn(async move {
                match upgraded.await {
                    Ok(stream) => {
                        session(unwrap_websocket(TokioIo::new(stream)).await, &initiation, site).await;
                    }
                    Err(error) => tracing::debug!(%error, "upgrade failed"),
                }
            });
            switching("websocket", Some(accept))
        }
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "POST, or GET for a WebSocket\n"),
    }
}

fn switching(protocol: &'static str, accept: Option<HeaderValue>) -> Response<AnyBody> {
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    if let Some(accept) = accept {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(UPGRADE));
    }
    response
}

/// Noise, the early payload, and HTTP/2 until one side ends it.
async fn session<S>(stream: S, initiation: &[u8], site: Arc<Site>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let challenge = ChallengePrivate::from_random(crate::random());
    let early = EarlyNoise { node_key_challenge: challenge.public() };
    let accepted = NoiseStream::accept(stream, initiation, &site.noise_key, Some(&early));
    let noise = match timeout(STEP_DEADLINE, accepted).await {
        Ok(Ok(noise)) => noise,
        Ok(Err(error)) => return tracing::debug!(%error, "no Noise session"),
        Err(_) => return tracing::debug!("the Noise handshake took too long"),
    };
    let machine = noise.peer();
    let service = service_fn(move |request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(machine::answer(&site, machine, request).await) }
    });
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_DEADLINE);
    if let Err(error) = http.serve_connection(TokioIo::new(noise), service).await {
        tracing::debug!(machine = %machine.short(), %error, "session ended");
    }
}

fn websocket_accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = |name, value: &str| {
        let header = headers.get(name).and_then(|header| header.to_str().ok()).unwrap_or_default();
        header.split(',').any(|item| item.trim().eq_ignore_ascii_case(value))
    };
    let ours = named(header::UPGRADE, "websocket") && named(header::SEC_WEBSOCKET_PROTOCOL, UPGRADE);
    if !ours || headers.get(header::SEC_WEBSOCKET_VERSION)? != "13" {
        return None;
    }
    HeaderValue::from_str(&derive_accept_key(headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes())).ok()
}

/// The handshake of a WebSocket, whose client cannot set headers (tailscale `control/controlhttp/client_js.go`).
fn initiation_in_query(query: Option<&str>) -> Option<Vec<u8>> {
    let value = query?
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == HANDSHAKE_HEADER))?
        .1;
    // Base64 has three signs that a query escapes.
    let value = value.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
    STANDARD.decode(value.replace("%2b", "+").replace("%2f", "/").replace("%3d", "=")).ok()
}

/// The bytes inside a WebSocket's binary messages, whose borders mean nothing; a task carries them both ways.
async fn unwrap_websocket<S>(stream: S) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE)).max_frame_size(Some(MESSAGE));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let (near, far) = tokio::io::duplex(MESSAGE);
    tokio::spawn(async move {
        let (mut messages_out, mut messages_in) = socket.split();
        let (mut bytes_in, mut bytes_out) = tokio::io::split(far);
        let inward = async {
            while let Some(Ok(message)) = messages_in.next().await {
                let Message::Binary(bytes) = message else { continue };
                if bytes_out.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        };
        let outward = async {
            let mut buffer = vec![0; MESSAGE];
            while let Ok(length @ 1..) = bytes_in.read(&mut buffer).await {
                let message = Message::binary(buffer[..length].to_vec());
                if messages_out.send(message).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = inward => {}
            () = outward => {}
        }
    });
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_of_a_websocket_is_in_its_query() {
        for query in [
            "a=b&X-Tailscale-Handshake=%2B%2F%2FA",
            "X-Tailscale-Handshake=%2b%2f%2fA&c",
            "X-Tailscale-Handshake=+//A",
        ] {
            assert_eq!(initiation_in_query(Some(query)), Some(vec![0xfb, 0xff, 0xc0]), "{query}");
        }
        assert_eq!(initiation_in_query(Some("X-Tailscale-Handshake=!")), None);
        assert_eq!(initiation_in_query(None), None);
    }

    #[tokio::test]
    async fn messages_of_a_websocket_are_one_byte_stream() {
        let (near, far) = tokio::io::duplex(MESSAGE);
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let mut bytes = unwrap_websocket(far).await;
        for piece in ["a", "bc"] {
            client.send(Message::binary(piece)).await.unwrap();
        }
        let mut seen = [0; 3];
        bytes.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"abc");
        bytes.write_all(b"answer").await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().into_data(), "answer");
        drop(bytes);
        assert!(!matches!(client.next().await, Some(Ok(Message::Binary(_)))));
    }
}
