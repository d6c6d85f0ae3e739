//! `watch-ipn-bus`: a stream of JSON lines that ends only when the client or the node does.
//!
//! A watcher gets the state it asked for first, then everything its mask lets through. One that reads too slowly is cut
//! off, as Tailscale does: it could not know what it missed.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use wire::local::{Notify, NotifyMask};

use super::VERSION;
use super::answer::{JSON, Problem};
use super::backend::Backend;
use super::request::{Request, Watch};

/// How often watchers that want engine updates get them (`ipn/ipnlocal/bus.go`).
const ENGINE_INTERVAL: Duration = Duration::from_secs(2);
/// Lines waiting for one connection; more wait in the bus.
const LINES: usize = 16;

pub(super) fn routes() -> Router<Backend> {
    Router::new().route("/watch-ipn-bus", get(watch))
}

#[derive(Deserialize)]
struct MaskQuery {
    #[serde(default)]
    mask: String,
}

async fn watch(
    State(backend): State<Backend>,
    Query(query): Query<MaskQuery>,
) -> Result<impl IntoResponse, Problem> {
    let mask = if query.mask.is_empty() { Ok(0) } else { query.mask.parse() };
    let mask = NotifyMask(mask.map_err(|_| Problem::bad_request("bad mask"))?);
    mask.check().map_err(|error| Problem::bad_request(error.to_string()))?;
    let watch = backend.ask(|reply| Request::Watch { reply }).await?;
    let first = first_message(&backend, &watch, mask).await?;
    let (lines, response) = stream();
    tokio::spawn(async move {
        if let Some(first) = first {
            lines.send(&first).await;
        }
        pump(backend, watch, mask, lines).await;
    });
    Ok(response)
}

/// What the mask asks to be told at once.
async fn first_message(
    backend: &Backend,
    watch: &Watch,
    mask: NotifyMask,
) -> Result<Option<Notify>, Problem> {
    let mut notify = Notify { version: VERSION.to_owned(), ..Notify::default() };
    let nothing = notify.clone();
    if mask.has(NotifyMask::INITIAL_STATE) {
        notify.session_id = session_id();
        notify.state = Some(watch.state);
        notify.browse_to_url.clone_from(&watch.browse_to_url);
    }
    if mask.has(NotifyMask::INITIAL_PREFS) {
        notify.prefs = Some(watch.prefs.clone());
    }
    if mask.has(NotifyMask::INITIAL_HEALTH) {
        notify.health = Some(watch.health.clone());
    }
    if mask.has(NotifyMask::INITIAL_NETMAP) {
        notify.net_map = backend.ask(|reply| Request::NetMap { reply }).await?;
    }
    if mask.has(NotifyMask::INITIAL_STATUS) {
        let status = backend.ask(|reply| Request::Status { peers: true, reply }).await?;
        notify.initial_status = Some(Box::new(status));
    }
    Ok((notify != nothing).then_some(notify))
}

/// Carries the bus to one connection until either end closes.
async fn pump(backend: Backend, mut watch: Watch, mask: NotifyMask, lines: Lines) {
    let mut engine = interval(ENGINE_INTERVAL);
    engine.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let notify = tokio::select! {
            () = lines.closed() => return,
            update = watch.updates.recv() => match update {
                Ok(notify) => notify.filtered(mask),
                Err(_) => return,
            },
            _ = engine.tick(), if mask.has(NotifyMask::ENGINE_UPDATES) => {
                match backend.ask(|reply| Request::Engine { reply }).await {
                    Ok(engine) => Some(Notify { engine: Some(engine), ..Notify::default() }),
                    Err(_) => return,
                }
            }
        };
        if let Some(mut notify) = notify {
            VERSION.clone_into(&mut notify.version);
            lines.send(&notify).await;
        }
    }
}

/// Sixteen hex digits nobody else has.
fn session_id() -> String {
    let mut bytes = [0; 8];
    // Without randomness the id is the same for all; nothing depends on it but a reader's log.
    let _ = getrandom::fill(&mut bytes);
    format!("{:016x}", u64::from_be_bytes(bytes))
}

/// The writing end of a streamed answer.
pub(super) struct Lines(mpsc::Sender<Bytes>);

/// A streamed answer and what feeds it.
pub(super) fn stream() -> (Lines, Response) {
    let (sender, receiver) = mpsc::channel(LINES);
    (Lines(sender), ([JSON], Body::new(LineBody(receiver))).into_response())
}

impl Lines {
    /// Writes one JSON line; waits while the connection is slow, does nothing when it is gone.
    pub(super) async fn send(&self, value: &impl Serialize) {
        if let Ok(mut line) = serde_json::to_vec(value) {
            line.push(b'\n');
            // A closed connection shows in `closed`, which every feeder watches.
            let _ = self.0.send(line.into()).await;
        }
    }

    /// Completes when the client is gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

struct LineBody(mpsc::Receiver<Bytes>);

impl hyper::body::Body for LineBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
