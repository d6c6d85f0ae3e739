//! A model of the kernel's WireGuard, as far as paths see it: endpoints that follow whoever authenticates, handshakes
//! retried every 5 s, queued packets, keep-alives, counters.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use node_core::{Desired, ObservedPeer};
use types::NodePublic;

/// REKEY_TIMEOUT: an initiation is repeated after this, whatever happens to the endpoint.
const RETRY: Duration = Duration::from_secs(5);
/// KEEPALIVE_TIMEOUT: data received and nothing sent.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// KEEPALIVE_TIMEOUT + REKEY_TIMEOUT: data sent and nothing received.
const NO_ANSWER: Duration = Duration::from_secs(15);
/// REJECT_AFTER_TIME.
const SESSION: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Initiation,
    Response,
    KeepAlive,
    /// Traffic of a test, by number.
    Data(u64),
}

impl Packet {
    fn len(self) -> u64 {
        match self {
            Self::Initiation => 148,
            Self::Response => 92,
            Self::KeepAlive => 32,
            Self::Data(_) => 128,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) endpoint: Option<SocketAddr>,
    rx_bytes: u64,
    tx_bytes: u64,
    /// Since when it may send; a responder may only after the first packet under the new keys.
    session: Option<Instant>,
    /// Since when it may receive.
    accepts: Option<Instant>,
    last_handshake: Option<SystemTime>,
    queue: Vec<u64>,
    retry_at: Option<Instant>,
    keepalive_at: Option<Instant>,
    no_answer_at: Option<Instant>,
}

/// The device. It survives its controller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) peers: BTreeMap<NodePublic, Peer>,
    /// Packets to send: to whom, where, what.
    pub(crate) out: Vec<(NodePublic, SocketAddr, Packet)>,
    /// How often a controller set an endpoint of a peer that was there.
    pub(crate) endpoints_set: usize,
}

impl Kernel {
    /// What `dataplane` does: only differences are written.
    pub(crate) fn apply(&mut self, desired: &Desired) {
        self.peers.retain(|key, _| desired.peers.contains_key(key));
        for (key, wanted) in &desired.peers {
            match self.peers.get_mut(key) {
                Some(peer) if peer.endpoint != Some(wanted.endpoint) => {
                    self.set_endpoint(*key, wanted.endpoint);
                }
                Some(_) => {}
                None => {
                    let peer = Peer { endpoint: Some(wanted.endpoint), ..Peer::default() };
                    self.peers.insert(*key, peer);
                }
            }
        }
    }

    pub(crate) fn set_endpoint(&mut self, key: NodePublic, endpoint: SocketAddr) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.endpoint = Some(endpoint);
            self.endpoints_set += 1;
        }
    }

    pub(crate) fn dump(&self) -> Vec<ObservedPeer> {
        let observed = |(key, peer): (&NodePublic, &Peer)| ObservedPeer {
            key: *key,
            endpoint: peer.endpoint,
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            last_handshake: peer.last_handshake,
        };
        self.peers.iter().map(observed).collect()
    }

    /// A program on the host sends packet `id`.
    pub(crate) fn send(&mut self, to: NodePublic, id: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if peer.session.is_some_and(|at| now < at + SESSION) {
            self.transmit(to, Packet::Data(id), now);
            return;
        }
        peer.queue.push(id);
        if peer.retry_at.is_none() {
            self.initiate(to, now);
        }
    }

    /// A packet of `from` arrived from `source`; the number of delivered data.
    pub(crate) fn receive(
        &mut self,
        from: NodePublic,
        source: SocketAddr,
        packet: Packet,
        wall: SystemTime,
        now: Instant,
    ) -> Option<u64> {
        let peer = self.peers.get_mut(&from)?;
        let is_transport = matches!(packet, Packet::Data(_) | Packet::KeepAlive);
        if is_transport && peer.accepts.is_none_or(|at| now >= at + SESSION) {
            return None;
        }
        peer.endpoint = Some(source);
        peer.rx_bytes += packet.len();
        peer.no_answer_at = None;
        match packet {
            Packet::Initiation => {
                peer.accepts = Some(now);
                peer.last_handshake = Some(wall);
                self.transmit(from, Packet::Response, now);
            }
            Packet::Response => {
                (peer.accepts, peer.last_handshake) = (Some(now), Some(wall));
                let nothing_waits = peer.queue.is_empty();
                self.confirm(from, now);
                if nothing_waits {
                    self.transmit(from, Packet::KeepAlive, now);
                }
            }
            Packet::KeepAlive => self.confirm(from, now),
            Packet::Data(id) => {
                peer.keepalive_at.get_or_insert(now + KEEPALIVE);
                self.confirm(from, now);
                return Some(id);
            }
        }
        None
    }

    /// Both sides have the keys: what waits goes out.
    fn confirm(&mut self, key: NodePublic, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.session = peer.accepts;
        peer.retry_at = None;
        for id in std::mem::take(&mut peer.queue) {
            self.transmit(key, Packet::Data(id), now);
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.peers.values().flat_map(|p| [p.retry_at, p.keepalive_at, p.no_answer_at]).flatten().min()
    }

    pub(crate) fn handle_timers(&mut self, now: Instant) {
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if due(peer.retry_at) || due(peer.no_answer_at) {
                peer.no_answer_at = None;
                self.initiate(key, now);
            } else if due(peer.keepalive_at) {
                self.transmit(key, Packet::KeepAlive, now);
            }
        }
    }

    fn initiate(&mut self, to: NodePublic, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.retry_at = Some(now + RETRY);
        }
        self.transmit(to, Packet::Initiation, now);
    }

    fn transmit(&mut self, to: NodePublic, packet: Packet, now: Instant) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.tx_bytes += packet.len();
        peer.keepalive_at = None;
        if matches!(packet, Packet::Data(_)) {
            peer.no_answer_at.get_or_insert(now + NO_ANSWER);
        }
        if let Some(endpoint) = peer.endpoint {
            self.out.push((to, endpoint, packet));
        }
    }
}
