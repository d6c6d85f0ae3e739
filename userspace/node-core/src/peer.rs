//! A peer: its keys and region, its paths, and what the kernel does with it.
//!
//! The kernel follows whoever authenticates, so its endpoint is evidence to weigh: an address it moved to by itself is held
//! while a ping finds out about it; a loopback address it was moved to by one DERP packet is corrected when a better one is
//! trusted. Where WireGuard does not get through although DISCO does, the direct way is left for a while.
//! Deliberately not here: sending, and the choice among candidates (`paths`).

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use types::{DiscoPublic, NodeId, NodePublic, RegionId};

use crate::explain::{Explanation, Verdict, Way};
use crate::input::ObservedPeer;
use crate::node::Told;
use crate::output::Via;
use crate::path::Path;
use crate::paths::{PING_TIMEOUT, Paths, SESSION, Target};
use crate::pulse::Pulse;
use crate::underlay::Underlay;
use crate::vouch::Vouch;

/// WireGuard's REJECT_AFTER_TIME: an older handshake carries nothing any more.
const HANDSHAKE_LIFETIME: Duration = Duration::from_secs(180);
/// With a session a silent peer answers data within KEEPALIVE_TIMEOUT (10 s); this is one look at the counters and a round
/// trip more.
const SILENCE_IN_SESSION: Duration = Duration::from_secs(15);
/// Without one a handshake is retried every REKEY_TIMEOUT (5 s): two unanswered.
const SILENCE_BEFORE_SESSION: Duration = Duration::from_secs(6);
/// For how long the direct way is left after the first failure; doubles with each.
const BLOCKED_FIRST: Duration = Duration::from_secs(60);
/// At most.
const BLOCKED_MOST: Duration = Duration::from_secs(3600);
/// After this long WireGuard begins a handshake anew (REKEY_TIMEOUT).
const OPENING_LIFETIME: Duration = Duration::from_secs(5);
/// An initiation is sent again after this long, then after twice that, and so on.
const OPENING_FIRST: Duration = Duration::from_millis(100);
/// Packets that came within this are coming still.
const STILL_HEARD: Duration = Duration::from_secs(1);
/// How a handshake initiation begins, and its length (WireGuard paper, section 5.4.2).
const INITIATION: ([u8; 4], usize) = ([1, 0, 0, 0], 148);
/// Packets on the way to the loopback address when it was left are no sign that it was not.
const CORRECTION_SETTLES: Duration = Duration::from_millis(100);

/// The kernel's view of the peer.
#[derive(Clone, Debug)]
struct Kernel {
    endpoint: Option<SocketAddr>,
    /// The path that endpoint means; none for loopback addresses and those that can be none.
    path: Option<Path>,
    rx_bytes: u64,
    tx_bytes: u64,
    last_handshake: Option<SystemTime>,
}

/// A path the kernel chose and nobody confirmed yet.
#[derive(Clone, Copy, Debug)]
struct Held {
    path: Path,
    until: Instant,
}

/// WireGuard not getting through on the direct way.
#[derive(Default)]
struct Blocked {
    /// Bytes go out and none come in, since then.
    silent_since: Option<Instant>,
    /// The direct way is left until then.
    until: Option<Instant>,
    /// How often in a row.
    failures: u32,
}

/// What a look at the kernel showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Observation {
    /// Bytes went in or out since the last look.
    pub(crate) active: bool,
    /// A handshake was completed since the last look.
    pub(crate) shook_hands: bool,
    /// The kernel has moved to this path, which is to be pinged.
    pub(crate) moved: Option<Path>,
}

/// One peer.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) key: NodePublic,
    pub(crate) disco: Option<DiscoPublic>,
    /// What it told of its DISCO key itself.
    pub(crate) told_disco: Option<Told>,
    /// Its name, for warnings.
    pub(crate) name: String,
    /// Its home region by the map.
    pub(crate) home: Option<RegionId>,
    /// The region its last packet came through.
    pub(crate) heard_in: Option<RegionId>,
    pub(crate) paths: Paths,
    pub(crate) pulse: Pulse,
    /// When the last packet went to it.
    pub(crate) last_write: Option<Instant>,
    /// When a call-me-maybe was last wanted.
    pub(crate) last_call: Option<Instant>,
    /// What was last told to watchers.
    pub(crate) shown: Option<Via>,
    /// Whether the kernel may answer its pings.
    pub(crate) vouch: Vouch,
    /// What the kernel was last told about that.
    pub(crate) told_vouched: bool,
    /// The kernel's last handshake initiation that did not go by a trusted path.
    opening: Option<(Instant, Vec<u8>)>,
    kernel: Option<Kernel>,
    /// WireGuard packets were delivered to the kernel by DERP since the last look: what it received may be those.
    relayed: bool,
    /// When a look last showed packets that came by a path.
    heard_packets: Option<Instant>,
    held: Option<Held>,
    blocked: Blocked,
    corrected_at: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(id: NodeId, key: NodePublic) -> Self {
        Self {
            id,
            key,
            disco: None,
            told_disco: None,
            name: String::new(),
            home: None,
            heard_in: None,
            paths: Paths::default(),
            pulse: Pulse::default(),
            last_write: None,
            last_call: None,
            shown: None,
            vouch: Vouch::default(),
            told_vouched: false,
            opening: None,
            kernel: None,
            relayed: false,
            heard_packets: None,
            held: None,
            blocked: Blocked::default(),
            corrected_at: None,
        }
    }

    /// Through which region to reach it: its home, or where it was last heard.
    pub(crate) fn region(&self) -> Option<RegionId> {
        self.home.or(self.heard_in)
    }

    /// Keeps a handshake initiation that has no sure way: the region may be unknown, the peer not be there yet, or not have
    /// heard of us. When to send it again.
    pub(crate) fn keep_opening(&mut self, bytes: &[u8], now: Instant) -> Option<Instant> {
        let is_initiation = bytes.starts_with(&INITIATION.0) && bytes.len() == INITIATION.1;
        is_initiation.then(|| {
            self.opening = Some((now, bytes.to_vec()));
            now + OPENING_FIRST
        })
    }

    /// The initiation that is still worth sending, and when to send it after that: the pause doubles. A peer that has it
    /// already ignores it as a replay. Without this the first packet to a new peer waits for WireGuard's next attempt.
    pub(crate) fn opening(&self, now: Instant) -> Option<(&[u8], Instant)> {
        let (at, bytes) = self.opening.as_ref()?;
        let age = now.saturating_duration_since(*at);
        (age < OPENING_LIFETIME).then(|| (bytes.as_slice(), now + age.max(OPENING_FIRST)))
    }

    /// The peer has answered.
    pub(crate) fn end_opening(&mut self) {
        self.opening = None;
    }

    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.last_write.is_some_and(|at| now < at + SESSION)
    }

    /// The way packets go now.
    pub(crate) fn via(&self, now: Instant) -> Option<Via> {
        let trusted = self.paths.trusted(now).filter(|_| !self.is_blocked(now));
        trusted.map(Via::Udp).or(self.region().map(Via::Derp))
    }

    /// By which path the kernel should send; `None` is the loopback address.
    pub(crate) fn wanted(&self, now: Instant) -> Option<Path> {
        if self.is_blocked(now) {
            return None;
        }
        let held = self.held.filter(|held| now < held.until).map(|held| held.path);
        held.or(self.paths.trusted(now))
    }

    /// Notes a look at the kernel. `target` is what the endpoint seen means, `wall` is the calendar now. The first look shows
    /// no activity, for its counters may be hours old; but a live session's endpoint is held.
    pub(crate) fn observe(
        &mut self,
        seen: &ObservedPeer,
        target: Option<Target>,
        underlay: &Underlay,
        wall: SystemTime,
        now: Instant,
    ) -> Observation {
        let before = self.kernel.take();
        let path = target.map(|target| {
            self.paths.toward(target, now).unwrap_or(Path { remote: target.0, vni: target.1, uplink: None })
        });
        let in_session = seen
            .last_handshake
            .is_some_and(|at| wall.duration_since(at).is_ok_and(|age| age < HANDSHAKE_LIFETIME) || at > wall);
        let (moved, rx_grew, tx_grew) = match &before {
            None => (in_session, false, false),
            Some(before) => (
                before.endpoint != seen.endpoint,
                seen.rx_bytes > before.rx_bytes,
                seen.tx_bytes > before.tx_bytes,
            ),
        };
        self.kernel = Some(Kernel {
            endpoint: seen.endpoint,
            path,
            rx_bytes: seen.rx_bytes,
            tx_bytes: seen.tx_bytes,
            last_handshake: seen.last_handshake,
        });
        if self.held.is_some_and(|held| Some(held.path) != path) {
            self.held = None;
        }
        let relayed = std::mem::take(&mut self.relayed);
        let heard = rx_grew && path.is_some() && !relayed;
        if heard {
            // Only an authenticated datagram does that: no firewall is in the way.
            self.blocked = Blocked::default();
            self.vouch.prove();
        }
        self.feel_pulse(path.filter(|_| heard), tx_grew, now);
        let is_new = |path: &Path| !self.paths.is_confirmed(*path, now) && !self.paths.is_dead(*path, now);
        let moved = path.filter(|path| moved && is_new(path));
        if let Some(path) = moved.filter(|_| !self.is_blocked(now)) {
            self.held = Some(Held { path, until: now + PING_TIMEOUT });
            self.paths.add_roamed(path, underlay, now);
        }
        let silent = path.is_some() && self.paths.trusted(now).is_some() && !heard;
        self.note_silence(silent, tx_grew, in_session, now);
        let shook_hands = before.is_some_and(|before| before.last_handshake != seen.last_handshake);
        Observation { active: rx_grew || tx_grew, shook_hands, moved }
    }

    /// What a look at the kernel tells of the path in use: `heard` is the one by which packets came.
    fn feel_pulse(&mut self, heard: Option<Path>, tx_grew: bool, now: Instant) {
        if heard.is_some() {
            self.heard_packets = Some(now);
        }
        // The kernel does not tell by which of several uplinks packets came: there only pongs prove that one lives.
        match heard.filter(|path| path.uplink.is_none()) {
            Some(path) => {
                self.pulse.note_packets(path, now);
                if tx_grew {
                    self.paths.vouch(path, now);
                }
            }
            None if tx_grew => self.pulse.note_silence(self.latency(now), now),
            None => {}
        }
    }

    /// The path by which the kernel sends, when it is one we agree to.
    pub(crate) fn in_use(&self, now: Instant) -> Option<Path> {
        let wanted = self.wanted(now)?;
        let has = self.kernel.as_ref().and_then(|kernel| kernel.path);
        Some(has.filter(|has| self.is_alike(wanted, *has, now)).unwrap_or(wanted))
    }

    /// The round trip by the path in use.
    pub(crate) fn latency(&self, now: Instant) -> Duration {
        self.in_use(now).and_then(|path| self.paths.latency(path)).unwrap_or_default()
    }

    /// Whether it makes no difference if the kernel uses `has` where `wanted` is the choice.
    fn is_alike(&self, wanted: Path, has: Path, now: Instant) -> bool {
        wanted.is_direct() == has.is_direct() && self.paths.is_confirmed(has, now)
    }

    /// A WireGuard packet came by DERP, although a path may be trusted: the peer may know that ours is dead.
    pub(crate) fn note_relayed(&mut self, now: Instant) {
        self.relayed = true;
        self.pulse.doubt(self.latency(now), now);
    }

    /// A path is dead: it is left at once. But while WireGuard's packets come by some uplink and no path answers, it is
    /// discovery that is dead.
    pub(crate) fn bury(&mut self, path: Path, now: Instant) {
        let lives = self.heard_packets.is_some_and(|at| now < at + STILL_HEARD);
        if path.uplink.is_some() && lives && !self.paths.has_other(path, now) {
            self.paths.vouch(path, now);
            return;
        }
        self.held = self.held.filter(|held| held.path != path);
        self.paths.bury(path, now);
    }

    /// The kernel does not have it (any more).
    pub(crate) fn forget_kernel(&mut self) {
        self.kernel = None;
        self.held = None;
    }

    /// A packet came to its loopback address: that is where the kernel has it.
    pub(crate) fn note_at_loopback(&mut self, loopback: SocketAddr, now: Instant) {
        let settling = self.corrected_at.is_some_and(|at| now < at + CORRECTION_SETTLES);
        if let Some(kernel) = self.kernel.as_mut().filter(|_| !settling) {
            (kernel.endpoint, kernel.path) = (Some(loopback), None);
            self.held = None;
        }
    }

    /// Whether the kernel has to be told to use `endpoint`, which means `path`. It may stay on another path that answers and
    /// is of the same kind, for it would go back there with the next packet.
    pub(crate) fn correct(&mut self, endpoint: SocketAddr, path: Option<Path>, now: Instant) -> bool {
        let Some(kernel) = &self.kernel else { return false };
        let alike = path.zip(kernel.path).is_some_and(|(want, has)| self.is_alike(want, has, now));
        if kernel.endpoint == Some(endpoint) || alike {
            return false;
        }
        if let Some(kernel) = &mut self.kernel {
            (kernel.endpoint, kernel.path) = (Some(endpoint), path);
        }
        self.corrected_at = Some(now);
        true
    }

    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.held.map(|held| held.until)
    }

    /// The address the kernel chose was given its time.
    pub(crate) fn end_hold(&mut self) {
        self.held = None;
    }

    pub(crate) fn is_blocked(&self, now: Instant) -> bool {
        self.blocked.until.is_some_and(|until| now < until)
    }

    /// Whether the kernel may answer its pings by itself.
    pub(crate) fn is_vouched(&self, now: Instant) -> bool {
        self.vouch.is_granted() && !self.is_blocked(now)
    }

    pub(crate) fn blocked_until(&self) -> Option<Instant> {
        self.blocked.until
    }

    /// Whether WireGuard last failed where DISCO worked.
    pub(crate) fn is_firewalled(&self) -> bool {
        self.blocked.failures > 0
    }

    /// The network under these paths changed: nothing learnt about them holds.
    pub(crate) fn doubt(&mut self, doubtful: impl Fn(&Path) -> bool, now: Instant) {
        self.held = self.held.filter(|held| !doubtful(&held.path));
        self.paths.doubt(doubtful, now);
        self.vouch.doubt();
        self.blocked = Blocked::default();
    }

    /// Every way to it, and why it is used or not.
    pub(crate) fn explain(&self, now: Instant) -> Explanation {
        let mut ways = self.paths.explain(now);
        let wanted = self.wanted(now);
        for way in &mut ways {
            way.verdict = match way.verdict {
                verdict if verdict == Verdict::Best && self.is_blocked(now) => Verdict::Blocked,
                _ if self.held.is_some() && wanted.map(Via::Udp) == Some(way.via) => Verdict::Trial,
                verdict => verdict,
            };
        }
        let relayed = if wanted.is_some() { Verdict::NotNeeded } else { Verdict::LastResort };
        ways.extend(self.region().map(|region| Way {
            via: Via::Derp(region),
            sources: vec![if self.home.is_some() { "home region" } else { "heard there" }],
            pinged: None,
            answered: None,
            latency: None,
            score: None,
            verdict: relayed,
        }));
        ways.sort_by_key(|way| (!way.verdict.is_used(), way.score.is_none(), way.score));
        let kernel = self.kernel.as_ref().and_then(|kernel| kernel.endpoint);
        Explanation { ways, kernel, active: self.is_active(now) }
    }

    pub(crate) fn counters(&self) -> Option<(u64, u64, Option<SystemTime>)> {
        self.kernel.as_ref().map(|kernel| (kernel.rx_bytes, kernel.tx_bytes, kernel.last_handshake))
    }

    fn note_silence(&mut self, silent: bool, tx_grew: bool, in_session: bool, now: Instant) {
        let blocked = &mut self.blocked;
        if !silent {
            blocked.silent_since = None;
            return;
        }
        if !tx_grew {
            return;
        }
        let since = *blocked.silent_since.get_or_insert(now);
        let limit = if in_session { SILENCE_IN_SESSION } else { SILENCE_BEFORE_SESSION };
        if now >= since + limit {
            let pause = BLOCKED_FIRST.saturating_mul(1 << blocked.failures.min(6)).min(BLOCKED_MOST);
            *blocked =
                Blocked { silent_since: None, until: Some(now + pause), failures: blocked.failures + 1 };
            self.paths.doubt(|_| true, now);
            self.held = None;
        }
    }
}
