//! The server under test, and a node that is no more than its keys and its Noise connection.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use control::admin::{Client, CreateKey, CreateUser};
use control::{Config, Options};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use transport::tls::{Expect, Trust};
use types::{CapabilityVersion, MachinePrivate, NodePublic};
use wire::control::{
    AuthKey, Frames, Hostinfo, MapRequest, MapResponse, OverTlsPublicKeyResponse, RegisterAuth,
    RegisterRequest, RegisterResponse,
};

/// Nothing here takes longer, unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where a server keeps its things and listens.
pub(crate) struct Place {
    folder: TempDir,
    addr: SocketAddr,
}

/// A server in this process.
pub(crate) struct Server {
    place: Place,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Deref for Server {
    type Target = Place;
    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::launch(Place::new()).await
    }

    async fn launch(place: Place) -> Self {
        let (stop, stopped) = oneshot::channel();
        let config = place.config();
        let task = tokio::spawn(control::run_until(config, async {
            let _ = stopped.await;
        }));
        place.answers().await;
        Self { place, stop, task }
    }

    pub(crate) async fn restart(self) -> Self {
        self.stop.send(()).unwrap();
        timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
        Self::launch(self.place).await
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
    }
}

impl Place {
    /// A folder of its own, and a free port.
    pub(crate) fn new() -> Self {
        let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), addr }
    }

    /// Waits until the server there answers.
    pub(crate) async fn answers(&self) {
        let connected = async {
            while Client::connect(self.config().socket).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, connected).await.expect("the server does not answer");
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    pub(crate) fn config(&self) -> Config {
        config(self.folder.path(), self.addr)
    }

    pub(crate) async fn admin(&self) -> Client {
        Client::connect(self.config().socket).await.unwrap()
    }

    /// A key of a user, who is made when absent.
    pub(crate) async fn key(&self, wish: CreateKey) -> String {
        let mut admin = self.admin().await;
        let _ = admin.create_user(&CreateUser { name: wish.user.clone() }).await;
        admin.create_key(&wish).await.unwrap().key
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.ask(Method::GET, path, String::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: String) -> String {
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&self, method: Method, path: &str, body: String) -> String {
        let request = Request::builder().method(method).uri(path).header("host", "test");
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let answer = transport::upgrade::send(self.tls().await, request, 1 << 20).await.unwrap();
        String::from_utf8(answer.into_body().to_vec()).unwrap()
    }

    /// A TLS connection that trusts the server by its own certificate file.
    async fn tls(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let pem = std::fs::read(self.folder.path().join("state/tls.crt")).unwrap();
        let stream = TcpStream::connect(self.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Trust::pem(&pem).unwrap().connect(stream, "127.0.0.1", &Expect::Host).await.unwrap()
    }
}

/// A server in `folder` on `addr`.
pub(crate) fn config(folder: &Path, addr: SocketAddr) -> Config {
    Config::try_from(Options {
        state: Some(folder.join("state")),
        url: Some(format!("https://{addr}")),
        listen: Some(addr),
        stun: Some("127.0.0.1:0".parse().unwrap()),
        socket: Some(folder.join("admin.sock")),
        ..Options::default()
    })
    .unwrap()
}

pub(crate) fn node_key(n: u8) -> NodePublic {
    NodePublic::from_bytes([n; 32])
}

/// Node `n` registers as `host-n` with `key`, or with none.
pub(crate) fn request(n: u8, key: &str) -> RegisterRequest {
    let auth_key = AuthKey(key.to_owned());
    RegisterRequest {
        version: CapabilityVersion::CURRENT,
        node_key: node_key(n),
        auth: (!key.is_empty()).then_some(RegisterAuth { auth_key }),
        hostinfo: Some(Hostinfo { hostname: format!("host-{n}"), ..Hostinfo::default() }),
        ..RegisterRequest::default()
    }
}

pub(crate) fn map_request(n: u8, compress: &str) -> MapRequest {
    MapRequest {
        version: CapabilityVersion::CURRENT,
        node_key: node_key(n),
        compress: compress.to_owned(),
        keep_alive: true,
        ..MapRequest::default()
    }
}

pub(crate) struct Machine {
    http: SendRequest<Full<Bytes>>,
}

impl Machine {
    /// Connects with machine key `n`.
    pub(crate) async fn new(n: u8, server: &Place) -> Self {
        let key: OverTlsPublicKeyResponse = serde_json::from_str(&server.get("/key?v=130").await).unwrap();
        let machine = MachinePrivate::from_random([n; 32]);
        let stream = server.tls().await;
        let noise =
            transport::ts2021::connect(stream, "test", &machine, key.public_key, CapabilityVersion::CURRENT)
                .await;
        let noise = noise.unwrap_or_else(|error| panic!("{error}"));
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(noise));
        let (http, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        Self { http }
    }

    /// Whether the server acknowledged; not when it dies before.
    pub(crate) async fn try_register(&self, request: &RegisterRequest) -> bool {
        let body = Full::new(Bytes::from(serde_json::to_vec(request).unwrap()));
        let request = Request::post("https://test/machine/register").body(body).unwrap();
        let Ok(Ok(response)) = timeout(DEADLINE, self.http.clone().send_request(request)).await else {
            return false;
        };
        let Ok(body) = response.into_body().collect().await else { return false };
        serde_json::from_slice::<RegisterResponse>(&body.to_bytes())
            .is_ok_and(|answer| answer.machine_authorized)
    }

    pub(crate) async fn register(&self, request: &RegisterRequest) -> RegisterResponse {
        let (status, text) = self.post("/machine/register", request).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> (u16, String) {
        let response = self.send(path, body).await;
        let status = response.status().as_u16();
        let body = timeout(DEADLINE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    pub(crate) async fn stream(&self, n: u8, compress: &str) -> Stream {
        let request = MapRequest { stream: true, ..map_request(n, compress) };
        let body = self.send("/machine/map", &request).await.into_body();
        Stream { body, frames: Frames::new(compress == "zstd", 1 << 20) }
    }

    async fn send(&self, path: &str, body: &impl Serialize) -> hyper::Response<hyper::body::Incoming> {
        let body = Full::new(Bytes::from(serde_json::to_vec(body).unwrap()));
        let request = Request::post(format!("https://test{path}")).body(body).unwrap();
        timeout(DEADLINE, self.http.clone().send_request(request)).await.unwrap().unwrap()
    }
}

pub(crate) struct Stream {
    body: hyper::body::Incoming,
    frames: Frames,
}

impl Stream {
    pub(crate) async fn next(&mut self) -> MapResponse {
        timeout(DEADLINE, self.message()).await.expect("no message in time").expect("the stream ended")
    }

    pub(crate) async fn ended(&mut self) -> bool {
        timeout(DEADLINE, self.message()).await.expect("the stream goes on").is_none()
    }

    /// Whether nothing comes for so long.
    pub(crate) async fn silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.message()).await.is_err()
    }

    async fn message(&mut self) -> Option<MapResponse> {
        loop {
            if let Some(json) = self.frames.poll().unwrap() {
                return Some(MapResponse::decode(&json).unwrap());
            }
            let frame = self.body.frame().await?.ok()?;
            self.frames.push(&frame.into_data().unwrap());
        }
    }
}
