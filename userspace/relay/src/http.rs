//! The HTTP face of a DERP server (tailscale `derp/derpserver/handler.go`): `/derp`, its probes and `/generate_204`.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use wire::derp::{FAST_START_HEADER, VERSION};

use crate::websocket::WebSocketStream;
use crate::{FastStart, Relay, websocket};

const CHALLENGE: HeaderName = HeaderName::from_static("x-tailscale-challenge");
const CHALLENGE_RESPONSE: HeaderName = HeaderName::from_static("x-tailscale-response");
const MAX_CHALLENGE: usize = 64;
/// What a request to `/derp` asks for.
enum Upgrade {
    Derp,
    /// DERP in binary messages, for browsers.
    WebSocket {
        accept: HeaderValue,
    },
}

impl Relay {
    /// Answers a request to one of the relay's paths, `None` for every other. An upgrade's session runs in a task of its own.
    /// `source` is the client's address. For [`FastStart`], the connection's must be among the request's extensions.
    pub fn handle_http<B>(&self, request: Request<B>, source: SocketAddr) -> Option<Response<Full<Bytes>>>
    where
        B: Send + 'static,
    {
        match request.uri().path() {
            "/derp" => Some(self.upgrade(request, source)),
            "/derp/probe" | "/derp/latency-check" => Some(probe(request.method())),
            "/generate_204" => Some(no_content(request.headers())),
            _ => None,
        }
    }

    fn upgrade<B: Send + 'static>(&self, request: Request<B>, source: SocketAddr) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let upgrade = match Upgrade::asked(&parts) {
            Ok(upgrade) => upgrade,
            Err((status, why)) => return text(status, why),
        };
        if parts.headers.get(FAST_START_HEADER).is_some_and(|value| value == "1") {
            let Some(fast_start) = parts.extensions.get::<FastStart>() else {
                return text(StatusCode::BAD_REQUEST, "this listener does not offer Derp-Fast-Start\n");
            };
            fast_start.arm();
        }
        let response = upgrade.response(&self.public_key().to_string());
        let upgraded = hyper::upgrade::on(Request::from_parts(parts, body));
        let relay = self.clone();
        tokio::spawn(async move {
            let stream = match upgraded.await {
                Ok(stream) => TokioIo::new(stream),
                Err(error) => return tracing::debug!(%source, %error, "DERP upgrade failed"),
            };
            let ended = match upgrade {
                Upgrade::Derp => relay.serve_connection(stream, source).await,
                Upgrade::WebSocket { .. } => {
                    let stream = WebSocketStream::server(stream).await;
                    relay.serve_connection(stream, source).await
                }
            };
            if let Err(reason) = ended {
                tracing::debug!(%source, %reason, "DERP session ended");
            }
        });
        response
    }
}

impl Upgrade {
    fn asked(parts: &Parts) -> Result<Self, (StatusCode, &'static str)> {
        let named = |name: HeaderName, value: &str| {
            let header = parts.headers.get(name).and_then(|header| header.to_str().ok()).unwrap_or_default();
            header.to_ascii_lowercase().split(',').any(|item| item.trim() == value)
        };
        if named(header::UPGRADE, "websocket")
            && named(header::SEC_WEBSOCKET_PROTOCOL, websocket::SUBPROTOCOL)
        {
            return match websocket::accept(&parts.headers) {
                Some(accept) => Ok(Self::WebSocket { accept }),
                None => Err((StatusCode::BAD_REQUEST, "not a WebSocket handshake of version 13\n")),
            };
        }
        // Very old clients say "WebSocket" and speak plain DERP.
        if named(header::UPGRADE, "derp") || named(header::UPGRADE, "websocket") {
            return Ok(Self::Derp);
        }
        Err((StatusCode::UPGRADE_REQUIRED, "DERP requires connection upgrade\n"))
    }

    fn response(&self, public_key: &str) -> Response<Full<Bytes>> {
        let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::Derp => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("DERP"));
                headers.insert("derp-version", HeaderValue::from(VERSION));
                let digits = public_key.trim_start_matches(types::NodePublic::PREFIX);
                if let Ok(digits) = HeaderValue::from_str(digits) {
                    headers.insert("derp-public-key", digits);
                }
            }
            Self::WebSocket { accept } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
                headers
                    .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(websocket::SUBPROTOCOL));
            }
        }
        response
    }
}

/// What clients without UDP measure latency by.
fn probe(method: &Method) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "bogus probe method\n");
    }
    let mut response = text(StatusCode::OK, "");
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// What clients find captive portals by: a portal can answer 204 but does not know the challenge.
fn no_content(request: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::NO_CONTENT, "");
    let headers = response.headers_mut();
    let challenge =
        request.get(CHALLENGE).and_then(|value| value.to_str().ok()).filter(|text| is_challenge(text));
    if let Some(Ok(answer)) = challenge.map(|text| HeaderValue::from_str(&format!("response {text}"))) {
        headers.insert(CHALLENGE_RESPONSE, answer);
    }
    let no_cache = "no-cache, no-store, must-revalidate, no-transform, max-age=0";
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(no_cache));
    response
}

fn is_challenge(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    !text.is_empty() && text.len() <= MAX_CHALLENGE && text.bytes().all(allowed)
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}
