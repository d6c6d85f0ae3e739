//! The server's HTTP face: one listener for control, DERP and the pages, with or without TLS.
//!
//! `routes` answers what anybody may ask; `ts2021` switches to Noise, inside which `machine` answers nodes over HTTP/2,
//! map streams by `stream`. Whoever has not yet proven a key gets little: bodies are capped, every step has a deadline.

mod machine;
mod routes;
mod stream;
mod ts2021;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use relay::{HttpStream, Relay, Strangers, notice_dead_peer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use types::MachinePrivate;

use crate::config::ServerUrl;
use crate::coordinator::Handle;

/// The longest body a request may have.
const MAX_BODY: usize = 1 << 20;
/// The longest registration: anybody may send one, and it is kept while it waits for an administrator.
const MAX_REGISTRATION: usize = 64 << 10;
/// How long a TLS handshake, a request's head and its body may each take.
const STEP_DEADLINE: Duration = Duration::from_secs(15);
/// After an accept has failed (no file descriptor left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A body of either kind: whole, or streamed.
type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// What every connection needs.
pub(crate) struct Site {
    pub(crate) coordinator: Handle,
    pub(crate) relay: Relay,
    pub(crate) noise_key: MachinePrivate,
    pub(crate) url: ServerUrl,
}

/// Accepts connections until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, site: Arc<Site>) {
    let strangers = Strangers::default();
    loop {
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = notice_dead_peer(&stream) {
            tracing::debug!(%source, %error, "connection lost at once");
            continue;
        }
        let Some(stranger) = strangers.admit(source.ip()) else {
            tracing::debug!(%source, "too many connections of strangers: closed");
            continue;
        };
        let (tls, site) = (tls.clone(), site.clone());
        tokio::spawn(async move {
            // Until the upgrade, which needs a handshake or a login.
            let _stranger = stranger;
            let ended = match tls {
                None => connection(stream, source, site).await,
                Some(tls) => match timeout(STEP_DEADLINE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, source, site).await,
                    Ok(Err(error)) => Err(error.into()),
                    Err(_) => Err("the TLS handshake took too long".into()),
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%source, %error, "connection ended");
            }
        });
    }
}

async fn connection<S>(
    stream: S,
    source: SocketAddr,
    site: Arc<Site>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (stream, fast_start) = HttpStream::new(stream);
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(fast_start.clone());
        let site = site.clone();
        async move { Ok::<_, Infallible>(routes::answer(&site, request, source).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(STEP_DEADLINE);
    http.serve_connection(TokioIo::new(stream), service).with_upgrades().await?;
    Ok(())
}

/// A request's body as JSON, or the answer that says why not.
async fn read_json<B, T>(body: B, limit: usize) -> Result<T, Response<AnyBody>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    T: DeserializeOwned,
{
    let collected = timeout(STEP_DEADLINE, Limited::new(body, limit).collect()).await;
    let bytes = match collected {
        Ok(Ok(bytes)) => bytes.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let why = format!("the request is longer than {} KiB\n", limit >> 10);
            return Err(text(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        Ok(Err(_)) => return Err(text(StatusCode::BAD_REQUEST, "the request broke off\n")),
        Err(_) => return Err(text(StatusCode::REQUEST_TIMEOUT, "the request took too long\n")),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        text(StatusCode::BAD_REQUEST, format!("the request is not what it should be: {error}\n"))
    })
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<AnyBody> {
    typed(status, "text/plain; charset=utf-8", body.into())
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<AnyBody> {
    match serde_json::to_vec(value) {
        Ok(body) => typed(status, "application/json", body.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Response<AnyBody> {
    let mut response = Response::new(whole(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn whole(body: Full<Bytes>) -> AnyBody {
    body.boxed_unsync()
}

/// Why a listener could not be had, with who has the port where that is the reason.
pub(crate) fn bind_failure(flag: &str, addr: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = addr.port();
            format!(
                "; another process has this port: `ss -lntup sport = :{port}` names it, or choose another with {flag}"
            )
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned(),
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address".to_owned(),
        _ => String::new(),
    };
    format!("cannot listen on {addr} ({flag}): {error}{advice}")
}
