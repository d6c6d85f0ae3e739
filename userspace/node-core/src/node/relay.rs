//! Peer relays: messages about places on them, and what goes through them.
//!
//! As a client: relays are asked for places while there is no direct path, and places are bound. As a relay: who may ask is
//! decided here, the answer is the shell's. Allocations and calls come by DERP only, which proves the sender's node key.

use std::net::SocketAddr;
use std::time::Instant;

use types::{CapabilityVersion, DiscoPublic, NodePublic, Vni};
use wire::disco::{AllocateRequest, AllocateResponse, CallMeMaybeVia, Message, RelayEndpoint, sender};
use wire::geneve::{Header, Protocol};

use super::Node;
use crate::detours::Detour;
use crate::grants;
use crate::output::{Event, Transmit, Via};
use crate::path::Path;
use crate::paths::{Purpose, Target};
use crate::peer::Peer;
use crate::relays::Step;
use crate::slots::Slot;
use crate::timers::Wake;

/// From this version on a node speaks of peer relays (tailscale `magicsock.go`, `capVerIsRelayCapable`).
const RELAY_CAPABLE: CapabilityVersion = CapabilityVersion(121);
/// Attributes of our own node with which control forbids the use of relays.
const NO_CLIENT: [&str; 2] = ["disable-relay-client", "only-tcp-443"];
/// And with which it forbids to be one.
const NO_SERVER: &str = "disable-relay-server";

impl Node {
    /// The relays that control lets us ask, for people.
    pub fn relay_servers(&self) -> impl Iterator<Item = &wire::control::Node> {
        self.relays.servers().filter_map(|key| self.netmap.peer(&key))
    }

    /// Whether control forbids this node to be a relay.
    pub fn is_relay_forbidden(&self) -> bool {
        self.netmap.node().is_some_and(|node| node.has_cap(NO_SERVER))
    }

    /// The relay through which packets go to a peer now.
    pub fn relay_of(&self, peer: NodePublic, now: Instant) -> Option<SocketAddr> {
        match self.peers.get(&peer)?.via(now)? {
            Via::Udp(path) if !path.is_direct() => Some(path.remote),
            _ => None,
        }
    }

    /// Whether the programs can put a relay's header before packets of the kernel's WireGuard, and for which places they do
    /// already. `None` while they cannot: those packets pass through us.
    pub fn handle_detours(&mut self, known: Option<&[Detour]>, now: Instant) {
        self.detours.enable(known);
        self.detoured = u64::MAX;
        self.refresh_detours(now);
        for key in self.peers.keys() {
            self.settle(key, now);
        }
    }

    /// The answer to [`Event::AllocateRelay`].
    pub fn answer_allocation(
        &mut self,
        peer: NodePublic,
        disco: DiscoPublic,
        generation: u32,
        endpoint: RelayEndpoint,
        now: Instant,
    ) {
        let Some(region) =
            self.peers.get(&peer).filter(|peer| peer.disco == Some(disco)).and_then(Peer::region)
        else {
            return;
        };
        let message = Message::AllocateResponse(AllocateResponse { generation, endpoint });
        let bytes = self.disco.seal(disco, &message, &mut self.rng);
        self.send_by_derp(region, peer, bytes, now);
    }

    /// The map or the filter changed: so may the relays.
    pub(super) fn follow_relays(&mut self) {
        let Some(node) = self.netmap.node().filter(|node| !NO_CLIENT.iter().any(|cap| node.has_cap(cap)))
        else {
            self.relays.set_servers(Default::default());
            return;
        };
        let is_server = |peer: &&wire::control::Node| {
            peer.cap >= RELAY_CAPABLE
                && !peer.disco_key.is_zero()
                && grants::has(self.netmap.filter_rules(), peer, node, grants::RELAY_TARGET)
        };
        let servers = self.netmap.peers().filter(is_server).map(|peer| peer.key).collect();
        self.relays.set_servers(servers);
    }

    /// Looks for a relay between us and a peer that has no trusted direct path, if it is time to.
    pub(super) fn search_relays(&mut self, key: NodePublic, now: Instant) {
        let Some(peer) = self.peers.get(&key).filter(|peer| peer.disco.is_some() && !peer.is_blocked(now))
        else {
            return;
        };
        let trusted = peer.paths.trusted(now);
        let capable = self.netmap.peer(&key).is_some_and(|node| node.cap >= RELAY_CAPABLE);
        if !capable || trusted.is_some_and(|path| path.is_direct()) {
            return;
        }
        if self.relays.wants_search(&key, trusted.is_some(), now) {
            self.relays.search(key, now);
            self.step_relays(key, now);
        }
    }

    /// A relayed path was lost: its place is bound again, and the other relays are asked.
    pub(super) fn lose_relayed(&mut self, key: NodePublic, path: Path, now: Instant) {
        self.relays.bind_again(key, (path.remote, path.vni), now);
        self.step_relays(key, now);
        if self.peers.get(&key).is_some_and(|peer| peer.is_active(now)) {
            self.search_relays(key, now);
        }
    }

    /// Sends what is due for a peer's places.
    pub(super) fn step_relays(&mut self, key: NodePublic, now: Instant) {
        let Some(disco) = self.peers.get(&key).and_then(|peer| peer.disco) else { return };
        for step in self.relays.poll(key, disco, now) {
            match step {
                Step::Allocate(server, generation) => self.ask_for_place(server, disco, generation, now),
                Step::Bind(server, target, bind) => self.send_control(server, target, &Message::Bind(bind)),
                Step::Answer(server, target, bind) => {
                    self.send_control(server, target, &Message::BindAnswer(bind));
                }
                Step::Ping((remote, vni)) => {
                    self.sync_relayed(key, now);
                    let path = self.underlay.canonical(Path { remote, vni, uplink: None });
                    self.send_ping(key, Via::Udp(path), Purpose::Discovery, 0, now);
                }
            }
        }
        self.sync_relayed(key, now);
        match self.relays.next(&key) {
            Some(at) => self.timers.set(Wake::Relay(key), at),
            None => self.timers.stop(Wake::Relay(key)),
        }
        self.forget_relay_boxes();
    }

    /// Makes the places of a peer its candidates.
    fn sync_relayed(&mut self, key: NodePublic, now: Instant) {
        let targets = self.relays.targets(&key);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.paths.set_relayed(&targets, &self.underlay, now);
        }
        self.refresh_detours(now);
    }

    /// Every place that is a candidate has an endpoint.
    fn refresh_detours(&mut self, now: Instant) {
        if std::mem::replace(&mut self.detoured, self.relays.revision()) == self.relays.revision() {
            return;
        }
        let peers = &self.peers;
        let taken = |endpoint| peers.iter().any(|peer| peer.paths.addresses().any(|addr| addr == endpoint));
        if self.detours.set(&self.relays.all(), now < self.settling_until, taken) {
            self.desired.relayed = self.detours.list();
            self.events.push_back(Event::DetoursChanged);
        }
    }

    fn ask_for_place(&mut self, server: NodePublic, disco: DiscoPublic, generation: u32, now: Instant) {
        let Some((region, to)) = self.peers.get(&server).and_then(|peer| Some((peer.region()?, peer.disco?)))
        else {
            return;
        };
        let mut clients = [self.disco.public(), disco];
        clients.sort_unstable();
        let message = Message::AllocateRequest(AllocateRequest { clients, generation });
        let bytes = self.disco.seal(to, &message, &mut self.rng);
        self.send_by_derp(region, server, bytes, now);
    }

    /// A step of the handshake with a relay itself.
    fn send_control(&mut self, server: DiscoPublic, (remote, vni): Target, message: &Message) {
        let Some(vni) = vni.filter(|_| self.may_be_candidate(remote)) else { return };
        let header = Header { control: true, protocol: Protocol::Disco, vni };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&self.disco.seal(server, message, &mut self.rng));
        self.transmits.push_back(Transmit::Udp { path: Path::direct(remote), bytes });
    }

    /// A datagram with a Geneve header. The loopback address from which to deliver what follows the header, if that is
    /// WireGuard's.
    pub(super) fn handle_relayed(&mut self, path: Path, bytes: &[u8], now: Instant) -> Option<Slot> {
        let (header, payload) = Header::decode(bytes).ok()?;
        let path = Path { vni: Some(header.vni), ..path };
        match (header.protocol, header.control) {
            (Protocol::Disco, true) => self.handle_challenge(path.remote, header.vni, payload, now),
            (Protocol::Disco, false) => self.handle_disco(Via::Udp(path), None, payload, now),
            (Protocol::WireGuard, false) => {
                let key = self.relays.peer_at(path.remote, header.vni)?;
                self.note_activity(key, now);
                self.peers.get_mut(&key)?.end_opening();
                return Some(self.slots.assign(key));
            }
            (Protocol::WireGuard, true) => {}
        }
        None
    }

    fn handle_challenge(&mut self, from: SocketAddr, vni: Vni, packet: &[u8], now: Instant) {
        let Some(server) = sender(packet).filter(|server| self.relays.knows(server)) else { return };
        let Some(Message::BindChallenge(bind)) = self.disco.open(server, packet) else { return };
        if let Some(peer) = self.relays.handle_challenge(server, (from, vni), &bind, now) {
            self.step_relays(peer, now);
        }
    }

    /// A DISCO message of a peer came through a place.
    pub(super) fn note_relayed(&mut self, path: Path, disco: DiscoPublic, now: Instant) {
        let Some(vni) = path.vni else { return };
        match self.relays.peer_at(path.remote, vni) {
            Some(key) if self.peers.get(&key).is_some_and(|peer| peer.disco == Some(disco)) => {
                self.relays.note_heard(path.remote, vni, now);
                if self.relays.next(&key).is_some_and(|at| at <= now) {
                    self.step_relays(key, now);
                }
            }
            Some(_) => {}
            // Bound by an earlier run of ours: the peer goes on using it.
            None => {
                if let [key] = self.peers.with_disco(&disco)[..] {
                    self.relays.adopt(key, path.remote, vni);
                    self.refresh_detours(now);
                }
            }
        }
    }

    /// A peer has got a place for us both, or a relay has answered.
    pub(super) fn handle_relay_message(
        &mut self,
        derp_from: Option<NodePublic>,
        disco: DiscoPublic,
        message: Message,
        now: Instant,
    ) {
        let Some(from) =
            derp_from.filter(|from| self.peers.get(from).is_some_and(|peer| peer.disco == Some(disco)))
        else {
            return;
        };
        match message {
            Message::CallMeMaybeVia(CallMeMaybeVia(endpoint)) => self.learn_place(from, endpoint, now),
            Message::AllocateRequest(request) => self.handle_allocate(from, disco, &request),
            Message::AllocateResponse(AllocateResponse { generation, endpoint }) => {
                let Some(peer) = self.relays.handle_allocated(from, generation, now) else { return };
                self.call_via(peer, &endpoint, now);
                self.learn_place(peer, endpoint, now);
            }
            _ => {}
        }
    }

    fn learn_place(&mut self, key: NodePublic, endpoint: RelayEndpoint, now: Instant) {
        let is_allowed =
            self.netmap.node().is_some_and(|node| !NO_CLIENT.iter().any(|cap| node.has_cap(cap)));
        let Some(peer) = self.peers.get(&key).filter(|peer| is_allowed && !peer.is_blocked(now)) else {
            return;
        };
        let pair = [Some(self.disco.public()), peer.disco];
        if !pair.iter().all(|key| endpoint.clients.iter().any(|client| Some(*client) == *key)) {
            return;
        }
        let works = |(remote, vni): Target| {
            let path = Path { remote, vni, uplink: None };
            peer.paths.is_confirmed(self.underlay.canonical(path), now)
        };
        self.relays.learn(key, endpoint, works, now);
        self.step_relays(key, now);
    }

    /// Tells the peer of a place, so that it binds there too.
    fn call_via(&mut self, key: NodePublic, endpoint: &RelayEndpoint, now: Instant) {
        let Some((region, disco)) = self.peers.get(&key).and_then(|peer| Some((peer.region()?, peer.disco?)))
        else {
            return;
        };
        let message = Message::CallMeMaybeVia(CallMeMaybeVia(endpoint.clone()));
        let bytes = self.disco.seal(disco, &message, &mut self.rng);
        self.send_by_derp(region, key, bytes, now);
    }

    /// Somebody asks our relay for a place.
    fn handle_allocate(&mut self, peer: NodePublic, disco: DiscoPublic, request: &AllocateRequest) {
        let Some((node, asker)) = self.netmap.node().zip(self.netmap.peer(&peer)) else { return };
        let may_ask = grants::has(self.netmap.filter_rules(), asker, node, grants::RELAY);
        if may_ask && request.clients.contains(&disco) && !self.is_relay_forbidden() {
            let AllocateRequest { clients, generation } = *request;
            self.events.push_back(Event::AllocateRelay { peer, disco, clients, generation });
        }
    }

    /// A relay's key costs a box only while we talk to it.
    fn forget_relay_boxes(&mut self) {
        let talking = self.relays.keys();
        for gone in self.relay_keys.difference(&talking).copied().collect::<Vec<_>>() {
            if !self.peers.knows_disco(&gone) {
                self.disco.forget(&gone);
            }
        }
        self.relay_keys = talking;
    }
}
