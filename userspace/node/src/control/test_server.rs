//! A control server made for the client's tests: real sockets on loopback, HTTP, Noise, HTTP/2, map streams.
//!
//! What it answers is scripted; what it was asked is kept.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;
use transport::noise::NoiseStream;
use transport::ts2021::initiation;
use types::{ChallengePublic, MachinePrivate};
use wire::control::{EarlyNoise, MapRequest, OverTlsPublicKeyResponse, RegisterRequest, RegisterResponse};

use super::ServerUrl;

/// What has not happened by then does not happen.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

pub(super) type Answer = Response<ScriptBody>;

/// What the test's server does, and what it has seen.
#[derive(Default)]
pub(super) struct Server {
    /// Answers to registrations, first to last; the last one stays.
    registrations: Mutex<Vec<(StatusCode, RegisterResponse)>>,
    /// Bodies of map streams to come, frame by frame; without one a stream is refused.
    streams: Mutex<Vec<UnboundedReceiver<Bytes>>>,
    /// What it was asked.
    pub(super) seen: Mutex<Vec<Seen>>,
    changed: tokio::sync::Notify,
    /// Sent as `Date` with the key.
    pub(super) date: Mutex<Option<&'static str>>,
}

#[derive(Clone, Debug)]
pub(super) enum Seen {
    Register(Box<RegisterRequest>),
    Stream(Box<MapRequest>),
    Update(Box<MapRequest>),
    Other(String, Bytes),
}

/// A body that is given whole, or as a stream.
pub(super) enum ScriptBody {
    Whole(Full<Bytes>),
    Stream(UnboundedReceiver<Bytes>),
}

impl Body for ScriptBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Stream(frames) => frames.poll_recv(cx).map(|bytes| Some(Ok(Frame::data(bytes?)))),
        }
    }
}

fn server_key() -> MachinePrivate {
    MachinePrivate::from_random([2; 32])
}

pub(super) fn respond(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(ScriptBody::Whole(Full::new(body.into())));
    *answer.status_mut() = status;
    answer
}

fn json<T: Serialize>(status: StatusCode, body: &T) -> Answer {
    respond(status, serde_json::to_vec(body).unwrap())
}

impl Server {
    /// A server that answers registrations like this, the last one for good.
    pub(super) fn new(registrations: Vec<(StatusCode, RegisterResponse)>) -> Arc<Self> {
        Arc::new(Self { registrations: Mutex::new(registrations), ..Self::default() })
    }

    /// Listens on loopback; the URL leads there.
    pub(super) async fn start(self: &Arc<Self>) -> ServerUrl {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.clone().outer(stream));
            }
        });
        url
    }

    /// HTTP/1.1 outside of Noise.
    async fn outer(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| self.clone().outer_request(request));
        let http = hyper::server::conn::http1::Builder::new();
        let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    }

    async fn outer_request(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Answer, Infallible> {
        if request.uri().path() == "/key" {
            let keys = OverTlsPublicKeyResponse { public_key: server_key().public(), ..Default::default() };
            let mut answer = json(StatusCode::OK, &keys);
            if let Some(date) = *self.date.lock().unwrap() {
                answer.headers_mut().insert("Date", date.parse().unwrap());
            }
            return Ok(answer);
        }
        let initiation = initiation(request.headers()).unwrap();
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let stream = TokioIo::new(upgraded.await.unwrap());
            let early = EarlyNoise { node_key_challenge: ChallengePublic::from_bytes([7; 32]) };
            let session =
                NoiseStream::accept(stream, &initiation, &server_key(), Some(&early)).await.ok().unwrap();
            let service = service_fn(|request| self.clone().inner_request(request));
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = http.serve_connection(TokioIo::new(session), service).await;
        });
        let mut answer = respond(StatusCode::SWITCHING_PROTOCOLS, "");
        answer.headers_mut().insert("Upgrade", "tailscale-control-protocol".parse().unwrap());
        answer.headers_mut().insert("Connection", "upgrade".parse().unwrap());
        Ok(answer)
    }

    /// HTTP/2 inside.
    async fn inner_request(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok(match path.as_str() {
            "/machine/register" => self.register(&body),
            "/machine/map" => self.map(&body),
            _ => {
                self.note(Seen::Other(path, body));
                respond(StatusCode::OK, "")
            }
        })
    }

    fn register(&self, body: &[u8]) -> Answer {
        self.note(Seen::Register(serde_json::from_slice(body).unwrap()));
        let mut script = self.registrations.lock().unwrap();
        let (status, answer) = if script.len() > 1 { script.remove(0) } else { script[0].clone() };
        match status {
            StatusCode::OK => json(status, &answer),
            refusal => respond(refusal, answer.error),
        }
    }

    fn map(&self, body: &[u8]) -> Answer {
        let request: Box<MapRequest> = serde_json::from_slice(body).unwrap();
        if !request.stream {
            self.note(Seen::Update(request));
            return respond(StatusCode::OK, "");
        }
        self.note(Seen::Stream(request));
        let mut streams = self.streams.lock().unwrap();
        if streams.is_empty() {
            return respond(StatusCode::NOT_FOUND, "no such node");
        }
        Response::new(ScriptBody::Stream(streams.remove(0)))
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
        self.changed.notify_one();
    }

    /// Waits until something was seen that `pick` takes.
    pub(super) async fn saw<T>(&self, pick: impl Fn(&Seen) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = self.seen.lock().unwrap().iter().find_map(&pick) {
                    return found;
                }
                self.changed.notified().await;
            }
        };
        timeout(DEADLINE, wait).await.expect("the server did not see it")
    }

    /// A map stream that the client will get, and the frames for it.
    pub(super) fn stream(&self) -> UnboundedSender<Bytes> {
        let (frames, body) = mpsc::unbounded_channel();
        self.streams.lock().unwrap().push(body);
        frames
    }
}
