//! Paths: one peer's candidate addresses, the pings under way, and the address trusted now.
//!
//! A candidate comes from the map, from a call-me-maybe, from a ping's source or from the kernel, and is believed only
//! after a pong (endpoint lists in maps go stale and grow). The best one is trusted for 6.5 s from its last pong. Times and
//! rules are those of tailscale `wgengine/magicsock/endpoint.go`, so that both sides agree who is reachable.
//! Deliberately not here: bytes, DERP, the kernel's own endpoint (`peer`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire::disco::TxId;

use crate::output::{PingId, Via};
use crate::score::{GOOD_ENOUGH, Quality};

/// How long a pong is believed (`trustUDPAddrDuration`): two heartbeats may be lost.
pub(crate) const TRUST: Duration = Duration::from_millis(6500);
/// How long a pong is waited for (`pingTimeoutDuration`).
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest time between two discovery pings to one candidate (`discoPingInterval`).
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How often a better address is looked for while a good one works (`upgradeUDPDirectInterval`).
const UPGRADE_INTERVAL: Duration = Duration::from_secs(60);
/// How long a session lives without traffic (`sessionActiveTimeout`).
pub(crate) const SESSION: Duration = Duration::from_secs(45);
/// The shortest time between two pings that answer pings, so that two sides never ping each other in circles.
const ANSWER_INTERVAL: Duration = Duration::from_millis(500);
/// Candidates beyond this are swept of what is no longer current.
const MANY: usize = 100;

/// Why a ping was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To find out whether a candidate works.
    Discovery,
    /// To keep the best one trusted.
    Heartbeat,
    /// Because a user asked.
    User(PingId),
}

/// A ping under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) to: Via,
    pub(crate) at: Instant,
    pub(crate) purpose: Purpose,
}

/// What a ping's source was until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Already a candidate.
    Known,
    /// A candidate from now on.
    New,
    /// This very ping came from there before.
    Duplicate,
}

#[derive(Default)]
struct Candidate {
    in_map: bool,
    called: bool,
    /// Last ping from it; for those that are neither in the map nor called, what keeps them.
    got_ping: Option<Instant>,
    got_tx: Option<TxId>,
    last_ping: Option<Instant>,
    last_pong: Option<Instant>,
}

impl Candidate {
    fn is_current(&self, now: Instant) -> bool {
        self.in_map || self.called || self.got_ping.is_some_and(|at| now < at + SESSION)
    }

    fn pinged_within(&self, now: Instant, interval: Duration) -> bool {
        self.last_ping.is_some_and(|at| now < at + interval)
    }
}

/// One peer's paths.
#[derive(Default)]
pub(crate) struct Paths {
    candidates: BTreeMap<SocketAddr, Candidate>,
    best: Option<Quality>,
    trusted_until: Option<Instant>,
    last_full_ping: Option<Instant>,
    sent: BTreeMap<TxId, Sent>,
}

impl Paths {
    /// The address to use alone, while there is one.
    pub(crate) fn trusted(&self, now: Instant) -> Option<SocketAddr> {
        self.best.filter(|_| self.is_trusted(now)).map(|best| best.addr)
    }

    pub(crate) fn trusted_until(&self) -> Option<Instant> {
        self.best.and(self.trusted_until)
    }

    /// The address heartbeats go to: the best known, even if no longer trusted.
    pub(crate) fn best(&self) -> Option<SocketAddr> {
        self.best.map(|best| best.addr)
    }

    /// Whether `addr` answered within the time an answer is believed.
    pub(crate) fn is_confirmed(&self, addr: SocketAddr, now: Instant) -> bool {
        let pong = self.candidates.get(&addr).and_then(|candidate| candidate.last_pong);
        pong.is_some_and(|at| now <= at + TRUST)
    }

    pub(crate) fn candidates(&self) -> impl Iterator<Item = SocketAddr> {
        self.candidates.keys().copied()
    }

    /// The map's list, replacing its former one.
    pub(crate) fn set_map_candidates(&mut self, addrs: &[SocketAddr], now: Instant) {
        for candidate in self.candidates.values_mut() {
            candidate.in_map = false;
        }
        for addr in addrs {
            self.candidates.entry(*addr).or_default().in_map = true;
        }
        self.sweep(now);
    }

    /// A call-me-maybe's list, replacing the former one. All candidates are due for a ping: the first ones were sent before
    /// the other side's firewall was open.
    pub(crate) fn set_called_candidates(&mut self, addrs: &[SocketAddr], now: Instant) {
        for candidate in self.candidates.values_mut() {
            candidate.called = false;
        }
        for addr in addrs {
            self.candidates.entry(*addr).or_default().called = true;
        }
        self.sweep(now);
        for candidate in self.candidates.values_mut() {
            candidate.last_ping = None;
        }
    }

    /// Where a ping came from.
    pub(crate) fn add_pinging(&mut self, addr: SocketAddr, tx_id: TxId, now: Instant) -> Source {
        let known = self.candidates.contains_key(&addr);
        if !known && self.candidates.len() >= MANY {
            self.sweep(now);
        }
        let candidate = self.candidates.entry(addr).or_default();
        candidate.got_ping = Some(now);
        match (known, candidate.got_tx.replace(tx_id) == Some(tx_id)) {
            (_, true) => Source::Duplicate,
            (true, false) => Source::Known,
            (false, false) => Source::New,
        }
    }

    /// Where the kernel authenticated a packet from.
    pub(crate) fn add_kernel(&mut self, addr: SocketAddr, now: Instant) {
        self.candidates.entry(addr).or_default().got_ping = Some(now);
    }

    /// The candidates due for a discovery ping; the caller pings them all.
    pub(crate) fn start_full_ping(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.sweep(now);
        self.last_full_ping = Some(now);
        let due =
            self.candidates.iter().filter(|(_, candidate)| !candidate.pinged_within(now, PING_INTERVAL));
        due.map(|(addr, _)| *addr).collect()
    }

    /// Whether the source of a ping deserves one back: it cannot be used yet, and its firewall is open right now.
    pub(crate) fn wants_answer_ping(&self, addr: SocketAddr, now: Instant) -> bool {
        let recent = self.candidates.get(&addr).is_some_and(|c| c.pinged_within(now, ANSWER_INTERVAL));
        !recent && !self.is_trusted(now) && !self.is_confirmed(addr, now)
    }

    /// Whether a heartbeat should look at all candidates (`wantFullPingLocked`).
    pub(crate) fn wants_full_ping(&self, now: Instant) -> bool {
        let (Some(best), Some(last)) = (self.best, self.last_full_ping) else { return true };
        !self.is_trusted(now) || (best.latency > GOOD_ENOUGH && now >= last + UPGRADE_INTERVAL)
    }

    pub(crate) fn note_sent(&mut self, tx_id: TxId, sent: Sent) {
        if let (Via::Direct(addr), false) = (sent.to, matches!(sent.purpose, Purpose::User(_)))
            && let Some(candidate) = self.candidates.get_mut(&addr)
        {
            candidate.last_ping = Some(sent.at);
        }
        self.sent.insert(tx_id, sent);
    }

    /// A pong: the ping it answers, or `None` when there is none. A direct one may change the best address.
    pub(crate) fn handle_pong(&mut self, tx_id: TxId, now: Instant) -> Option<Sent> {
        let sent = self.sent.remove(&tx_id)?;
        let Via::Direct(addr) = sent.to else { return Some(sent) };
        let Some(candidate) = self.candidates.get_mut(&addr) else { return Some(sent) };
        candidate.last_pong = Some(now);
        let quality = Quality { addr, latency: now.saturating_duration_since(sent.at) };
        let trusted = self.is_trusted(now);
        match self.best {
            Some(best) if trusted && best.addr != addr && !quality.is_better_than(&best) => {}
            _ => {
                self.best = Some(quality);
                self.trusted_until = Some(now + TRUST);
            }
        }
        Some(sent)
    }

    /// Gives up pings that are too old and returns them. The best address is cleared when its own ping is among them and
    /// nothing else has confirmed it.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Sent> {
        let late: Vec<TxId> =
            self.sent.iter().filter(|(_, sent)| now >= sent.at + PING_TIMEOUT).map(|(id, _)| *id).collect();
        let late: Vec<Sent> = late.iter().filter_map(|id| self.sent.remove(id)).collect();
        let lost_best = late.iter().any(|sent| self.best().is_some_and(|best| sent.to == Via::Direct(best)));
        if lost_best && !self.is_trusted(now) {
            self.best = None;
        }
        late
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.sent.values().map(|sent| sent.at + PING_TIMEOUT).min()
    }

    /// Nothing is confirmed any more: the network under us changed, or WireGuard did not get through.
    pub(crate) fn doubt(&mut self) {
        self.best = None;
        self.trusted_until = None;
        for candidate in self.candidates.values_mut() {
            candidate.last_ping = None;
            candidate.last_pong = None;
        }
    }

    fn is_trusted(&self, now: Instant) -> bool {
        self.best.is_some() && self.trusted_until.is_some_and(|until| now <= until)
    }

    fn sweep(&mut self, now: Instant) {
        self.candidates.retain(|_, candidate| candidate.is_current(now));
        if self.best().is_some_and(|best| !self.candidates.contains_key(&best)) {
            self.best = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        paths: Paths,
        start: Instant,
        next_tx: u8,
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    impl Fixture {
        fn new(ports: &[u16]) -> Self {
            let start = Instant::now();
            let mut paths = Paths::default();
            paths.set_map_candidates(&ports.iter().map(|port| addr(*port)).collect::<Vec<_>>(), start);
            Self { paths, start, next_tx: 0 }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// A ping to `port` at `ms`, answered after `rtt`; 0 is never.
        fn ping(&mut self, port: u16, ms: u64, rtt: u64) {
            self.next_tx += 1;
            let (tx_id, at) = (TxId([self.next_tx; 12]), self.at(ms));
            self.paths
                .note_sent(tx_id, Sent { to: Via::Direct(addr(port)), at, purpose: Purpose::Discovery });
            if rtt > 0 {
                assert!(self.paths.handle_pong(tx_id, self.at(ms + rtt)).is_some());
            }
        }
    }

    #[test]
    fn a_pong_is_trusted_for_six_and_a_half_seconds() {
        let mut f = Fixture::new(&[1]);
        assert_eq!(f.paths.trusted(f.start), None);
        f.ping(1, 0, 20);
        assert_eq!(f.paths.trusted(f.at(6520)), Some(addr(1)));
        assert_eq!(f.paths.trusted(f.at(6521)), None);
        assert_eq!(f.paths.best(), Some(addr(1)), "still pinged");
    }

    #[test]
    fn a_better_address_wins_and_a_similar_one_does_not() {
        let mut f = Fixture::new(&[1, 2, 3]);
        f.ping(1, 0, 100);
        f.ping(2, 0, 101);
        assert_eq!(f.paths.trusted(f.at(200)), Some(addr(1)));
        f.ping(3, 0, 50);
        assert_eq!(f.paths.trusted(f.at(200)), Some(addr(3)));
    }

    #[test]
    fn any_answering_address_replaces_an_untrusted_best() {
        let mut f = Fixture::new(&[1, 2]);
        f.ping(1, 0, 10);
        f.ping(2, 7000, 200);
        assert_eq!(f.paths.trusted(f.at(7300)), Some(addr(2)));
    }

    #[test]
    fn an_unanswered_ping_clears_the_best_only_after_its_trust() {
        let mut f = Fixture::new(&[1]);
        f.ping(1, 0, 10);
        f.ping(1, 1000, 0);
        assert_eq!(f.paths.next_expiry(), Some(f.at(6000)));
        f.paths.expire(f.at(6000));
        assert_eq!(f.paths.best(), Some(addr(1)));
        f.ping(1, 3000, 0);
        assert_eq!(f.paths.expire(f.at(8000)).len(), 1);
        assert_eq!(f.paths.best(), None);
    }

    #[test]
    fn candidates_are_pinged_every_five_seconds_and_at_once_after_a_call() {
        let mut f = Fixture::new(&[1]);
        assert_eq!(f.paths.start_full_ping(f.start), [addr(1)]);
        f.ping(1, 0, 0);
        assert!(f.paths.start_full_ping(f.at(4999)).is_empty());
        f.paths.set_called_candidates(&[addr(2)], f.at(4999));
        assert_eq!(f.paths.start_full_ping(f.at(4999)), [addr(1), addr(2)]);
    }

    #[test]
    fn an_address_leaves_when_nobody_names_it_any_more() {
        let mut f = Fixture::new(&[1, 2]);
        f.ping(1, 0, 10);
        f.paths.set_map_candidates(&[addr(2)], f.at(20));
        assert_eq!(f.paths.candidates().collect::<Vec<_>>(), [addr(2)]);
        assert_eq!(f.paths.best(), None);
        assert_eq!(f.paths.add_pinging(addr(3), TxId([9; 12]), f.at(20)), Source::New);
        assert_eq!(f.paths.add_pinging(addr(3), TxId([9; 12]), f.at(21)), Source::Duplicate);
        assert_eq!(f.paths.add_pinging(addr(3), TxId([8; 12]), f.at(21)), Source::Known);
        assert_eq!(f.paths.start_full_ping(f.at(45_020)).len(), 2);
        assert_eq!(f.paths.start_full_ping(f.at(45_022)), [addr(2)]);
    }

    #[test]
    fn a_fast_trusted_path_is_not_upgraded_and_a_slow_one_every_minute() {
        let mut f = Fixture::new(&[1]);
        assert!(f.paths.wants_full_ping(f.start));
        f.paths.start_full_ping(f.start);
        f.ping(1, 59_000, 4);
        assert!(!f.paths.wants_full_ping(f.at(61_000)));
        f.ping(1, 59_000, 6);
        assert!(!f.paths.wants_full_ping(f.at(59_999)));
        assert!(f.paths.wants_full_ping(f.at(60_000)));
    }
}
