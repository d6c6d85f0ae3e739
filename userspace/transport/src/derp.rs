//! The DERP client: one connection to one server, as a sending and a receiving half.
//!
//! The sending half never waits: a full queue drops, for a packet that is late is worth less than the next one. The
//! receiving half answers pings itself. Deliberately not here: which server, when to connect again and how long to wait
//! (the node decides), the server (relay).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use types::{NodePrivate, NodePublic};
use wire::derp::{
    ClientInfo, Decoder, Error, Frame, GoneReason, KEEP_ALIVE, KEYED_LEN, MAX_BODY_CLIENT, ServerInfo,
};
use wire::nacl::SharedBox;

pub use crate::derp_server::Server;
use crate::dial::{DialError, Dialer};
use crate::stream::{BoxStream, Stream};
use crate::tls::{TlsError, Trust};

use crate::upgrade::{HttpError, request, upgrade};

/// For TLS, upgrade and login together, after the connection stands.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Frames that may wait for the connection; the kernel's own buffer comes on top.
const QUEUE: usize = 256;
/// So many bytes of waiting frames become one write.
const WRITE_LEN: usize = 32 << 10;
/// A server that says nothing for two keep-alives is gone, as for Tailscale's clients.
const SILENCE: Duration = Duration::from_secs(2 * KEEP_ALIVE.as_secs());

/// Why there is no connection, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum DerpError {
    /// The DERP map or URL does not say how to reach the server.
    #[error("DERP server {server}: {why}")]
    Server {
        /// Its name.
        server: String,
        /// What is wrong.
        why: String,
    },
    /// No TCP connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server does not switch to DERP.
    #[error("DERP upgrade: {0}")]
    Http(#[from] HttpError),
    /// The server does not speak DERP as it should.
    #[error(transparent)]
    Wire(#[from] Error),
    /// The connection broke.
    #[error("DERP connection lost: {0}")]
    Io(#[from] io::Error),
    /// The server closed the connection; right after login it means: not admitted.
    #[error("the DERP server closed the connection")]
    Closed,
    /// Nothing came for too long.
    #[error("the DERP server did not {0} in time")]
    Timeout(&'static str),
}

/// Connects and logs in as `key`. `app_name` is for the server's statistics.
///
/// # Errors
/// See [`DerpError`]. A server that does not admit this node says so only by [`DerpError::Closed`] from
/// [`Receiver::recv`].
pub async fn connect(
    server: &Server,
    dialer: &Dialer,
    trust: &Trust,
    key: &NodePrivate,
    app_name: &str,
) -> Result<(Sender, Receiver), DerpError> {
    let log_in = async { start(open(server, dialer, trust).await?, key, app_name).await };
    timeout(LOGIN_TIMEOUT, log_in).await.map_err(|_| DerpError::Timeout("let this node log in"))?
}

/// A stream on which the server speaks DERP: connected, secured, upgraded, not logged in.
///
/// # Errors
/// See [`DerpError`].
pub async fn open(server: &Server, dialer: &Dialer, trust: &Trust) -> Result<BoxStream, DerpError> {
    let stream = dial(server, dialer).await?;
    let stream: BoxStream = match &server.expect {
        Some(expect) => Box::new(trust.connect(stream, &server.host, expect).await?),
        None => Box::new(stream),
    };
    let request = request(Method::GET, "/derp", &server.host_header())
        .map_err(|error| DerpError::Server { server: server.host.clone(), why: error.to_string() })?;
    Ok(Box::new(upgrade(stream, request, "DERP").await?))
}

async fn dial(server: &Server, dialer: &Dialer) -> Result<tokio::net::TcpStream, DerpError> {
    let mut failure = None;
    for host in &server.dial {
        match dialer.tcp(host, server.port).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error.into()),
        }
    }
    let why = || "nothing to dial".to_owned();
    Err(failure.unwrap_or_else(|| DerpError::Server { server: server.host.clone(), why: why() }))
}

/// A stream on which this side has said who it is.
pub struct LoggedIn<S> {
    /// Frames both ways from here on; the server's first is its info.
    pub stream: S,
    /// What was read and not yet taken.
    pub decoder: Decoder,
    /// Opens the server's info.
    pub shared: SharedBox,
    /// The server's key.
    pub server: NodePublic,
}

/// Says who we are on a stream that speaks DERP already.
///
/// # Errors
/// When the other side does not greet as a DERP server.
pub async fn log_in<S: Stream>(
    mut stream: S,
    key: &NodePrivate,
    info: &ClientInfo,
) -> Result<LoggedIn<S>, DerpError> {
    let mut decoder = Decoder::new(MAX_BODY_CLIENT);
    let server = loop {
        match decoder.next_frame()? {
            Some((Frame::ServerKey(server), _)) => break server,
            Some(_) => return Err(Error::Magic.into()),
            None => fill(&mut stream, &mut decoder).await?,
        }
    };
    let shared = SharedBox::node(key, &server);
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    let sealed = info.seal(&shared, nonce);
    let mut out = Vec::new();
    Frame::ClientInfo { key: key.public(), sealed: &sealed }.encode(&mut out);
    stream.write_all(&out).await?;
    stream.flush().await?;
    Ok(LoggedIn { stream, decoder, shared, server })
}

/// Logs in on a stream that speaks DERP already. Its writing half is driven by a task that ends with the [`Receiver`].
///
/// # Errors
/// When the other side does not greet as a DERP server.
pub async fn start<S: Stream + 'static>(
    stream: S,
    key: &NodePrivate,
    app_name: &str,
) -> Result<(Sender, Receiver), DerpError> {
    let stream = Box::new(stream) as BoxStream;
    let logged_in = log_in(stream, key, &ClientInfo::node(app_name)).await?;
    let LoggedIn { stream, decoder, shared, server } = logged_in;
    let (reader, writer) = tokio::io::split(stream);

    let (queue, frames) = mpsc::channel(QUEUE);
    let sender = Sender { queue, dropped: Arc::default() };
    let writing = Writing(tokio::spawn(write(writer, frames)));
    let receiver = Receiver {
        reader,
        decoder,
        shared,
        server,
        sender: sender.clone(),
        writing,
        writing_ended: false,
        heard_at: Instant::now(),
    };
    Ok((sender, receiver))
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection is slower than what is sent: dropped and counted.
    #[error("the DERP connection is congested")]
    Full,
    /// The connection has ended.
    #[error("the DERP connection is closed")]
    Closed,
}

/// The sending half; clones share the queue.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: mpsc::Sender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl Sender {
    /// Queues a packet for a peer.
    ///
    /// # Errors
    /// When it was not queued.
    pub fn send(&self, destination: NodePublic, packet: &[u8]) -> Result<(), SendError> {
        self.queue(&Frame::SendPacket { destination, packet })
    }

    /// Queues packets for peers, all of them or none.
    ///
    /// # Errors
    /// When they were not queued.
    pub fn send_all(&self, packets: &[(NodePublic, Vec<u8>)]) -> Result<(), SendError> {
        let mut bytes = Vec::with_capacity(packets.iter().map(|(_, packet)| KEYED_LEN + packet.len()).sum());
        for (destination, packet) in packets {
            Frame::SendPacket { destination: *destination, packet }.encode(&mut bytes);
        }
        self.queue_bytes(bytes, packets.len() as u64)
    }

    /// Tells the server whether it is this node's home.
    ///
    /// # Errors
    /// When it was not queued.
    pub fn note_preferred(&self, home: bool) -> Result<(), SendError> {
        self.queue(&Frame::NotePreferred(home))
    }

    /// Asks for an [`Event::Pong`] with the same bytes.
    ///
    /// # Errors
    /// When it was not queued.
    pub fn ping(&self, data: [u8; 8]) -> Result<(), SendError> {
        self.queue(&Frame::Ping(data))
    }

    /// Frames dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn queue(&self, frame: &Frame<'_>) -> Result<(), SendError> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.queue_bytes(bytes, 1)
    }

    fn queue_bytes(&self, bytes: Vec<u8>, frames: u64) -> Result<(), SendError> {
        self.queue.try_send(bytes).map_err(|error| match error {
            TrySendError::Full(_) => {
                self.dropped.fetch_add(frames, Ordering::Relaxed);
                SendError::Full
            }
            TrySendError::Closed(_) => SendError::Closed,
        })
    }
}

/// What a server has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Login is complete: the node was admitted.
    LoggedIn(ServerInfo),
    /// A packet from a peer.
    Packet {
        /// Whose.
        source: NodePublic,
        /// WireGuard or DISCO.
        packet: Vec<u8>,
    },
    /// A peer is not, or no longer, at this server.
    PeerGone {
        /// Who.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
    /// Answer to [`Sender::ping`].
    Pong([u8; 8]),
    /// What is wrong with this connection; `None` when all is well again.
    Health(Option<String>),
    /// The server restarts.
    Restarting {
        /// Wait this long before connecting again.
        reconnect_in: Duration,
        /// And try for this long.
        try_for: Duration,
    },
}

/// The receiving half; dropping it ends the connection.
pub struct Receiver {
    reader: ReadHalf<BoxStream>,
    decoder: Decoder,
    shared: SharedBox,
    server: NodePublic,
    sender: Sender,
    writing: Writing,
    /// A task's result can be asked for once.
    writing_ended: bool,
    heard_at: Instant,
}

impl Receiver {
    /// The server's key.
    pub fn server(&self) -> NodePublic {
        self.server
    }

    /// The next event. Cancel safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the connection has ended; it stays so.
    pub async fn recv(&mut self) -> Result<Event, DerpError> {
        loop {
            if let Some(event) = self.buffered()? {
                return Ok(event);
            }
            let read = timeout_at(self.heard_at + SILENCE, fill(&mut self.reader, &mut self.decoder));
            tokio::select! {
                read = read => read.map_err(|_| DerpError::Timeout("send anything"))??,
                written = &mut self.writing.0, if !self.writing_ended => {
                    self.writing_ended = true;
                    return Err(written.map_err(io::Error::other)??.into());
                }
            }
            self.heard_at = Instant::now();
        }
    }

    /// The next event, if it was read already: what came in one read can be handled at once.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn try_recv(&mut self) -> Result<Option<Event>, DerpError> {
        self.buffered()
    }

    /// The next event among what was read already.
    fn buffered(&mut self) -> Result<Option<Event>, DerpError> {
        loop {
            let frame = match self.decoder.next_frame() {
                Ok(Some((frame, _))) => frame,
                Ok(None) => return Ok(None),
                Err(error @ Error::Short(_)) => {
                    tracing::debug!(%error, "frame from DERP server skipped");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            return Ok(Some(match frame {
                Frame::ServerInfo { sealed } => Event::LoggedIn(ServerInfo::open(&self.shared, sealed)?),
                Frame::RecvPacket { source, packet } => Event::Packet { source, packet: packet.to_vec() },
                Frame::PeerGone { peer, reason } => Event::PeerGone { peer, reason },
                Frame::Pong(data) => Event::Pong(data),
                Frame::Health(problem) if problem.is_empty() => Event::Health(None),
                Frame::Health(problem) => Event::Health(Some(problem.into_owned())),
                Frame::Restarting { reconnect_in, try_for } => Event::Restarting { reconnect_in, try_for },
                Frame::Ping(data) => {
                    // When the queue is full there is more than a pong on its way to the server.
                    let _ = self.sender.queue(&Frame::Pong(data));
                    continue;
                }
                _ => continue,
            }));
        }
    }
}

/// The task that writes; ends when dropped.
struct Writing(JoinHandle<io::Result<Ended>>);

/// Writing ended without an error: every sender is gone.
struct Ended;

impl From<Ended> for DerpError {
    fn from(Ended: Ended) -> Self {
        Self::Closed
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn write(mut writer: WriteHalf<BoxStream>, mut frames: mpsc::Receiver<Vec<u8>>) -> io::Result<Ended> {
    while let Some(mut out) = frames.recv().await {
        while out.len() < WRITE_LEN
            && let Ok(frame) = frames.try_recv()
        {
            out.extend_from_slice(&frame);
        }
        writer.write_all(&out).await?;
        writer.flush().await?;
    }
    Ok(Ended)
}

async fn fill<R: AsyncRead + Unpin>(reader: &mut R, decoder: &mut Decoder) -> Result<(), DerpError> {
    match reader.read(decoder.space()).await? {
        0 => Err(DerpError::Closed),
        count => {
            decoder.filled(count);
            Ok(())
        }
    }
}

#[cfg(test)]
#[path = "derp_tests.rs"]
mod tests;
