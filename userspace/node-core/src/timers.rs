//! Timers: every reason to wake up, each at most once, in the order they fall due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use types::{NodePublic, RegionId};

/// Why the node wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wake {
    /// Ping an active peer's best address, or all of them.
    Heartbeat(NodePublic),
    /// Ask the path in use once more, or give it up.
    Pulse(NodePublic),
    /// No pong came within 5 s.
    PongLate(NodePublic),
    /// The last pong is 6.5 s old: the direct address is no longer trusted.
    TrustEnds(NodePublic),
    /// WireGuard did not get through where DISCO did; the address was left for a while and may be tried again.
    BlockEnds(NodePublic),
    /// An address the kernel chose by itself was kept until now and not confirmed.
    TrialEnds(NodePublic),
    /// Send a handshake initiation once more: its first copy may have come before the peer was ready.
    Opening(NodePublic),
    /// A step of the handshake with a peer relay is to be repeated, or a place on one ends.
    Relay(NodePublic),
    /// Look at the WireGuard device's counters and endpoints.
    Observe,
    /// Send the next STUN probes of the running netcheck.
    Probe,
    /// Conclude the running netcheck with what has come.
    NetcheckEnds,
    /// Find our own addresses again: NAT mappings live about 30 s.
    Restun,
    /// An on-demand DERP connection was idle for a minute.
    DerpIdle(RegionId),
    /// A node key expires, ours or a peer's.
    KeyExpiry,
}

/// The set wakes.
#[derive(Default)]
pub(crate) struct Timers {
    at_by_wake: BTreeMap<Wake, Instant>,
    queue: BTreeSet<(Instant, Wake)>,
}

impl Timers {
    /// Sets or moves a wake.
    pub(crate) fn set(&mut self, wake: Wake, at: Instant) {
        match self.at_by_wake.insert(wake, at) {
            Some(old) if old == at => return,
            Some(old) => drop(self.queue.remove(&(old, wake))),
            None => {}
        }
        self.queue.insert((at, wake));
    }

    /// Sets a wake, or moves it only if that makes it earlier.
    pub(crate) fn set_earlier(&mut self, wake: Wake, at: Instant) {
        if self.at_by_wake.get(&wake).is_none_or(|old| at < *old) {
            self.set(wake, at);
        }
    }

    pub(crate) fn stop(&mut self, wake: Wake) {
        if let Some(old) = self.at_by_wake.remove(&wake) {
            self.queue.remove(&(old, wake));
        }
    }

    pub(crate) fn is_set(&self, wake: Wake) -> bool {
        self.at_by_wake.contains_key(&wake)
    }

    /// The next wake.
    pub(crate) fn next(&self) -> Option<(Instant, Wake)> {
        self.queue.first().copied()
    }

    /// Takes the next wake that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Wake> {
        let (at, wake) = self.next()?;
        if at > now {
            return None;
        }
        self.stop(wake);
        Some(wake)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn wakes_come_in_order_and_each_reason_once() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut timers = Timers::default();
        timers.set(Wake::Observe, at(5));
        timers.set(Wake::Restun, at(3));
        timers.set(Wake::Observe, at(2));
        timers.set_earlier(Wake::Restun, at(9));
        assert_eq!(timers.next(), Some((at(2), Wake::Observe)));
        assert_eq!(timers.pop(at(1)), None);
        assert_eq!(timers.pop(at(4)), Some(Wake::Observe));
        assert_eq!(timers.pop(at(4)), Some(Wake::Restun));
        assert_eq!(timers.pop(at(99)), None);
    }
}
