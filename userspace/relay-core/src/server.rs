//! All clients of one DERP server.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use types::NodePublic;
use wire::derp::{Frame, GoneReason, KEEP_ALIVE, MAX_PACKET};

use crate::client::{Client, Heard};
use crate::outbox::{Notice, Outbox};
use crate::{Counters, DropReason, PacketKind, Rate, TokenBucket};

/// What an operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Packets of each kind that may wait for one slow client. 32 is what Tailscale's servers take.
    pub queue_packets: usize,
    /// Bytes a client may send; `None` is unlimited, as Tailscale's default.
    pub rate: Option<Rate>,
}

impl Default for Config {
    fn default() -> Self {
        Self { queue_packets: 32, rate: None }
    }
}

/// Names one admitted connection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// Why an admitted connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame only servers of a mesh may send.
    #[error("the client sent a frame reserved for servers of a mesh")]
    Privilege,
    /// A packet over the protocol's limit.
    #[error("the client sent a packet of {0} bytes, {MAX_PACKET} are allowed")]
    PacketTooLong(usize),
    /// The connection was removed before.
    #[error("the connection is already closed")]
    Closed,
}

/// "Peer not here" answers: three at once, then one a second, so that they cannot be used to search for keys.
const NOT_HERE_RATE: Rate = Rate { per_second: 1, burst: 3 };
/// Connections of one key. A client has one, two while it moves; more are a loop or an attack.
const MAX_CONNECTIONS_OF_A_KEY: usize = 8;
/// A bucket must hold the largest frame, or that frame would never be paid for at once.
const MIN_BURST: u64 = (MAX_PACKET + 32) as u64;
const DUPLICATE: &str = "two machines use the same node key; log one of them out and in again";

#[derive(Debug)]
struct Connection {
    key: NodePublic,
    outbox: Outbox,
    /// Named by `poll_wake` and not yet drained.
    awake: bool,
    home: bool,
    rate: Option<TokenBucket>,
    not_here: TokenBucket,
    keep_alive_every: Duration,
    keep_alive_at: Instant,
    /// Keys whose packets it got: it is told when they go.
    sources: BTreeSet<NodePublic>,
}

/// The state of a DERP server; one for the whole process.
#[derive(Debug)]
pub struct Server {
    config: Config,
    next_id: u64,
    connections: HashMap<ConnectionId, Connection>,
    clients: HashMap<NodePublic, Client>,
    /// Who got packets of a key.
    listeners_by_source: HashMap<NodePublic, BTreeSet<ConnectionId>>,
    woken: VecDeque<ConnectionId>,
    /// Over the quota of their key.
    surplus: VecDeque<ConnectionId>,
    counters: Counters,
}

impl Server {
    /// Without clients.
    pub fn new(mut config: Config) -> Self {
        if let Some(rate) = &mut config.rate {
            rate.burst = rate.burst.max(MIN_BURST);
        }
        Self {
            config,
            next_id: 0,
            connections: HashMap::new(),
            clients: HashMap::new(),
            listeners_by_source: HashMap::new(),
            woken: VecDeque::new(),
            surplus: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The configuration in force: a burst smaller than a frame has been raised.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes in a connection whose key is proven and which may use this relay. `jitter`, random below 5 s, spreads the
    /// keep-alives of clients that came together.
    pub fn admit(&mut self, key: NodePublic, jitter: Duration, now: Instant) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let keep_alive_every = KEEP_ALIVE + jitter;
        let connection = Connection {
            key,
            outbox: Outbox::new(self.config.queue_packets),
            awake: false,
            home: false,
            rate: self.config.rate.map(|rate| TokenBucket::new(rate, now)),
            not_here: TokenBucket::new(NOT_HERE_RATE, now),
            keep_alive_every,
            keep_alive_at: now + keep_alive_every,
            sources: BTreeSet::new(),
        };
        self.connections.insert(id, connection);
        self.counters.accepts += 1;
        self.counters.connections += 1;
        match self.clients.get_mut(&key) {
            None => {
                self.clients.insert(key, Client::new(id));
            }
            Some(client) => {
                self.counters.duplicate_keys += u64::from(client.all().len() == 1);
                client.add(id);
                if let [longest_silent, .., _] = client.all()
                    && client.all().len() > MAX_CONNECTIONS_OF_A_KEY
                {
                    self.surplus.push_back(*longest_silent);
                }
            }
        }
        id
    }

    /// Forgets a connection. When it was its key's last, everyone who got packets of that key is told.
    pub fn remove(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.counters.connections -= 1;
        self.counters.homes -= u64::from(connection.home);
        for (kind, count) in connection.outbox.waiting() {
            (0..count).for_each(|_| self.counters.drop(DropReason::Disconnected, kind));
        }
        for source in &connection.sources {
            if let Some(listeners) = self.listeners_by_source.get_mut(source) {
                listeners.remove(&id);
                if listeners.is_empty() {
                    self.listeners_by_source.remove(source);
                }
            }
        }
        self.remove_from_client(id, connection.key);
    }

    fn remove_from_client(&mut self, id: ConnectionId, key: NodePublic) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let peace = client.remove(id);
        match *client.all() {
            [] => {
                self.clients.remove(&key);
                for listener in self.listeners_by_source.remove(&key).unwrap_or_default() {
                    if let Some(connection) = self.connections.get_mut(&listener) {
                        connection.sources.remove(&key);
                    }
                    self.counters.gone_disconnected += 1;
                    self.notify(listener, Notice::Gone(key, GoneReason::Disconnected));
                }
            }
            [last] => {
                self.counters.duplicate_keys -= 1;
                if peace {
                    self.notify(last, Notice::Health(""));
                }
            }
            [..] => {}
        }
    }

    /// Takes a frame from a connection; `length` is its body's. Says until when to read nothing more from it, if it sent
    /// more than its rate.
    ///
    /// # Errors
    /// When the connection is to be closed.
    pub fn handle_frame(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        length: usize,
        now: Instant,
    ) -> Result<Option<Instant>, Violation> {
        let connection = self.connections.get_mut(&id).ok_or(Violation::Closed)?;
        let wait = connection.rate.as_mut().and_then(|bucket| bucket.take(length as u64, now));
        self.counters.rate_waits += u64::from(wait.is_some());
        let key = connection.key;
        match frame {
            Frame::SendPacket { destination, packet } => self.route(id, key, *destination, packet, now)?,
            Frame::NotePreferred(home) => {
                let before = u64::from(std::mem::replace(&mut connection.home, *home));
                self.counters.homes = self.counters.homes + u64::from(*home) - before;
            }
            Frame::Ping(data) => {
                connection.outbox.pong(*data);
                self.counters.pings += 1;
                self.wake(id);
            }
            Frame::Pong(_) => {}
            Frame::ForwardPacket { .. } | Frame::WatchConns | Frame::ClosePeer(_) => {
                return Err(Violation::Privilege);
            }
            _ => self.counters.unknown_frames += 1,
        }
        self.note_activity(id, key);
        Ok(wait)
    }

    fn route(
        &mut self,
        id: ConnectionId,
        source: NodePublic,
        destination: NodePublic,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), Violation> {
        if packet.len() > MAX_PACKET {
            return Err(Violation::PacketTooLong(packet.len()));
        }
        self.counters.packets_received += 1;
        self.counters.bytes_received += packet.len() as u64;
        let kind = PacketKind::of(packet);
        let Some(target) = self.clients.get(&destination).and_then(Client::active) else {
            self.counters.drop(DropReason::UnknownDestination, kind);
            if kind == PacketKind::Disco {
                self.answer_not_here(id, destination, now);
            }
            return Ok(());
        };
        if let Some(connection) = self.connections.get_mut(&target) {
            if connection.outbox.push(source, packet) {
                self.counters.drop(DropReason::QueueHead, kind);
            }
            if connection.sources.insert(source) {
                self.listeners_by_source.entry(source).or_default().insert(target);
            }
            self.wake(target);
        }
        Ok(())
    }

    /// Only DISCO is answered: it is how a peer learns that the other has another home.
    fn answer_not_here(&mut self, id: ConnectionId, destination: NodePublic, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.not_here.try_take(1, now) {
            self.counters.gone_not_here += 1;
            self.notify(id, Notice::Gone(destination, GoneReason::NotHere));
        }
    }

    fn note_activity(&mut self, id: ConnectionId, key: NodePublic) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        if client.heard(id) == Heard::Fighting {
            for id in client.all().to_vec() {
                self.notify(id, Notice::Health(DUPLICATE));
            }
        }
    }

    /// Tells every client that this server restarts: wait `reconnect_in`, then try for `try_for`.
    pub fn announce_restart(&mut self, reconnect_in: Duration, try_for: Duration) {
        let mut ids: Vec<_> = self.connections.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.notify(id, Notice::Restarting { reconnect_in, try_for });
        }
    }

    /// The connections of a key: to be closed when the node may no longer use the relay.
    pub fn connections_of(&self, key: &NodePublic) -> Vec<ConnectionId> {
        self.clients.get(key).map(|client| client.all().to_vec()).unwrap_or_default()
    }

    /// A connection to be closed, for its key has too many.
    pub fn poll_close(&mut self) -> Option<ConnectionId> {
        self.surplus.pop_front()
    }

    /// When this connection's next keep-alive is due.
    pub fn poll_timeout(&self, id: ConnectionId) -> Option<Instant> {
        self.connections.get(&id).map(|connection| connection.keep_alive_at)
    }

    /// Queues the keep-alive that is due.
    pub fn handle_timeout(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.keep_alive_at <= now {
            connection.keep_alive_at = now + connection.keep_alive_every;
            connection.outbox.keep_alive();
            self.wake(id);
        }
    }

    /// A connection that has something to write; named once until it is drained.
    pub fn poll_wake(&mut self) -> Option<ConnectionId> {
        self.woken.pop_front()
    }

    /// Appends what waits for a connection to `out`, until `out` holds `limit` bytes; false when there was nothing.
    /// Call until it says so: only then is the connection named again by [`Self::poll_wake`].
    pub fn poll_transmit(&mut self, id: ConnectionId, limit: usize, out: &mut Vec<u8>) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let before = out.len();
        let drained = connection.outbox.drain(limit, out);
        self.counters.packets_sent += drained.packets;
        self.counters.bytes_sent += drained.bytes;
        let some = out.len() > before;
        if !some {
            connection.awake = false;
        }
        some
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn notify(&mut self, id: ConnectionId, notice: Notice) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.outbox.notify(notice);
            self.wake(id);
        }
    }

    fn wake(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.awake
        {
            connection.awake = true;
            self.woken.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests;
