//! One client's stream, from greeting to end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use relay_core::login::{self, Hello, Refusal};
use relay_core::{Admission, Link, Violation};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Sleep, sleep_until, timeout};
use wire::derp::{Decoder, Error};

use crate::{Denied, Relay, random};

/// From connection to proven and verified key, as Tailscale's servers.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that takes nothing of what is written in this time has gone; its queue was only growing old.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// So much is taken from the queues at once.
const WRITE_LEN: usize = 64 << 10;
/// Runs in one write; the kernel takes up to 1024.
const WRITE_RUNS: usize = 64;
/// A read's room grows from the least to the most while reads fill it, so that who sends little costs little.
const READ_LEN: std::ops::RangeInclusive<usize> = 4 << 10..=64 << 10;
/// Keep-alives of clients that came together are spread over this.
const MAX_JITTER_MS: u64 = 5000;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The client hung up.
    #[error("the client closed the connection")]
    Hangup,
    /// The server ended it: see [`Relay::disconnect`].
    #[error("the node was disconnected by the server")]
    Disconnected,
    /// The client did not log in as DERP asks.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The client may not use this relay.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The client did what it may not.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// What the client sent is not DERP.
    #[error(transparent)]
    Wire(#[from] Error),
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// A deadline passed.
    #[error("the client took too long to {0}")]
    Timeout(&'static str),
    /// Too many strangers are logging in.
    #[error("too many connections are logging in at once")]
    Busy,
}

impl Relay {
    /// Serves one client on a stream that speaks DERP from here on, until it ends. `source` is the client's address.
    ///
    /// # Errors
    /// Always: why the session ended. [`SessionError::Hangup`] is the ordinary way.
    pub async fn serve_connection<S>(&self, mut stream: S, source: SocketAddr) -> Result<(), SessionError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let mut decoder = Decoder::new(login::MAX_BODY);
        let admission = {
            let _permit = self.shared.logins.try_acquire().map_err(|_| SessionError::Busy)?;
            timeout(LOGIN_TIMEOUT, self.log_in(&mut stream, &mut decoder, source))
                .await
                .map_err(|_| SessionError::Timeout("log in"))??
        };
        let jitter = Duration::from_millis(random::<8, _>(u64::from_be_bytes) % MAX_JITTER_MS);
        let link = self.shared.server.admit(admission, jitter, Instant::now());
        let key = admission.key;
        tracing::debug!(?key, %source, "DERP client connected");
        let mut session = Session::new(stream, link, &decoder.into_rest());
        // A client need not wait for the server's info before its first frames.
        session.throttled = session.link.receive(&mut session.received, Instant::now())?;
        let ended = poll_fn(|cx| session.poll(cx)).await;
        tracing::debug!(?key, %source, ?ended, "DERP client gone");
        ended
    }

    async fn log_in<S>(
        &self,
        stream: &mut S,
        decoder: &mut Decoder,
        source: SocketAddr,
    ) -> Result<Admission, SessionError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut out = Vec::new();
        login::greet(&self.shared.public_key, &mut out);
        stream.write_all(&out).await?;
        stream.flush().await?;
        let hello = loop {
            if let Some((frame, _)) = decoder.next_frame()? {
                break Hello::read(&self.shared.private_key, &frame)?;
            }
            match stream.read(decoder.space()).await? {
                0 => return Err(SessionError::Hangup),
                count => decoder.filled(count),
            }
        };
        let mesh = self.shared.mesh_key.as_ref().is_some_and(|key| *key == hello.info.mesh_key);
        if !mesh && let Err(denied) = self.shared.verify.verify(hello.key, source.ip().to_canonical()).await {
            self.shared.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tracing::info!(key = ?hello.key, %source, %denied, "DERP client refused");
            return Err(denied.into());
        }
        out.clear();
        hello.welcome(self.shared.server.config().rate, random(|nonce| nonce), &mut out);
        stream.write_all(&out).await?;
        stream.flush().await?;
        Ok(Admission { key: hello.key, address: Some(source), mesh, prober: hello.info.is_prober })
    }
}

/// An admitted connection: its one task reads, forwards, and writes what others left for it.
struct Session<S> {
    stream: S,
    link: Link,
    received: BytesMut,
    read_len: usize,
    /// Taken from the link, not yet by the stream.
    unwritten: Unwritten,
    unflushed: bool,
    /// Since when the stream takes nothing.
    stalled: Option<Instant>,
    /// Until when nothing is read: the client sent more than its rate.
    throttled: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn new(stream: S, link: Link, received: &[u8]) -> Self {
        let timer = Box::pin(sleep_until(link.poll_timeout().into()));
        Self {
            stream,
            link,
            received: BytesMut::from(received),
            read_len: *READ_LEN.start(),
            unwritten: Unwritten::default(),
            unflushed: false,
            stalled: None,
            throttled: None,
            timer,
        }
    }

    /// Does all that can be done now. Never ends well.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SessionError>> {
        self.link.register(cx.waker());
        if self.link.is_closing() {
            return Poll::Ready(Err(SessionError::Disconnected));
        }
        loop {
            if let Err(error) = self.poll_write(cx) {
                return Poll::Ready(Err(error));
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(())) => {
                    // The readers get a turn before the next packets, and this client its pong.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            ready!(self.poll_timer(cx))?;
        }
    }

    /// Writes what waits, as far as the stream takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), SessionError> {
        loop {
            if self.unwritten.0.is_empty() && !self.link.transmit(WRITE_LEN, &mut self.unwritten.0) {
                break;
            }
            match self.unwritten.poll_write(&mut self.stream, cx)? {
                Poll::Ready(()) => {
                    (self.stalled, self.unflushed) = (None, true);
                }
                Poll::Pending => {
                    self.stalled.get_or_insert_with(Instant::now);
                    return Ok(());
                }
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx)? {
                Poll::Ready(()) => (self.stalled, self.unflushed) = (None, false),
                Poll::Pending => _ = self.stalled.get_or_insert_with(Instant::now),
            }
        }
        Ok(())
    }

    /// Reads once and forwards.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SessionError>> {
        if self.throttled.is_some() {
            return Poll::Pending;
        }
        self.received.reserve(self.read_len);
        let read = pin!(self.stream.read_buf(&mut self.received)).poll(cx)?;
        let Poll::Ready(count) = read else {
            if self.received.is_empty() {
                // An idle connection holds no buffer.
                self.received = BytesMut::new();
            }
            return Poll::Pending;
        };
        if count == 0 {
            return Poll::Ready(Err(SessionError::Hangup));
        }
        if count >= self.read_len {
            self.read_len = (2 * self.read_len).min(*READ_LEN.end());
        } else if count < self.read_len / 4 {
            self.read_len = (self.read_len / 2).max(*READ_LEN.start());
        }
        self.throttled = self.link.receive(&mut self.received, Instant::now())?;
        Poll::Ready(Ok(()))
    }

    /// Waits for the next deadline, and does what is due.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SessionError>> {
        let give_up = self.stalled.map(|since| since + WRITE_TIMEOUT);
        let times = [Some(self.link.poll_timeout()), give_up, self.throttled];
        let deadline = times.into_iter().flatten().min().unwrap_or_else(Instant::now);
        if self.timer.deadline().into_std() != deadline {
            self.timer.as_mut().reset(deadline.into());
        }
        ready!(self.timer.as_mut().poll(cx));
        let now = Instant::now();
        if give_up.is_some_and(|at| at <= now) {
            return Poll::Ready(Err(SessionError::Timeout("read")));
        }
        self.throttled.take_if(|until| *until <= now);
        self.link.handle_timeout(now);
        Poll::Ready(Ok(()))
    }
}

/// Runs on their way into a stream.
#[derive(Default)]
pub(crate) struct Unwritten(pub(crate) VecDeque<Bytes>);

impl Unwritten {
    /// Writes once, as much as the stream takes.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); WRITE_RUNS];
        let count = slices.iter_mut().zip(&self.0).map(|(slice, run)| *slice = IoSlice::new(run)).count();
        let mut written = ready!(Pin::new(stream).poll_write_vectored(cx, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        while let Some(first) = self.0.front_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            self.0.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}
