//! The relay alone: `underpass relay`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use transport::stream::{BoxStream, Stream};
use transport::tls::{self, Trust};
use types::MeshKey;

use crate::{
    Config, HttpStream, MeshPeer, Relay, Strangers, StunOptions, VerifyUrl, load_or_create_key,
    meta_certificate, notice_dead_peer,
};

/// For a TLS handshake, and for a request's head.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEAD: usize = 16 << 10;
/// When no file descriptor is left, others must be closed before it makes sense to accept again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What clients are told when the relay stops: come back soon, spread by their own jitter.
const RECONNECT_IN: Duration = Duration::from_secs(1);
const TRY_FOR: Duration = Duration::from_secs(5);
/// So long may the farewell take.
const FAREWELL: Duration = Duration::from_millis(200);

/// What a relay of its own is started with.
#[derive(Clone)]
pub struct Options {
    /// Where to accept DERP.
    pub listen: SocketAddr,
    /// Where to answer STUN; `None` is nowhere.
    pub stun: Option<SocketAddr>,
    /// How to answer it.
    pub stun_options: StunOptions,
    /// Where to show the counters as Prometheus text; `None` is nowhere. Give an address strangers cannot reach.
    pub metrics: Option<SocketAddr>,
    /// PEM files of certificate chain and key; `None` when a proxy in front does TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Folder of the relay's key.
    pub state: PathBuf,
    /// Whom to ask about clients.
    pub admit: Admit,
    /// The other servers of the region, and what they know each other by.
    pub mesh: Option<Mesh>,
    /// Queues and rates.
    pub relay: Config,
}

/// Who may use the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Whom a coordination server's `/verify` at this URL allows; nobody while it cannot be asked.
    Verified(String),
    /// Every node of every network.
    Everyone,
}

/// The servers of one region.
#[derive(Clone)]
pub struct Mesh {
    /// What all of them share.
    pub key: MeshKey,
    /// Whom this one connects to; it may be among them.
    pub with: Vec<MeshPeer>,
}

impl Mesh {
    /// Connects `relay` with the other servers; ends when the set is dropped.
    pub fn start(self, relay: &Relay, trust: &Trust) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for peer in self.with {
            let (relay, trust) = (relay.clone(), trust.clone());
            tasks.spawn(async move { relay.mesh_with(peer, trust).await });
        }
        tasks
    }
}

/// Runs until `stop` resolves or a listener fails.
///
/// # Errors
/// When an address is taken, a file is unusable or a listener fails.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let relay = build(&options)?;
    let tls = options.tls.as_ref().map(|(chain, key)| acceptor(&relay, chain, key)).transpose()?;
    let listener = bind(options.listen, "DERP").await?;
    let trust = Trust::system(None)?;
    let _mesh = options.mesh.map(|mesh| mesh.start(&relay, &trust));
    tracing::info!(listen = %listener.local_addr()?, key = %relay.public_key(), "relay started");
    let stun = async {
        let Some(address) = options.stun else { return std::future::pending().await };
        let socket = UdpSocket::bind(address).await;
        let socket = socket.with_context(|| format!("cannot answer STUN on {address}"))?;
        Err(relay
            .run_stun(socket, options.stun_options)
            .await
            .err()
            .map_or_else(|| anyhow::anyhow!("STUN ended"), Into::into))
    };
    let metrics = async {
        let Some(address) = options.metrics else { return std::future::pending().await };
        serve_metrics(bind(address, "metrics").await?, &relay).await
    };
    tokio::select! {
        failed = accept(&listener, tls, &relay) => failed,
        failed = stun => failed,
        failed = metrics => failed,
        () = stop => {
            relay.announce_restart(RECONNECT_IN, TRY_FOR);
            sleep(FAREWELL).await;
            Ok(())
        }
    }
}

fn build(options: &Options) -> anyhow::Result<Relay> {
    let key = load_or_create_key(&options.state)?;
    let mesh_key = options.mesh.as_ref().map(|mesh| mesh.key.clone());
    Ok(match &options.admit {
        Admit::Verified(url) => {
            let verify = VerifyUrl::new(url, Trust::system(None)?)?;
            Relay::with_mesh(options.relay, key, mesh_key, verify)
        }
        Admit::Everyone => {
            tracing::warn!("--verify-clients=false: every node of every network may use this relay");
            Relay::with_mesh(options.relay, key, mesh_key, |_, _| async { Ok(()) })
        }
    })
}

fn acceptor(relay: &Relay, chain: &PathBuf, key: &PathBuf) -> anyhow::Result<TlsAcceptor> {
    let read =
        |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut chain = read(chain)?;
    chain.push(b'\n');
    chain.extend_from_slice(meta_certificate(&relay.public_key())?.as_bytes());
    Ok(tls::acceptor(&chain, &read(key)?)?)
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot accept {what} connections on {address}"))
}

async fn accept(listener: &TcpListener, tls: Option<TlsAcceptor>, relay: &Relay) -> anyhow::Result<()> {
    let strangers = Strangers::default();
    loop {
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(stranger) = strangers.admit(source.ip()) else {
            tracing::debug!(%source, "too many connections of strangers: closed");
            continue;
        };
        let (relay, tls) = (relay.clone(), tls.clone());
        tokio::spawn(async move {
            // Until the upgrade: a login has a bound of its own.
            let _stranger = stranger;
            match secure(stream, tls).await {
                Ok(stream) => relay.serve_http(stream, source).await,
                Err(error) => tracing::debug!(%source, %error, "TLS handshake failed"),
            }
        });
    }
}

async fn secure(stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<BoxStream> {
    notice_dead_peer(&stream)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let handshake = timeout(HELLO_TIMEOUT, tls.accept(stream)).await;
    Ok(Box::new(handshake.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??))
}

impl Relay {
    /// Speaks HTTP/1.1 on a stream, with upgrades and fast start; paths that are not the relay's are answered 404.
    pub async fn serve_http<S: Stream + 'static>(&self, stream: S, source: SocketAddr) {
        let (stream, fast_start) = HttpStream::new(stream);
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(fast_start.clone());
            let answer = self.handle_http(request, source);
            async {
                Ok::<_, hyper::Error>(answer.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, String::new())))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HELLO_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(%source, %error, "HTTP connection failed");
        }
    }
}

async fn serve_metrics(listener: TcpListener, relay: &Relay) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let relay = relay.clone();
        tokio::spawn(async move {
            let service = service_fn(|_: Request<Incoming>| {
                let text = relay.metrics();
                async { Ok::<_, hyper::Error>(plain(StatusCode::OK, text)) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = timeout(HELLO_TIMEOUT, connection).await;
        });
    }
}

fn plain(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
