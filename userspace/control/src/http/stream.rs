//! A map stream as a response body: the full map, then deltas as they come, then keep-alives where nothing comes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use control_core::liveness::SessionId;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};
use wire::control::{MapResponse, encode_frame};

use crate::coordinator::{Handle, Input};

/// Clients give up after 120 s of silence; so many seconds, and up to [`KEEP_ALIVE_JITTER`] more, so that streams that
/// began together do not speak together.
const KEEP_ALIVE: Duration = Duration::from_secs(50);
const KEEP_ALIVE_JITTER: u8 = 10;

/// The body. When it is dropped, for whatever reason, the coordinator hears of it.
pub(super) struct MapStream {
    coordinator: Handle,
    session: SessionId,
    first: Option<Box<MapResponse>>,
    deltas: mpsc::Receiver<Box<MapResponse>>,
    compress: bool,
    keep_alive: bool,
    pause: Duration,
    silence: Pin<Box<Sleep>>,
}

impl MapStream {
    pub(super) fn new(
        coordinator: Handle,
        session: SessionId,
        first: Box<MapResponse>,
        deltas: mpsc::Receiver<Box<MapResponse>>,
        compress: bool,
        keep_alive: bool,
    ) -> Self {
        let [jitter] = crate::random();
        let pause = KEEP_ALIVE + Duration::from_secs((jitter % KEEP_ALIVE_JITTER).into());
        let silence = Box::pin(sleep(pause));
        Self { coordinator, session, first: Some(first), deltas, compress, keep_alive, pause, silence }
    }

    /// The frame of a message; `None`, which ends the stream, when it cannot be written.
    fn frame(&mut self, message: &MapResponse) -> Option<Result<Frame<Bytes>, Infallible>> {
        let deadline = Instant::now() + self.pause;
        self.silence.as_mut().reset(deadline);
        let json = serde_json::to_vec(message).ok()?;
        let frame = encode_frame(&json, self.compress).ok()?;
        Some(Ok(Frame::data(frame.into())))
    }
}

impl Body for MapStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(self.frame(&first));
        }
        if let Poll::Ready(delta) = self.deltas.poll_recv(cx) {
            return Poll::Ready(delta.and_then(|delta| self.frame(&delta)));
        }
        if !self.keep_alive {
            return Poll::Pending;
        }
        ready!(self.silence.as_mut().poll(cx));
        let message = MapResponse { keep_alive: true, ..MapResponse::default() };
        let frame = self.frame(&message);
        Poll::Ready(frame)
    }
}

impl Drop for MapStream {
    fn drop(&mut self) {
        let (coordinator, session) = (self.coordinator.clone(), self.session);
        // Outside of the runtime only when the whole server goes down.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { coordinator.tell(Input::StreamEnded(session)).await });
        }
    }
}
