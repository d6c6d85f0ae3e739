//! One client's stream, from greeting to end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_core::login::{self, Hello, Refusal};
use relay_core::{ConnectionId, Violation};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};
use types::NodePublic;
use wire::derp::{Decoder, Error, MAX_BODY_SERVER};

use crate::{Denied, Relay, Signal, random};

/// From connection to proven and verified key, as Tailscale's servers.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that does not take [`WRITE_LEN`] bytes in this time has gone; its queue was only growing old.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// So much is taken from the queues at once: a few TLS records.
const WRITE_LEN: usize = 32 << 10;
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
    pub async fn serve_connection<S>(&self, stream: S, source: SocketAddr) -> Result<(), SessionError>
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut decoder = Decoder::new(login::MAX_BODY);
        let key = {
            let _permit = self.shared.logins.try_acquire().map_err(|_| SessionError::Busy)?;
            timeout(LOGIN_TIMEOUT, self.log_in(&mut reader, &mut writer, &mut decoder, source))
                .await
                .map_err(|_| SessionError::Timeout("log in"))??
        };
        decoder.set_limit(MAX_BODY_SERVER);
        let session = Session::admit(self.clone(), key);
        tracing::debug!(?key, %source, "DERP client connected");
        let ended = tokio::select! {
            ended = session.read(&mut reader, &mut decoder) => ended,
            ended = session.write(&mut writer) => ended,
            () = session.signal.close.notified() => Err(SessionError::Disconnected),
        };
        tracing::debug!(?key, %source, ?ended, "DERP client gone");
        ended
    }

    async fn log_in<R, W>(
        &self,
        reader: &mut R,
        writer: &mut W,
        decoder: &mut Decoder,
        source: SocketAddr,
    ) -> Result<NodePublic, SessionError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut out = Vec::new();
        login::greet(&self.shared.public_key, &mut out);
        writer.write_all(&out).await?;
        writer.flush().await?;
        let hello = loop {
            if let Some((frame, _)) = decoder.next_frame()? {
                break Hello::read(&self.shared.private_key, &frame)?;
            }
            fill(reader, decoder).await?;
        };
        let source_ip = source.ip().to_canonical();
        if let Err(denied) = self.shared.verify.verify(hello.key, source_ip).await {
            self.state().refused += 1;
            tracing::info!(key = ?hello.key, %source, %denied, "DERP client refused");
            return Err(denied.into());
        }
        out.clear();
        let rate = self.state().server.config().rate;
        hello.welcome(rate, random(|nonce| nonce), &mut out);
        writer.write_all(&out).await?;
        writer.flush().await?;
        Ok(hello.key)
    }
}

/// An admitted connection; dropping it removes it from the server, however its task ends.
struct Session {
    relay: Relay,
    id: ConnectionId,
    signal: Arc<Signal>,
}

impl Session {
    fn admit(relay: Relay, key: NodePublic) -> Self {
        let jitter = Duration::from_millis(random::<8, _>(u64::from_be_bytes) % MAX_JITTER_MS);
        let signal = Arc::<Signal>::default();
        let mut state = relay.state();
        let id = state.server.admit(key, jitter, Instant::now());
        state.signals.insert(id, Arc::clone(&signal));
        while let Some(surplus) = state.server.poll_close() {
            state.close(surplus);
        }
        drop(state);
        Self { relay, id, signal }
    }

    async fn read<R: AsyncRead + Unpin>(
        &self,
        reader: &mut R,
        decoder: &mut Decoder,
    ) -> Result<(), SessionError> {
        loop {
            while let Some((frame, length)) = decoder.next_frame()? {
                let wait = {
                    let mut state = self.relay.state();
                    let wait = state.server.handle_frame(self.id, &frame, length, Instant::now())?;
                    state.wake();
                    wait
                };
                if let Some(until) = wait {
                    sleep_until(until.into()).await;
                }
            }
            fill(reader, decoder).await?;
        }
    }

    async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut W) -> Result<(), SessionError> {
        let mut out = Vec::new();
        loop {
            out.clear();
            let (some, keep_alive_at) = {
                let mut state = self.relay.state();
                let some = state.server.poll_transmit(self.id, WRITE_LEN, &mut out);
                (some, state.server.poll_timeout(self.id).ok_or(Violation::Closed)?)
            };
            if some {
                let written = async {
                    writer.write_all(&out).await?;
                    writer.flush().await
                };
                timeout(WRITE_TIMEOUT, written).await.map_err(|_| SessionError::Timeout("read"))??;
                continue;
            }
            // An idle connection holds no buffer.
            out = Vec::new();
            tokio::select! {
                () = self.signal.wake.notified() => {}
                () = sleep_until(keep_alive_at.into()) => {
                    self.relay.state().server.handle_timeout(self.id, Instant::now());
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.relay.state();
        state.signals.remove(&self.id);
        state.server.remove(self.id);
        state.wake();
    }
}

async fn fill<R: AsyncRead + Unpin>(reader: &mut R, decoder: &mut Decoder) -> Result<(), SessionError> {
    match reader.read(decoder.space()).await? {
        0 => Err(SessionError::Hangup),
        count => {
            decoder.filled(count);
            Ok(())
        }
    }
}
