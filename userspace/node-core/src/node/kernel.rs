//! The kernel: dumps of the WireGuard device, and when to ask for one.
//!
//! A look every three seconds while a session lives is what activity, firewalls in the way and moved endpoints are noticed
//! by; what hints at a move asks for one earlier.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use types::NodePublic;

use super::Node;
use crate::input::ObservedPeer;
use crate::output::{Event, Via};
use crate::paths::Purpose;
use crate::timers::Wake;

/// Between looks while any session lives.
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
            let any_active = self.peers.iter().any(|peer| peer.is_active(now));
            self.timers.set(Wake::Observe, now + if any_active { ACTIVE } else { IDLE });
        }
        self.refresh_health(now);
    }

    /// One peer of a dump.
    pub(super) fn observe_peer(&mut self, seen: &ObservedPeer, now: Instant) {
        let wall = self.clock.wall_at(now);
        let slots = &self.slots;
        let Some(peer) = self.peers.get_mut(&seen.key) else { return };
        let observation = peer.observe(seen, |addr| slots.of_endpoint(addr).is_some(), wall, now);
        if observation.active {
            self.note_activity(seen.key, now);
        }
        if let Some(addr) = observation.moved {
            self.send_ping(seen.key, Via::Direct(addr), Purpose::Discovery, 0, now);
            self.probe(seen.key, true, now);
        }
        self.settle(seen.key, now);
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
