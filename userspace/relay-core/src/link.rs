//! One admitted connection: frames of its stream in, frames for its stream out. It belongs to one task.
//!
//! A packet's way holds no lock: its destination is remembered, its frame is readdressed where it was read, and the run of
//! frames for one reader goes into that reader's mailbox. The registry is asked where a destination is not remembered, or is
//! no longer where it was.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use types::NodePublic;
use wire::derp::{
    Error, Frame, GoneReason, HEADER_LEN, KEYED_LEN, MAX_BODY_SERVER, MAX_PACKET, SEND_PACKET, header,
    packet, readdress,
};

use crate::mailbox::{Mailbox, Run};
use crate::registry::Route;
use crate::server::{NOT_HERE_RATE, Violation};
use crate::{ConnectionId, DropReason, PacketKind, Server, TokenBucket};

/// Shorter runs are copied, so that a few bytes in a slow reader's mailbox do not keep a whole read buffer.
const COPY_BELOW: usize = 2 << 10;
/// Destinations remembered; beyond, all are asked for again.
const MAX_ROUTES: usize = 4096;

/// See the module. Dropping it removes the connection from the server.
pub struct Link {
    server: Arc<Server>,
    id: ConnectionId,
    key: NodePublic,
    /// May do what only servers of the region may.
    mesh: bool,
    mailbox: Arc<Mailbox>,
    routes: HashMap<NodePublic, Route>,
    pong: Option<[u8; 8]>,
    rate: Option<TokenBucket>,
    not_here: TokenBucket,
    keep_alive_every: Duration,
    keep_alive_at: Instant,
}

/// Frames side by side at the start of the read buffer, for one reader.
struct Head {
    to: NodePublic,
    kind: PacketKind,
    length: usize,
    packets: u64,
}

impl Link {
    pub(crate) fn new(
        server: Arc<Server>,
        (id, mailbox): (ConnectionId, Arc<Mailbox>),
        key: NodePublic,
        mesh: bool,
        keep_alive_every: Duration,
        now: Instant,
    ) -> Self {
        Self {
            rate: server.config().rate.filter(|_| !mesh).map(|rate| TokenBucket::new(rate, now)),
            server,
            id,
            key,
            mesh,
            mailbox,
            routes: HashMap::new(),
            pong: None,
            not_here: TokenBucket::new(NOT_HERE_RATE, now),
            keep_alive_every,
            keep_alive_at: now + keep_alive_every,
        }
    }

    /// Takes all whole frames that `received` begins with; what is left is the start of the next one. Says until when to
    /// read nothing more, if the client sent more than its rate.
    ///
    /// # Errors
    /// When the connection is to be closed.
    pub fn receive(&mut self, received: &mut BytesMut, now: Instant) -> Result<Option<Instant>, Violation> {
        let before = received.len();
        let mut head: Option<Head> = None;
        let outcome = self.take_frames(received, &mut head, now);
        self.deliver(head, received, now);
        outcome?;
        if !self.mailbox.is_active() && received.len() < before {
            self.server.registry().heard(self.id, self.key);
        }
        let taken = (before - received.len()) as u64;
        let wait = self.rate.as_mut().and_then(|bucket| bucket.take(taken, now));
        self.server.live().rate_waits.fetch_add(u64::from(wait.is_some()), Ordering::Relaxed);
        Ok(wait)
    }

    fn take_frames(
        &mut self,
        received: &mut BytesMut,
        head: &mut Option<Head>,
        now: Instant,
    ) -> Result<(), Violation> {
        loop {
            let start = head.as_ref().map_or(0, |head| head.length);
            let Some((kind, length)) = header(&received[start..], MAX_BODY_SERVER)? else { return Ok(()) };
            let size = HEADER_LEN + length;
            let Some(frame) = received.get_mut(start..start + size) else { return Ok(()) };
            if kind != SEND_PACKET {
                self.deliver(head.take(), received, now);
                let frame = received.split_to(size);
                self.handle(&Frame::decode(kind, &frame[HEADER_LEN..])?, now)?;
                continue;
            }
            if size > KEYED_LEN + MAX_PACKET {
                return Err(Violation::PacketTooLong(size - KEYED_LEN));
            }
            let to = readdress(frame, &self.key)?;
            let kind = PacketKind::of(packet(frame));
            match head {
                Some(head) if head.to == to && head.kind == kind => {
                    head.length += size;
                    head.packets += 1;
                }
                _ => {
                    self.deliver(head.take(), received, now);
                    *head = Some(Head { to, kind, length: size, packets: 1 });
                }
            }
        }
    }

    /// Moves the frames at the start of `received` to where they belong.
    fn deliver(&mut self, head: Option<Head>, received: &mut BytesMut, now: Instant) {
        let Some(Head { to, kind, length, packets }) = head else { return };
        let bytes = if length < COPY_BELOW {
            let bytes = Bytes::copy_from_slice(&received[..length]);
            received.advance(length);
            bytes
        } else {
            received.split_to(length).freeze()
        };
        let payload = length as u64 - packets * KEYED_LEN as u64;
        let live = self.server.live();
        live.packets_received.fetch_add(packets, Ordering::Relaxed);
        live.bytes_received.fetch_add(payload, Ordering::Relaxed);
        let (source, run) = (self.key, Run { bytes, packets, payload });
        match self.route(to) {
            Some(Route::Local(mailbox)) => {
                let lost = mailbox.push(kind, run);
                self.server.live().drop(DropReason::QueueHead, kind, lost);
            }
            Some(Route::Mesh { mailbox, .. }) => {
                let lost = mailbox.push(kind, forwarded(source, to, &run));
                self.server.live().forwarded_out.fetch_add(packets, Ordering::Relaxed);
                self.server.live().drop(DropReason::QueueHead, kind, lost);
            }
            None => self.not_here(to, kind, packets, now),
        }
    }

    /// Where a destination's packets go, remembered or asked for.
    fn route(&mut self, to: NodePublic) -> Option<&Route> {
        let epoch = self.server.mesh_epoch();
        if !self.routes.get(&to).is_some_and(|route| route.is_valid(epoch)) {
            if self.routes.len() >= MAX_ROUTES {
                self.routes.clear();
            }
            match self.server.registry().route(self.key, to, epoch) {
                Some(route) => self.routes.insert(to, route),
                None => self.routes.remove(&to),
            };
        }
        self.routes.get(&to)
    }

    /// Only DISCO is answered: it is how a peer learns that the other has another home.
    fn not_here(&mut self, to: NodePublic, kind: PacketKind, packets: u64, now: Instant) {
        self.server.live().drop(DropReason::UnknownDestination, kind, packets);
        for _ in 0..packets {
            if kind != PacketKind::Disco || !self.not_here.try_take(1, now) {
                return;
            }
            self.server.live().gone_not_here.fetch_add(1, Ordering::Relaxed);
            self.mailbox.notify(&Frame::PeerGone { peer: to, reason: GoneReason::NotHere });
        }
    }

    fn handle(&mut self, frame: &Frame<'_>, now: Instant) -> Result<(), Violation> {
        match frame {
            Frame::NotePreferred(home) => self.server.registry().set_home(self.id, *home),
            Frame::Ping(data) => {
                // One answer is kept: who pings faster than it reads gets fewer.
                self.pong.get_or_insert(*data);
                self.server.live().pings.fetch_add(1, Ordering::Relaxed);
            }
            Frame::Pong(_) => {}
            Frame::ForwardPacket { .. } | Frame::WatchConns | Frame::ClosePeer(_) if !self.mesh => {
                return Err(Violation::Privilege);
            }
            Frame::ForwardPacket { source, destination, packet } => {
                if packet.len() > MAX_PACKET {
                    return Err(Violation::PacketTooLong(packet.len()));
                }
                self.take_forwarded(*source, *destination, packet, now);
            }
            Frame::WatchConns => self.server.registry().watch(self.id),
            Frame::ClosePeer(peer) => self.server.disconnect(peer),
            _ => _ = self.server.live().unknown_frames.fetch_add(1, Ordering::Relaxed),
        }
        Ok(())
    }

    /// Another server's client has a packet for one of ours. It is never forwarded again.
    fn take_forwarded(&mut self, source: NodePublic, to: NodePublic, packet: &[u8], now: Instant) {
        let kind = PacketKind::of(packet);
        self.server.live().forwarded_in.fetch_add(1, Ordering::Relaxed);
        let Some(mailbox) = self.server.registry().local(source, to) else {
            return self.not_here(to, kind, 1, now);
        };
        let mut bytes = Vec::with_capacity(KEYED_LEN + packet.len());
        Frame::RecvPacket { source, packet }.encode(&mut bytes);
        let run = Run { bytes: bytes.into(), packets: 1, payload: packet.len() as u64 };
        self.server.live().drop(DropReason::QueueHead, kind, mailbox.push(kind, run));
    }

    /// Puts what waits for the stream into `out`, until it holds `limit` bytes; the server's own words first, then DISCO.
    /// False when there was nothing.
    pub fn transmit(&mut self, limit: usize, out: &mut VecDeque<Bytes>) -> bool {
        let before = out.len();
        let mut length = 0;
        if let Some(data) = self.pong.take() {
            out.push_back(encoded(&Frame::Pong(data)));
        }
        out.extend(std::iter::from_fn(|| self.mailbox.next_notice()));
        let (mut packets, mut payload) = (0, 0);
        while length < limit
            && let Some(run) = self.mailbox.next_run()
        {
            length += run.bytes.len();
            packets += run.packets;
            payload += run.payload;
            out.push_back(run.bytes);
        }
        if packets > 0 {
            self.server.live().packets_sent.fetch_add(packets, Ordering::Relaxed);
            self.server.live().bytes_sent.fetch_add(payload, Ordering::Relaxed);
        }
        out.len() > before
    }

    /// When the next keep-alive is due.
    pub fn poll_timeout(&self) -> Instant {
        self.keep_alive_at
    }

    /// Queues the keep-alive that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.keep_alive_at <= now {
            self.keep_alive_at = now + self.keep_alive_every;
            self.mailbox.notify(&Frame::KeepAlive);
        }
    }

    /// Who is to be woken when [`Self::transmit`] has something, or the connection is to end.
    pub fn register(&self, reader: &Waker) {
        self.mailbox.register(reader);
    }

    /// Whether the server wants the connection to end.
    pub fn is_closing(&self) -> bool {
        self.mailbox.is_closing()
    }

    #[cfg(test)]
    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // From here on nothing is put in, so what is there is what is lost.
        self.server.registry().remove(self.id, self.server.live());
    }
}

/// The frames of a run, which are a reader's, as another server takes them.
fn forwarded(source: NodePublic, to: NodePublic, run: &Run) -> Run {
    let mut rest = &run.bytes[..];
    let mut bytes = Vec::with_capacity(rest.len() + 32 * run.packets as usize);
    while let Ok(Some((_, length))) = header(rest, MAX_BODY_SERVER)
        && let Some((frame, more)) = rest.split_at_checked(HEADER_LEN + length)
    {
        Frame::ForwardPacket { source, destination: to, packet: packet(frame) }.encode(&mut bytes);
        rest = more;
    }
    Run { bytes: bytes.into(), ..*run }
}

fn encoded(frame: &Frame<'_>) -> Bytes {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes.into()
}

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        Self::Wire(error)
    }
}
