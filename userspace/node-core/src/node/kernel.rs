//! The kernel: dumps of the WireGuard device, and when to ask for one.
//!
//! A look every three seconds while a session lives is what activity, firewalls in the way and moved endpoints are noticed
//! by; what hints at a move asks for one earlier.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use types::NodePublic;

use super::Node;
use crate::endpoints::is_candidate;
use crate::input::ObservedPeer;
use crate::output::{Event, Via};
use crate::path::Path;
use crate::paths::{Purpose, Target};
use crate::peer::Peer;
use crate::timers::Wake;

/// Between looks while any session lives by a path: a dead path shows by bytes that leave while none come.
const WATCHFUL: Duration = Duration::from_millis(250);
/// So much longer for each peer in the kernel, for a look costs in proportion.
const PER_PEER: Duration = Duration::from_millis(1);
/// Between looks while sessions live by DERP only; at most.
const ACTIVE: Duration = Duration::from_secs(3);
/// Between looks while none does.
const IDLE: Duration = Duration::from_secs(30);
/// After something that may have moved an endpoint; packets come in thousands, looks must not.
const SOON: Duration = Duration::from_millis(500);

impl Node {
    /// A dump of the WireGuard device, complete: a peer not in it is not in the kernel.
    pub fn handle_kernel(&mut self, observed: &[ObservedPeer], now: Instant) {
        let is_first = self.observed.is_none();
        self.observed = Some(observed.iter().map(|peer| (peer.key, peer.clone())).collect());
        self.adopt_slots(observed);
        for peer in observed {
            self.observe_peer(peer, now);
        }
        let in_kernel: BTreeSet<NodePublic> = observed.iter().map(|peer| peer.key).collect();
        for peer in self.peers.iter_mut().filter(|peer| !in_kernel.contains(&peer.key)) {
            peer.forget_kernel();
        }
        if is_first {
            self.rebuild(now);
            // Live sessions show by growing counters, and what is held lasts only some seconds.
            self.timers.set(Wake::Observe, now + Duration::from_secs(1));
        } else {
            self.timers.set(Wake::Observe, now + self.look_interval(observed.len(), now));
        }
        self.refresh_health(now);
    }

    fn look_interval(&self, peers: usize, now: Instant) -> Duration {
        let watchful = WATCHFUL + PER_PEER * u32::try_from(peers).unwrap_or(u32::MAX);
        let active = self.peers.iter().filter(|peer| peer.is_active(now));
        let of = |peer: &Peer| if peer.in_use(now).is_some() { watchful.min(ACTIVE) } else { ACTIVE };
        active.map(of).min().unwrap_or(IDLE)
    }

    /// One peer of a dump.
    pub(super) fn observe_peer(&mut self, seen: &ObservedPeer, now: Instant) {
        let wall = self.clock.wall_at(now);
        let target = seen.endpoint.and_then(|endpoint| self.target_of(endpoint));
        let Some(peer) = self.peers.get_mut(&seen.key) else { return };
        let observation = peer.observe(seen, target, &self.underlay, wall, now);
        if observation.active {
            self.note_activity(seen.key, now);
        }
        if observation.shook_hands {
            self.tell_disco_key(seen.key);
        }
        if let Some(path) = observation.moved {
            self.send_ping(seen.key, Via::Udp(path), Purpose::Discovery, 0, now);
            self.probe(seen.key, true, now);
        }
        self.settle(seen.key, now);
    }

    /// What the kernel is told to send by `path`; `None` is the peer's loopback address, and so DERP. From there packets get
    /// a peer relay's header, too, where the programs do not put it before them.
    pub(super) fn endpoint_of(&mut self, key: NodePublic, path: Option<Path>) -> SocketAddr {
        let known = path.and_then(|path| match path.vni {
            Some(vni) => self.detours.endpoint(path.remote, vni),
            None => Some(path.remote),
        });
        known.unwrap_or_else(|| self.slots.endpoint(key))
    }

    /// What an endpoint of the kernel means; `None` for loopback addresses, and for what can be no path.
    fn target_of(&self, endpoint: SocketAddr) -> Option<Target> {
        if let Some((relay, vni)) = self.detours.place(endpoint) {
            return Some((relay, Some(vni)));
        }
        let is_path = self.slots.of_endpoint(endpoint).is_none() && is_candidate(endpoint.ip());
        is_path.then_some((endpoint, None))
    }

    /// A session has come to life.
    pub(super) fn look_at_active(&mut self, now: Instant) {
        self.look_before(now + ACTIVE);
    }

    /// An endpoint may just have moved.
    pub(super) fn look_soon(&mut self, now: Instant) {
        self.look_before(now + SOON);
    }

    pub(super) fn look_before(&mut self, at: Instant) {
        self.timers.set_earlier(Wake::Observe, at);
    }

    /// The answer sets the wake anew; this one only covers an answer that never comes.
    pub(super) fn ask_for_dump(&mut self, now: Instant) {
        self.timers.set(Wake::Observe, now + IDLE);
        self.events.push_back(Event::ObserveKernel);
    }

    /// Where the kernel has a peer at another loopback address than its key gives, the kernel's counts.
    fn adopt_slots(&mut self, observed: &[ObservedPeer]) {
        for seen in observed {
            let slot = seen.endpoint.and_then(|addr| self.slots.of_endpoint(addr));
            if let Some(slot) = slot.filter(|_| self.peers.get(&seen.key).is_some()) {
                self.slots.adopt(seen.key, slot);
            }
        }
    }
}
