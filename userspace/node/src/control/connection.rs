//! One connection to the server: its key, ts2021, and requests over HTTP/2 inside.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::timeout;
use transport::dial::Dialer;
use transport::stream::BoxStream;
use transport::tls::Expect;
use transport::{ts2021, upgrade};
use types::{CapabilityVersion, MachinePublic, NodePublic};
use wire::control::OverTlsPublicKeyResponse;

use super::server_url::Route;
use super::{Config, Failure};

/// For everything from the first packet to an open session, and for one short request.
const DEADLINE: Duration = Duration::from_secs(20);
/// How often an open request asks whether the server still lives: a login may be held for an hour without a byte.
const ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// The longest answer that is not a map.
const MAX_ANSWER: usize = 1 << 20;
/// As much of a refusal as is shown.
const MAX_REFUSAL: usize = 300;
/// How long a busy server that does not say so is left alone.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(8);
/// Tells load balancers which node this is (`tailcfg.LBHeader`).
const LB_HEADER: &str = "Ts-Lb";

/// What `GET /key` tells.
#[derive(Clone, Copy)]
pub(super) struct ServerKey {
    /// The way it was asked, which sessions then go too.
    route: Route,
    /// The server's Noise key.
    pub(super) key: MachinePublic,
    /// Seconds the server's clock is ahead of ours.
    pub(super) ahead: Option<i64>,
}

/// An open session. Clones share it; it closes with the last one.
#[derive(Clone)]
pub(super) struct Connection {
    requests: SendRequest<Full<Bytes>>,
    authority: String,
}

/// Asks the server for its key by the first way that works. The failure is the first way's: that is what the user gave.
pub(super) async fn fetch_key(config: &Config) -> Result<ServerKey, Failure> {
    let mut failure = None;
    for route in config.server.routes() {
        match within(DEADLINE, fetch_key_by(config, route)).await {
            Ok(key) => return Ok(key),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| Failure::Lost("no way to the server".to_owned())))
}

async fn fetch_key_by(config: &Config, route: Route) -> Result<ServerKey, Failure> {
    let path = format!("/key?v={}", CapabilityVersion::CURRENT);
    let not_control = |why: String| Failure::NotControl { url: format!("{}{path}", config.server), why };
    let stream = dial(config, config.server.host(), route).await?;
    let request = upgrade::request(Method::GET, &path, &config.server.authority())
        .map_err(|error| Failure::Protocol(error.to_string()))?;
    let answer = upgrade::send(stream, request, MAX_ANSWER).await?;
    if answer.status() != StatusCode::OK {
        return Err(not_control(refusal(answer.status(), answer.body())));
    }
    let keys: OverTlsPublicKeyResponse =
        serde_json::from_slice(answer.body()).map_err(|error| not_control(error.to_string()))?;
    if keys.public_key.is_zero() {
        return Err(not_control("it has no Noise key".to_owned()));
    }
    Ok(ServerKey { route, key: keys.public_key, ahead: ahead(answer.headers(), Timestamp::now()) })
}

/// Opens a session with the server that has `key`. The connection lives in `tasks`.
pub(super) async fn open(
    config: &Config,
    key: &ServerKey,
    tasks: &mut JoinSet<Result<(), Failure>>,
) -> Result<Connection, Failure> {
    let authority = config.server.authority();
    let opening = async {
        let stream = dial(config, config.server.host(), key.route).await?;
        let version = CapabilityVersion::CURRENT;
        let session = ts2021::connect(stream, &authority, &config.machine, key.key, version).await?;
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(ALIVE_INTERVAL)
            .keep_alive_timeout(DEADLINE)
            .handshake(TokioIo::new(session))
            .await
            .map_err(|error| Failure::Lost(error.to_string()))
    };
    let (requests, driver) = within(DEADLINE, opening).await?;
    tasks.spawn(async move {
        match driver.await {
            Ok(()) => Err(Failure::Lost("closed by the server".to_owned())),
            Err(error) => Err(Failure::Lost(error.to_string())),
        }
    });
    Ok(Connection { requests, authority })
}

/// A stream to `host`, with TLS where the route says so.
pub(super) async fn dial(config: &Config, host: &str, route: Route) -> Result<BoxStream, Failure> {
    let dialer = Dialer { mark: config.mark, ..Dialer::default() };
    let stream = dialer.tcp(host, route.port).await?;
    if !route.tls {
        return Ok(Box::new(stream));
    }
    Ok(Box::new(config.trust.connect(stream, host, &Expect::Host).await?))
}

impl Connection {
    /// Posts `body` as JSON. `refused` says what a refusal (4xx) means here.
    pub(super) async fn post<T: Serialize>(
        &self,
        path: &str,
        node_key: NodePublic,
        body: &T,
        refused: fn(String) -> Failure,
    ) -> Result<Response<Incoming>, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Protocol(error.to_string()))?;
        let request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, "application/json")
            .header(LB_HEADER, node_key.to_string())
            .body(Full::from(body));
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::Busy(retry_after(answer.headers(), Timestamp::now())))
            }
            status => {
                let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
                let why = refusal(status, &body.map(http_body_util::Collected::to_bytes).unwrap_or_default());
                Err(if status.is_client_error() { refused(why) } else { Failure::Server(why) })
            }
        }
    }

    /// Posts `body` and reads the whole answer.
    pub(super) async fn ask<T: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        node_key: NodePublic,
        body: &T,
        refused: fn(String) -> Failure,
    ) -> Result<A, Failure> {
        let answer = self.post(path, node_key, body, refused).await?;
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| Failure::Lost(error.to_string()))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| Failure::Protocol(error.to_string()))
    }

    /// A request to this server; `path` with its query.
    pub(super) fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(format!("https://{}{path}", self.authority))
    }

    /// Sends it, and waits for the answer's head.
    pub(super) async fn send(
        &self,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
    ) -> Result<Response<Incoming>, Failure> {
        let request = request.map_err(|error| Failure::Protocol(error.to_string()))?;
        let mut requests = self.requests.clone();
        requests.send_request(request).await.map_err(|error| Failure::Lost(error.to_string()))
    }
}

/// `work`, unless it takes longer than a user should wait for an error.
pub(super) async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Lost(format!("no answer within {} s", deadline.as_secs()))),
    }
}

/// A refusal in the server's words.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).trim().chars().take(MAX_REFUSAL).collect();
    if text.is_empty() { status.to_string() } else { format!("{text} ({status})") }
}

/// Seconds the server's `Date` is ahead of `now`.
fn ahead(headers: &HeaderMap, now: Timestamp) -> Option<i64> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let date = DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(date.as_second() - now.as_second())
}

/// `Retry-After`, in seconds or as a date; at most an hour (tailscale `controlclient/direct.go`).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Duration {
    let asked = || {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
        let seconds = text.parse().ok().or_else(|| {
            Some(DateTimeParser::new().parse_timestamp(text).ok()?.as_second() - now.as_second())
        })?;
        u64::try_from(seconds).ok().filter(|seconds| (1..=3600).contains(seconds))
    };
    asked().map_or(DEFAULT_RETRY_AFTER, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: hyper::header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, hyper::header::HeaderValue::from_static(value))])
    }

    #[test]
    fn the_servers_clock_is_read_from_date() {
        let now = "2026-11-15T08:12:31Z".parse().unwrap();
        assert_eq!(ahead(&headers(DATE, "Sun, 15 Nov 2026 08:13:31 GMT"), now), Some(60));
        assert_eq!(ahead(&headers(DATE, "soon"), now), None);
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = "2026-11-15T08:12:31Z".parse().unwrap();
        for (text, seconds) in
            [("120", 120), ("Sun, 15 Nov 2026 08:13:31 GMT", 60), ("-5", 8), ("1000000", 8), ("soon", 8)]
        {
            assert_eq!(retry_after(&headers(RETRY_AFTER, text), now).as_secs(), seconds, "{text}");
        }
    }
}
