//! DERP: which regions are connected, what comes through them, and what the kernel sends to loopback addresses.
//!
//! The home region is connected all the time, so that peers find us; others from the first packet until a minute without
//! one (tailscale `wgengine/magicsock/derp.go`).

use std::time::{Duration, Instant};

use types::{NodePublic, RegionId};
use wire::disco::looks_like_disco;

use super::Node;
use crate::input::DerpState;
use crate::output::{Carry, Event, FromDerp, Transmit, Via};
use crate::slots::Slot;
use crate::timers::Wake;

/// How long a connection that is not home lives without packets (`derpInactiveCleanupTime`).
const IDLE: Duration = Duration::from_secs(60);

/// A region the shell was told to connect to.
#[derive(Debug)]
pub(super) struct Connection {
    state: State,
    /// Last packet either way.
    used: Instant,
    /// Last sign of life.
    pub(super) heard: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    Lost,
}

impl Connection {
    /// Whether it failed, as opposed to not being there yet.
    pub(super) fn is_lost(&self) -> bool {
        self.state == State::Lost
    }
}

impl Node {
    /// A packet that `from` sent over DERP.
    pub fn handle_derp(
        &mut self,
        region: RegionId,
        from: NodePublic,
        bytes: &[u8],
        now: Instant,
    ) -> FromDerp {
        if let Some(connection) = self.connections.get_mut(&region) {
            connection.heard = Some(now);
            connection.used = now;
        }
        let Some(peer) = self.peers.get_mut(&from) else { return FromDerp::Consumed };
        peer.heard_in = Some(region);
        if looks_like_disco(bytes) {
            self.handle_disco(Via::Derp(region), Some(from), bytes, now);
            return FromDerp::Consumed;
        }
        // Its WireGuard speaks to ours: it knows us.
        peer.end_opening();
        peer.note_relayed(now);
        if self.peers.get(&from).is_some_and(|peer| peer.paths.trusted(now).is_some()) {
            self.settle(from, now);
            // One such packet turns the kernel's endpoint to the loopback address.
            self.look_soon(now);
        }
        FromDerp::Deliver(self.slots.assign(from))
    }

    /// A DERP connection came, lives or went.
    pub fn handle_derp_state(&mut self, region: RegionId, state: DerpState, now: Instant) {
        let Some(connection) = self.connections.get_mut(&region) else { return };
        match state {
            DerpState::Connected | DerpState::Alive => {
                connection.state = State::Connected;
                connection.heard = Some(now);
            }
            DerpState::Disconnected { .. } => connection.state = State::Lost,
            DerpState::PeerGone(key) => {
                // Not there any more: reach it where the map says it lives.
                if let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.heard_in == Some(region)) {
                    peer.heard_in = None;
                }
            }
        }
        self.refresh_health(now);
    }

    /// A packet the kernel sent to a peer's loopback address: where it goes, or `None` to drop it. Also the sign that the
    /// kernel wants this peer, so that probing for a direct path begins.
    pub fn handle_loopback(&mut self, slot: Slot, bytes: &[u8], now: Instant) -> Option<Carry> {
        let key = self.slots.peer(slot).filter(|_| !bytes.is_empty())?;
        let loopback = self.slots.endpoint(key);
        let peer = self.peers.get_mut(&key)?;
        peer.note_at_loopback(loopback, now);
        let trusted = peer.paths.trusted(now);
        self.note_activity(key, now);
        if trusted.is_none() {
            self.probe(key, true, now);
        }
        self.settle(key, now);
        if let Some(path) = trusted {
            return Some(Carry::Udp(path));
        }
        let peer = self.peers.get_mut(&key)?;
        if let Some(repeat) = peer.keep_opening(bytes, now) {
            self.timers.set(Wake::Opening(key), repeat);
        }
        let region = self.peers.get(&key)?.region()?;
        self.use_region(region, now);
        Some(Carry::Derp { region, to: key })
    }

    /// Queues a DISCO message for a peer by its region.
    pub(super) fn send_by_derp(&mut self, region: RegionId, to: NodePublic, bytes: Vec<u8>, now: Instant) {
        self.use_region(region, now);
        self.transmits.push_back(Transmit::Derp { region, to, bytes });
    }

    /// Makes `region` home, if it is not.
    pub(super) fn set_home(&mut self, region: Option<RegionId>, now: Instant) {
        let old = std::mem::replace(&mut self.home, region);
        if old == region {
            return;
        }
        if let Some(old) = old.filter(|old| self.connections.contains_key(old)) {
            self.events.push_back(Event::ConnectDerp { region: old, home: false });
            self.timers.set(Wake::DerpIdle(old), now + IDLE);
        }
        if let Some(region) = region {
            self.connect(region, true, now);
            self.timers.stop(Wake::DerpIdle(region));
        }
    }

    /// The map's regions changed, or we were started: connections to regions that are gone are closed, and the rest is
    /// measured anew.
    pub(super) fn follow_derp_map(&mut self, now: Instant) {
        let present: Vec<RegionId> = self.netmap.derp().present().map(|(id, _)| id).collect();
        let gone: Vec<RegionId> =
            self.connections.keys().filter(|region| !present.contains(region)).copied().collect();
        for region in gone {
            self.disconnect(region);
        }
        if !self.is_running(now) {
            return;
        }
        // Where peers last knew us to be, until something else is measured: a restart moves nobody.
        let last = self.netmap.node().and_then(wire::control::Node::home_region);
        let home = self.home.or(last).filter(|region| present.contains(region));
        self.set_home(home, now);
        self.names.clear();
        self.netcheck.reset();
        self.start_netcheck(now);
    }

    pub(super) fn close_if_idle(&mut self, region: RegionId, now: Instant) {
        let Some(connection) = self.connections.get(&region) else { return };
        if self.home == Some(region) {
            return;
        }
        match connection.used + IDLE {
            until if until > now => self.timers.set(Wake::DerpIdle(region), until),
            _ => self.disconnect(region),
        }
    }

    pub(super) fn disconnect_all(&mut self) {
        self.home = None;
        let all: Vec<RegionId> = self.connections.keys().copied().collect();
        for region in all {
            self.disconnect(region);
        }
    }

    fn disconnect(&mut self, region: RegionId) {
        self.connections.remove(&region);
        self.timers.stop(Wake::DerpIdle(region));
        self.events.push_back(Event::CloseDerp(region));
    }

    fn use_region(&mut self, region: RegionId, now: Instant) {
        match self.connections.get_mut(&region) {
            Some(connection) => connection.used = now,
            None => {
                self.connect(region, false, now);
                self.timers.set(Wake::DerpIdle(region), now + IDLE);
            }
        }
    }

    fn connect(&mut self, region: RegionId, home: bool, now: Instant) {
        self.connections.entry(region).or_insert(Connection {
            state: State::Connecting,
            used: now,
            heard: None,
        });
        self.events.push_back(Event::ConnectDerp { region, home });
    }
}
