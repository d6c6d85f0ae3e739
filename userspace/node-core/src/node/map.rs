//! Maps, prefs and key expiry: who is a peer, and what the kernel should be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use types::{NodeId, NodePublic};
use wire::control::{MapResponse, Node as WireNode};

use super::Node;
use crate::desired::Desired;
use crate::endpoints::is_candidate;
use crate::input::{Clock, Prefs};
use crate::netmap::is_reachable;
use crate::output::Event;
use crate::path::Path;
use crate::routes;
use crate::timers::Wake;

impl Node {
    /// A new map stream begins: its first message describes everything, even by leaving it out. Until it comes the old map
    /// stays.
    pub fn handle_stream_opened(&mut self) {
        self.netmap.open_stream();
    }

    /// Whether control is connected, that is, a map stream is being read. While it is not, the home region stays: nobody
    /// could be told of another.
    pub fn handle_control_state(&mut self, connected: bool) {
        self.control_connected = connected;
    }

    /// Folds in a full map, a delta or [`Self::cached_map`]. What cannot be used is left out and named by
    /// [`Event::BadMap`]; one bad peer loses that peer, an unusable map leaves the old one.
    pub fn handle_map(&mut self, map: MapResponse, now: Instant) {
        if let Some(at) = map.control_time.and_then(wire::control::Time::get) {
            self.control_clock = Some(Clock { now, wall: SystemTime::from(at) });
        }
        let (was_running, was_expired) = (self.is_running(now), self.is_key_expired(now));
        let wall = self.control_wall(now);
        let change = self.netmap.fold(map, wall);
        self.events.extend(change.lost.into_iter().map(Event::BadMap));
        if !change.any {
            return;
        }
        if self.is_key_expired(now) && !was_expired {
            self.events.push_back(Event::KeyExpired);
        }
        if change.kernel || !change.peers.is_empty() {
            self.follow_relays();
        }
        if change.kernel {
            self.rebuild(now);
        } else {
            for id in change.peers {
                self.sync_peer(id, now);
            }
        }
        if change.derp && was_running {
            self.follow_derp_map(now);
        }
        self.follow_running(was_running, now);
        self.set_expiry_wake(now);
        self.events.push_back(Event::NetmapChanged);
        self.refresh_health(now);
    }

    /// The user changed something.
    pub fn handle_prefs(&mut self, prefs: Prefs, now: Instant) {
        if prefs == self.prefs {
            return;
        }
        let was_running = self.is_running(now);
        self.prefs = prefs;
        self.rebuild(now);
        self.follow_running(was_running, now);
        self.refresh_health(now);
    }

    /// A key expired, or the wake came early.
    pub(super) fn follow_expiry(&mut self, now: Instant) {
        // The wake comes after the fact: what ran until now may have expired.
        let was_running = self.desired.up;
        if was_running && self.is_key_expired(now) {
            self.events.push_back(Event::KeyExpired);
        }
        self.rebuild(now);
        self.follow_running(was_running, now);
        self.set_expiry_wake(now);
        self.refresh_health(now);
    }

    /// Relays and STUN, when we start or stop to be part of the network.
    fn follow_running(&mut self, was_running: bool, now: Instant) {
        match (was_running, self.is_running(now)) {
            (false, true) => self.follow_derp_map(now),
            (true, false) => {
                self.disconnect_all();
                self.netcheck.reset();
            }
            _ => {}
        }
    }

    /// Brings peers and the desired state up to the netmap, the prefs and the time.
    pub(super) fn rebuild(&mut self, now: Instant) {
        let mut ids: BTreeSet<NodeId> = self.netmap.peers().map(|peer| peer.id).collect();
        ids.extend(self.peers.iter().map(|peer| peer.id));
        for id in &ids {
            self.sync_peer(*id, now);
        }
        let (mut desired, lost) = self.build(now);
        self.filter_lost = lost.len();
        if self.observed.is_none() || !desired.differs(&self.desired) {
            return;
        }
        self.events.extend(lost.into_iter().map(Event::BadMap));
        let routes_changed = desired.routes != self.desired.routes;
        desired.generation = self.desired.generation + 1;
        if desired.up {
            desired.relayed = self.detours.list();
        }
        self.desired = desired;
        self.events.push_back(Event::DesiredChanged);
        if routes_changed {
            // What is routed into the overlay is no candidate.
            for id in ids {
                self.sync_peer(id, now);
            }
        }
    }

    fn build(&mut self, now: Instant) -> (Desired, Vec<String>) {
        if !self.is_running(now) {
            return (Desired::default(), Vec::new());
        }
        let wanted: Vec<(NodePublic, Option<Path>)> =
            self.peers.iter().map(|peer| (peer.key, peer.wanted(now))).collect();
        let endpoints: BTreeMap<NodePublic, SocketAddr> =
            wanted.into_iter().map(|(key, path)| (key, self.endpoint_of(key, path))).collect();
        let Some(node) = self.netmap.node() else { return (Desired::default(), Vec::new()) };
        Desired::build(node, &self.netmap, &self.prefs, |node| endpoints.get(&node.key).copied())
    }

    /// Makes, changes or removes the peer with this id as the netmap says.
    pub(super) fn sync_peer(&mut self, id: NodeId, now: Instant) {
        let node = self.netmap.peer_by_id(id).filter(|node| self.is_usable(node, now)).cloned();
        let old = self.peers.key_of(id);
        if let Some(old) = old.filter(|old| node.as_ref().is_none_or(|node| node.key != *old)) {
            self.remove_peer(old);
        }
        let Some(node) = node else { return };
        let is_new = self.peers.get(&node.key).is_none();
        let candidates: Vec<SocketAddr> =
            node.endpoints.iter().copied().filter(|addr| self.may_be_candidate(*addr)).collect();
        let disco = self.disco_key_of(&node);
        if self.peers.get(&node.key).is_some_and(|peer| peer.disco != disco) {
            // Another pair of keys has other places.
            self.relays.forget(&node.key);
        }
        let known = self.peers.get(&node.key).and_then(|peer| peer.disco);
        let peer = self.peers.upsert(id, node.key, disco);
        peer.home = node.home_region();
        peer.name = node.name.split('.').next().unwrap_or_default().to_owned();
        peer.paths.set_map_candidates(&candidates, &self.underlay, now);
        if is_new && let Some(seen) = self.observed.as_ref().and_then(|all| all.get(&node.key)).cloned() {
            self.observe_peer(&seen, now);
        }
        if known != disco {
            if let Some(old) = known.filter(|old| !self.peers.knows_disco(old)) {
                self.disco.forget(&old);
            }
            self.disco_peers_changed();
        }
        self.settle(node.key, now);
    }

    /// Whether a node of the map can be a peer at all. Plain WireGuard peers are not among them yet: they need addresses of
    /// their own translated.
    fn is_usable(&self, node: &WireNode, now: Instant) -> bool {
        self.is_running(now) && is_reachable(node) && !node.is_wireguard_only && !self.is_expired(node, now)
    }

    pub(super) fn remove_peer(&mut self, key: NodePublic) {
        let Some(peer) = self.peers.remove(&key) else { return };
        self.disco_peers_changed();
        self.slots.release(&key);
        if self.pins.set(key, None) {
            self.events.push_back(Event::PinsChanged);
        }
        self.to_call.remove(&key);
        self.relays.forget(&key);
        for wake in [
            Wake::Heartbeat,
            Wake::Pulse,
            Wake::PongLate,
            Wake::TrustEnds,
            Wake::TrialEnds,
            Wake::BlockEnds,
            Wake::Opening,
            Wake::Relay,
        ] {
            self.timers.stop(wake(key));
        }
        if let Some(disco) = peer.disco.filter(|disco| !self.peers.knows_disco(disco)) {
            self.disco.forget(&disco);
        }
    }

    /// Whether an address that somebody names for a peer can be one: reachable by the underlay, and not through a subnet
    /// that some peer serves, unless we are on that very network ourselves.
    pub(super) fn may_be_candidate(&self, addr: SocketAddr) -> bool {
        let host = types::overlay::host(addr.ip());
        let routed = routes::accepted(&self.desired.routes).any(|net| net.contains(&host));
        let on_link = self.underlay.is_on_link(addr.ip());
        addr.port() != 0 && is_candidate(addr.ip()) && (on_link || !routed)
    }

    fn set_expiry_wake(&mut self, now: Instant) {
        let wall = self.control_wall(now);
        let expiries = self.netmap.node().into_iter().chain(self.netmap.peers()).map(|node| node.key_expiry);
        let next = expiries.filter_map(|at| SystemTime::from(at.get()?).duration_since(wall).ok()).min();
        match next.filter(|wait| !wait.is_zero()).and_then(|wait| now.checked_add(wait)) {
            Some(at) => self.timers.set(Wake::KeyExpiry, at),
            None => self.timers.stop(Wake::KeyExpiry),
        }
    }
}
