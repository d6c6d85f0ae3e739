//! Paths: one peer's candidates, the pings under way, and the path trusted now.
//!
//! An address comes from the map, from a call-me-maybe, from a ping's source, from a peer relay or from the kernel; each
//! uplink that leads to it makes it a path, which is believed only after a pong (endpoint lists in maps go stale and grow). The
//! best one is trusted for 6.5 s from its last pong. Times and rules are those of tailscale
//! `wgengine/magicsock/endpoint.go`, so that both sides agree who is reachable.
//! Deliberately not here: bytes, DERP, the kernel's own endpoint (`peer`), which of two paths is better (`score`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use types::Vni;
use wire::disco::TxId;

use crate::explain::{Verdict, Way};
use crate::origin::Origin;
use crate::output::{PingId, Via};
use crate::path::{Path, Uplink};
use crate::score::{GOOD_ENOUGH, Score, Standing};
use crate::underlay::Underlay;

/// How long a pong is believed (`trustUDPAddrDuration`): two heartbeats may be lost.
pub(crate) const TRUST: Duration = Duration::from_millis(6500);
/// How long a pong is waited for (`pingTimeoutDuration`).
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest time between two discovery pings by one path (`discoPingInterval`).
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How often a better path is looked for while a good one works (`upgradeUDPDirectInterval`).
const UPGRADE_INTERVAL: Duration = Duration::from_secs(60);
/// For so long after a choice a path of a better standing is looked for more often.
const HOPE: Duration = Duration::from_secs(20);
/// How long a session lives without traffic (`sessionActiveTimeout`).
pub(crate) const SESSION: Duration = Duration::from_secs(45);
/// The shortest time between two pings that answer pings, so that two sides never ping each other in circles.
const ANSWER_INTERVAL: Duration = Duration::from_millis(500);
/// The shortest time between two pings by one path while the one in use is in doubt.
const URGENT_INTERVAL: Duration = Duration::from_millis(250);
/// A path chosen without a pong just now is believed at least so long, or until a series of pings finds it dead.
const PROBATION: Duration = Duration::from_secs(2);
/// How often a path by another uplink is pinged, so that NATs keep it open: many forget after 30 s.
const STANDBY_INTERVAL: Duration = Duration::from_secs(15);
/// For so long it may miss its pings.
const STANDBY_KEPT: Duration = Duration::from_secs(60);
/// A path that answered within this is sure enough to replace one that is dead.
const JUST_NOW: Duration = Duration::from_secs(1);
/// Addresses beyond this are swept of what is no longer current.
const MANY: usize = 100;

/// Why a ping was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To find out whether a path works.
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

/// An address of a peer, or its place on a relay's.
pub(crate) type Target = (SocketAddr, Option<Vni>);

/// What was tried of a path.
#[derive(Clone, Copy, Debug)]
struct Trial {
    standing: Standing,
    last_ping: Option<Instant>,
    /// When the last pong came, and its round trip.
    pong: Option<(Instant, Duration)>,
    /// When it was last found dead.
    died: Option<Instant>,
}

impl Trial {
    fn new(standing: Standing) -> Self {
        Self { standing, last_ping: None, pong: None, died: None }
    }

    fn pinged_within(&self, now: Instant, interval: Duration) -> bool {
        self.last_ping.is_some_and(|at| now < at + interval)
    }

    fn answered_within(&self, now: Instant, time: Duration) -> bool {
        self.pong.is_some_and(|(at, _)| now <= at + time)
    }

    /// Until when its last pong is believed.
    fn confirmed_until(&self) -> Option<Instant> {
        self.pong.map(|(at, _)| at + TRUST)
    }

    fn is_confirmed(&self, now: Instant) -> bool {
        self.confirmed_until().is_some_and(|until| now <= until)
    }

    fn score(&self, remote: SocketAddr) -> Option<Score> {
        self.pong.map(|(_, latency)| Score::new(self.standing, remote, latency))
    }
}

/// One peer's paths.
#[derive(Default)]
pub(crate) struct Paths {
    origins: BTreeMap<Target, Origin>,
    trials: BTreeMap<Path, Trial>,
    best: Option<Path>,
    /// Since when another one is the best.
    best_since: Option<Instant>,
    trusted_until: Option<Instant>,
    last_full_ping: Option<Instant>,
    sent: BTreeMap<TxId, Sent>,
}

impl Paths {
    /// The path to use alone, while there is one.
    pub(crate) fn trusted(&self, now: Instant) -> Option<Path> {
        self.best.filter(|_| self.is_trusted(now))
    }

    pub(crate) fn trusted_until(&self) -> Option<Instant> {
        self.best.and(self.trusted_until)
    }

    /// The path heartbeats take: the best known, even if no longer trusted.
    pub(crate) fn best(&self) -> Option<Path> {
        self.best
    }

    /// Whether `path` answered within the time an answer is believed.
    pub(crate) fn is_confirmed(&self, path: Path, now: Instant) -> bool {
        self.trials.get(&path).is_some_and(|trial| trial.is_confirmed(now))
    }

    /// The path by which packets to `target` leave: the best of those that lead there.
    pub(crate) fn toward(&self, target: Target, now: Instant) -> Option<Path> {
        let leads_there = |path: &Path| (path.remote, path.vni) == target;
        if let Some(best) = self.best.filter(leads_there) {
            return Some(best);
        }
        let ways = self.trials.iter().filter(|(path, _)| leads_there(path));
        let (path, _) = ways.min_by_key(|(path, trial)| {
            let score = trial.score(path.remote).filter(|_| trial.is_confirmed(now));
            (score.is_none(), score, trial.standing, **path)
        })?;
        Some(*path)
    }

    /// Every path that can be tried.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = Path> {
        self.trials.keys().copied()
    }

    /// The peer's own addresses that somebody named.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.origins.keys().filter(|(_, vni)| vni.is_none()).map(|(addr, _)| *addr)
    }

    /// The map's list, replacing its former one.
    pub(crate) fn set_map_candidates(&mut self, addrs: &[SocketAddr], underlay: &Underlay, now: Instant) {
        self.origins.values_mut().for_each(|origin| origin.in_map = false);
        for addr in addrs {
            self.origins.entry((*addr, None)).or_default().in_map = true;
        }
        self.lay_out(underlay, now);
    }

    /// A call-me-maybe's list, replacing the former one. All paths are due for a ping: the first ones were sent before the
    /// other side's firewall was open.
    pub(crate) fn set_called_candidates(&mut self, addrs: &[SocketAddr], underlay: &Underlay, now: Instant) {
        self.origins.values_mut().for_each(|origin| origin.called = false);
        for addr in addrs {
            self.origins.entry((*addr, None)).or_default().called = true;
        }
        self.lay_out(underlay, now);
        self.trials.values_mut().for_each(|trial| trial.last_ping = None);
    }

    /// The places on peer relays that the peer and we share, replacing the former ones.
    pub(crate) fn set_relayed(&mut self, places: &[(SocketAddr, Vni)], underlay: &Underlay, now: Instant) {
        let known = self.origins.iter().filter(|(_, origin)| origin.relayed).map(|(target, _)| *target);
        let wanted: BTreeSet<Target> = places.iter().map(|(relay, vni)| (*relay, Some(*vni))).collect();
        if known.collect::<BTreeSet<_>>() == wanted {
            return;
        }
        self.origins.values_mut().for_each(|origin| origin.relayed = false);
        for (relay, vni) in places {
            self.origins.entry((*relay, Some(*vni))).or_default().relayed = true;
        }
        self.lay_out(underlay, now);
    }

    /// By which path a ping came.
    pub(crate) fn add_pinging(
        &mut self,
        path: Path,
        tx_id: TxId,
        underlay: &Underlay,
        now: Instant,
    ) -> Source {
        let target = (path.remote, path.vni);
        let known = self.origins.contains_key(&target);
        let origin = self.origins.entry(target).or_default();
        origin.pinged = Some(now);
        let duplicate = origin.ping.replace(tx_id) == Some(tx_id);
        if !known && self.origins.len() > MANY {
            self.sweep(now);
        }
        self.lay_out_target(target, underlay);
        match (known, duplicate) {
            (_, true) => Source::Duplicate,
            (true, false) => Source::Known,
            (false, false) => Source::New,
        }
    }

    /// Where the kernel authenticated a packet from.
    pub(crate) fn add_roamed(&mut self, path: Path, underlay: &Underlay, now: Instant) {
        let target = (path.remote, path.vni);
        self.origins.entry(target).or_default().roamed = Some(now);
        self.lay_out_target(target, underlay);
    }

    /// The paths due for a discovery ping; the caller pings them all.
    pub(crate) fn start_full_ping(&mut self, underlay: &Underlay, now: Instant) -> Vec<Path> {
        self.lay_out(underlay, now);
        self.last_full_ping = Some(now);
        let due = self.trials.iter().filter(|(_, trial)| !trial.pinged_within(now, PING_INTERVAL));
        due.map(|(path, _)| *path).collect()
    }

    /// All paths that were not pinged just now; the caller pings them all. The one in use is in doubt.
    pub(crate) fn start_urgent_ping(&mut self, underlay: &Underlay, now: Instant) -> Vec<Path> {
        self.lay_out(underlay, now);
        self.last_full_ping = Some(now);
        let due = self.trials.iter().filter(|(_, trial)| !trial.pinged_within(now, URGENT_INTERVAL));
        due.map(|(path, _)| *path).collect()
    }

    /// For each uplink but that of `in_use`, the best path by it that may still answer, when it is due for a ping: its NAT
    /// mappings stay open, and it is known to work when the one in use fails.
    pub(crate) fn standbys(&self, in_use: Path, now: Instant) -> Vec<Path> {
        let mut best: BTreeMap<Uplink, (Score, Path)> = BTreeMap::new();
        for (path, trial) in self.trials.iter().filter(|(_, trial)| trial.answered_within(now, STANDBY_KEPT))
        {
            let Some((uplink, score)) = path.uplink.zip(trial.score(path.remote)) else { continue };
            if path.uplink != in_use.uplink && best.get(&uplink).is_none_or(|best| score < best.0) {
                best.insert(uplink, (score, *path));
            }
        }
        let due =
            |path: &Path| self.trials.get(path).is_some_and(|t| !t.pinged_within(now, STANDBY_INTERVAL));
        best.into_values().map(|(_, path)| path).filter(due).collect()
    }

    /// Whether the source of a ping deserves one back: it cannot be used yet, and its firewall is open right now.
    pub(crate) fn wants_answer_ping(&self, path: Path, now: Instant) -> bool {
        let recent = self.trials.get(&path).is_some_and(|trial| trial.pinged_within(now, ANSWER_INTERVAL));
        !recent && !self.is_trusted(now) && !self.is_confirmed(path, now)
    }

    /// Whether a heartbeat should look at all candidates (`wantFullPingLocked`).
    pub(crate) fn wants_full_ping(&self, now: Instant) -> bool {
        let (Some(best), Some(last)) = (self.best, self.last_full_ping) else { return true };
        let slow = self.latency(best).is_none_or(|latency| latency > GOOD_ENOUGH);
        let standing = |path: Path| self.trials.get(&path).map(|trial| trial.standing);
        let hopeful = self.trials.values().any(|trial| Some(trial.standing) < standing(best));
        // A first exchange may have missed the better path by a few milliseconds.
        let is_new = self.best_since.is_some_and(|since| now < since + HOPE);
        let interval = if hopeful && is_new { PING_INTERVAL } else { UPGRADE_INTERVAL };
        let upgradable = (slow || hopeful) && now >= last + interval;
        !best.is_direct() || !self.is_trusted(now) || upgradable
    }

    pub(crate) fn note_sent(&mut self, tx_id: TxId, sent: Sent) {
        if let (Via::Udp(path), false) = (sent.to, matches!(sent.purpose, Purpose::User(_)))
            && let Some(trial) = self.trials.get_mut(&path)
        {
            trial.last_ping = Some(sent.at);
        }
        self.sent.insert(tx_id, sent);
    }

    /// A pong: the ping it answers, or `None` when there is none. One by UDP may change the best path.
    pub(crate) fn handle_pong(&mut self, tx_id: TxId, now: Instant) -> Option<Sent> {
        let sent = self.sent.remove(&tx_id)?;
        let Via::Udp(path) = sent.to else { return Some(sent) };
        let Some(trial) = self.trials.get_mut(&path) else { return Some(sent) };
        trial.pong = Some((now, now.saturating_duration_since(sent.at)));
        trial.died = None;
        let (challenger, current) = (self.score(path), self.best.and_then(|best| self.score(best)));
        let stays = self.is_trusted(now)
            && self.best != Some(path)
            && !matches!((challenger, current), (Some(new), Some(old)) if new.beats(old));
        if !stays {
            self.take(path, now);
            self.trusted_until = Some(now + TRUST);
        }
        Some(sent)
    }

    /// Gives up pings that are too old and returns them. The best path is left when its own ping is among them and nothing
    /// else has confirmed it.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Sent> {
        let late: Vec<TxId> =
            self.sent.iter().filter(|(_, sent)| now >= sent.at + PING_TIMEOUT).map(|(id, _)| *id).collect();
        let late: Vec<Sent> = late.iter().filter_map(|id| self.sent.remove(id)).collect();
        let lost_best = late.iter().any(|sent| self.best.is_some_and(|best| sent.to == Via::Udp(best)));
        if lost_best && !self.is_trusted(now) {
            self.best = None;
            self.elect(TRUST, now);
        }
        late
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.sent.values().map(|sent| sent.at + PING_TIMEOUT).min()
    }

    /// WireGuard's packets went and came by `path`: as good as a pong.
    pub(crate) fn vouch(&mut self, path: Path, now: Instant) {
        if self.best == Some(path) && self.is_trusted(now) {
            self.trusted_until = Some(now + TRUST);
        }
    }

    /// `path` is dead. If it was the best, another follows only if it answered just now: the same may have befallen it.
    pub(crate) fn bury(&mut self, path: Path, now: Instant) {
        if let Some(trial) = self.trials.get_mut(&path) {
            (trial.pong, trial.died) = (None, Some(now));
        }
        if self.best == Some(path) {
            (self.best, self.trusted_until) = (None, None);
            self.elect(JUST_NOW, now);
        }
    }

    /// Whether another path than this one answered just now.
    pub(crate) fn has_other(&self, path: Path, now: Instant) -> bool {
        self.trials.iter().any(|(other, trial)| *other != path && trial.answered_within(now, JUST_NOW))
    }

    /// Whether `path` was found dead and has not answered since.
    pub(crate) fn is_dead(&self, path: Path, now: Instant) -> bool {
        self.trials.get(&path).and_then(|trial| trial.died).is_some_and(|at| now <= at + TRUST)
    }

    /// Without a trusted path, the best of those that answered within `within`.
    pub(crate) fn elect(&mut self, within: Duration, now: Instant) {
        if self.is_trusted(now) {
            return;
        }
        let confirmed = self.trials.iter().filter(|(_, trial)| trial.answered_within(now, within));
        let scored = confirmed.filter_map(|(path, trial)| Some((trial.score(path.remote)?, *path, *trial)));
        if let Some((_, path, trial)) = scored.min_by_key(|(score, path, _)| (*score, *path)) {
            self.take(path, now);
            self.trusted_until = trial.confirmed_until().map(|until| until.max(now + PROBATION));
        }
    }

    /// These paths are not confirmed any more: the network under them changed, or WireGuard did not get through.
    pub(crate) fn doubt(&mut self, doubtful: impl Fn(&Path) -> bool, now: Instant) {
        for (_, trial) in self.trials.iter_mut().filter(|(path, _)| doubtful(path)) {
            trial.last_ping = None;
            trial.pong = None;
        }
        if self.best.is_some_and(|best| doubtful(&best)) {
            (self.best, self.trusted_until) = (None, None);
            self.elect(2 * STANDBY_INTERVAL, now);
        }
    }

    /// Every path with what is known of it; the verdict is the one it has while the trusted path is used.
    pub(crate) fn explain(&self, now: Instant) -> Vec<Way> {
        let used = self.trusted(now);
        let used_score = used.and_then(|path| self.score(path));
        let ways = self.trials.iter().map(|(path, trial)| {
            let score = trial.score(path.remote);
            let verdict = match (score, used_score) {
                _ if used == Some(*path) => Verdict::Best,
                (Some(score), Some(used)) if trial.is_confirmed(now) => Verdict::against(score, used),
                _ if self.is_dead(*path, now) => Verdict::Dead,
                (Some(_), _) => Verdict::Silent,
                (None, _) if trial.last_ping.is_some() => Verdict::NeverAnswered,
                (None, _) => Verdict::Untried,
            };
            let sources = self.origins.get(&(path.remote, path.vni)).map(|origin| origin.names().collect());
            Way {
                via: Via::Udp(*path),
                sources: sources.unwrap_or_default(),
                pinged: trial.last_ping.map(|at| now.saturating_duration_since(at)),
                answered: trial.pong.map(|(at, _)| now.saturating_duration_since(at)),
                latency: trial.pong.map(|(_, latency)| latency),
                score,
                verdict,
            }
        });
        ways.collect()
    }

    fn take(&mut self, path: Path, now: Instant) {
        if self.best.replace(path) != Some(path) {
            self.best_since = Some(now);
        }
    }

    fn is_trusted(&self, now: Instant) -> bool {
        self.best.is_some() && self.trusted_until.is_some_and(|until| now <= until)
    }

    fn score(&self, path: Path) -> Option<Score> {
        self.trials.get(&path)?.score(path.remote)
    }

    /// The last round trip by `path`.
    pub(crate) fn latency(&self, path: Path) -> Option<Duration> {
        self.trials.get(&path)?.pong.map(|(_, latency)| latency)
    }

    /// Drops addresses that nobody names any more.
    fn sweep(&mut self, now: Instant) {
        self.origins.retain(|_, origin| origin.is_current(now));
        let origins = &self.origins;
        self.trials.retain(|path, _| origins.contains_key(&(path.remote, path.vni)));
        self.drop_lost_best(now);
    }

    /// Makes the paths those that lead to the addresses now.
    fn lay_out(&mut self, underlay: &Underlay, now: Instant) {
        self.sweep(now);
        let targets: Vec<Target> = self.origins.keys().copied().collect();
        let wanted: BTreeSet<Path> =
            targets.into_iter().flat_map(|target| self.lay_out_target(target, underlay)).collect();
        // A path that still answers is not torn away because the routes have changed, but any other is preferred.
        for (_, trial) in self.trials.iter_mut().filter(|(path, _)| !wanted.contains(path)) {
            trial.standing.metric = u32::MAX;
        }
        self.trials.retain(|path, trial| wanted.contains(path) || trial.is_confirmed(now));
        self.drop_lost_best(now);
    }

    fn lay_out_target(&mut self, (remote, vni): Target, underlay: &Underlay) -> Vec<Path> {
        let paths = underlay.paths_to(remote, vni);
        for (path, standing) in &paths {
            self.trials.entry(*path).or_insert(Trial::new(*standing)).standing = *standing;
        }
        paths.into_iter().map(|(path, _)| path).collect()
    }

    fn drop_lost_best(&mut self, now: Instant) {
        if self.best.is_some_and(|best| !self.trials.contains_key(&best)) {
            self.best = None;
            self.elect(TRUST, now);
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

    /// One uplink, so that the kernel decides.
    fn nowhere() -> Underlay {
        Underlay::default()
    }

    fn path(port: u16) -> Path {
        Path::direct(addr(port))
    }

    impl Fixture {
        fn new(ports: &[u16]) -> Self {
            let start = Instant::now();
            let mut paths = Paths::default();
            paths.set_map_candidates(
                &ports.iter().map(|port| addr(*port)).collect::<Vec<_>>(),
                &nowhere(),
                start,
            );
            Self { paths, start, next_tx: 0 }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// A ping to `port` at `ms`, answered after `rtt`; 0 is never.
        fn ping(&mut self, port: u16, ms: u64, rtt: u64) {
            self.next_tx += 1;
            let (tx_id, at) = (TxId([self.next_tx; 12]), self.at(ms));
            self.paths.note_sent(tx_id, Sent { to: Via::Udp(path(port)), at, purpose: Purpose::Discovery });
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
        assert_eq!(f.paths.trusted(f.at(6520)), Some(path(1)));
        assert_eq!(f.paths.trusted(f.at(6521)), None);
        assert_eq!(f.paths.best(), Some(path(1)), "still pinged");
    }

    #[test]
    fn a_better_path_wins_and_a_similar_one_does_not() {
        let mut f = Fixture::new(&[1, 2, 3]);
        f.ping(1, 0, 100);
        f.ping(2, 0, 101);
        assert_eq!(f.paths.trusted(f.at(200)), Some(path(1)));
        f.ping(3, 0, 50);
        assert_eq!(f.paths.trusted(f.at(200)), Some(path(3)));
    }

    #[test]
    fn any_answering_path_replaces_an_untrusted_best() {
        let mut f = Fixture::new(&[1, 2]);
        f.ping(1, 0, 10);
        f.ping(2, 7000, 200);
        assert_eq!(f.paths.trusted(f.at(7300)), Some(path(2)));
    }

    #[test]
    fn an_unanswered_ping_clears_the_best_only_after_its_trust() {
        let mut f = Fixture::new(&[1]);
        f.ping(1, 0, 10);
        f.ping(1, 1000, 0);
        assert_eq!(f.paths.next_expiry(), Some(f.at(6000)));
        f.paths.expire(f.at(6000));
        assert_eq!(f.paths.best(), Some(path(1)));
        f.ping(1, 3000, 0);
        assert_eq!(f.paths.expire(f.at(8000)).len(), 1);
        assert_eq!(f.paths.best(), None);
    }

    #[test]
    fn candidates_are_pinged_every_five_seconds_and_at_once_after_a_call() {
        let mut f = Fixture::new(&[1]);
        assert_eq!(f.paths.start_full_ping(&nowhere(), f.start), [path(1)]);
        f.ping(1, 0, 0);
        assert!(f.paths.start_full_ping(&nowhere(), f.at(4999)).is_empty());
        f.paths.set_called_candidates(&[addr(2)], &nowhere(), f.at(4999));
        assert_eq!(f.paths.start_full_ping(&nowhere(), f.at(4999)), [path(1), path(2)]);
    }

    #[test]
    fn an_address_leaves_when_nobody_names_it_any_more() {
        let mut f = Fixture::new(&[1, 2]);
        f.ping(1, 0, 10);
        f.paths.set_map_candidates(&[addr(2)], &nowhere(), f.at(20));
        assert_eq!(f.paths.candidates().collect::<Vec<_>>(), [path(2)]);
        assert_eq!(f.paths.best(), None);
        assert_eq!(f.paths.add_pinging(path(3), TxId([9; 12]), &nowhere(), f.at(20)), Source::New);
        assert_eq!(f.paths.add_pinging(path(3), TxId([9; 12]), &nowhere(), f.at(21)), Source::Duplicate);
        assert_eq!(f.paths.add_pinging(path(3), TxId([8; 12]), &nowhere(), f.at(21)), Source::Known);
        assert_eq!(f.paths.start_full_ping(&nowhere(), f.at(45_020)).len(), 2);
        assert_eq!(f.paths.start_full_ping(&nowhere(), f.at(45_022)), [path(2)]);
    }

    #[test]
    fn a_fast_trusted_path_is_not_upgraded_and_a_slow_one_every_minute() {
        let mut f = Fixture::new(&[1]);
        assert!(f.paths.wants_full_ping(f.start));
        f.paths.start_full_ping(&nowhere(), f.start);
        f.ping(1, 59_000, 4);
        assert!(!f.paths.wants_full_ping(f.at(61_000)));
        f.ping(1, 59_000, 6);
        assert!(!f.paths.wants_full_ping(f.at(59_999)));
        assert!(f.paths.wants_full_ping(f.at(60_000)));
    }
}
