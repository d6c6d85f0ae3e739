//! Probing: pings out, call-me-maybe out, heartbeats, and what follows when answers stay away.

use std::time::{Duration, Instant};

use types::NodePublic;
use wire::disco::{CallMeMaybe, HEADER_LEN, Message, Ping, TxId};
use wire::nacl::TAG_LEN;

use super::Node;
use crate::output::{Event, PingError, PingId, Transmit, Via};
use crate::paths::{Purpose, Sent, TRUST};
use crate::pulse::Beat;
use crate::timers::Wake;

/// How often the best address of an active peer is pinged (`heartbeatInterval`).
const HEARTBEAT: Duration = Duration::from_secs(3);
/// The shortest time between two calls of a peer of whom no address is known.
const CALL_INTERVAL: Duration = Duration::from_secs(5);
/// Just after the last trusted instant.
const AFTER: Duration = Duration::from_millis(1);
/// A ping's box without padding: message type and version, transaction, node key.
const PING_LEN: usize = HEADER_LEN + TAG_LEN + 2 + 12 + 32;
/// The largest useful ping: a full packet less the IPv4 and UDP headers.
const MAX_PING_LEN: usize = 65_535 - 28;

impl Node {
    /// Starts a DISCO ping of `size` bytes of UDP payload (0: the smallest) by every sensible way: the trusted address
    /// alone, else all candidates and DERP. Ends in one [`Event::PingResult`].
    pub fn ping(&mut self, key: NodePublic, size: usize, now: Instant) -> PingId {
        self.last_ping += 1;
        let id = PingId(self.last_ping);
        match self.start_user_ping(key, id, size, now) {
            Ok(sent) => drop(self.pings.insert(id, sent)),
            Err(error) => self.events.push_back(Event::PingResult { id, result: Err(error) }),
        }
        id
    }

    fn start_user_ping(
        &mut self,
        key: NodePublic,
        id: PingId,
        size: usize,
        now: Instant,
    ) -> Result<usize, PingError> {
        let node = self.netmap.peer(&key).ok_or(PingError::UnknownPeer)?;
        if self.is_expired(node, now) {
            return Err(PingError::Expired);
        }
        let peer = self.peers.get(&key).ok_or(PingError::NoWay)?;
        let trusted = peer.paths.trusted(now).filter(|_| !peer.is_blocked(now));
        let candidates = || peer.paths.candidates().filter(|_| !peer.is_blocked(now)).map(Via::Udp);
        let ways: Vec<Via> = match trusted {
            Some(path) if path.is_direct() => vec![Via::Udp(path)],
            // A direct way may have opened.
            Some(_) => candidates().collect(),
            None => peer.region().map(Via::Derp).into_iter().chain(candidates()).collect(),
        };
        let mut sent = 0;
        for way in ways {
            sent += usize::from(self.send_ping(key, way, Purpose::User(id), size, now));
        }
        self.note_activity(key, now);
        if trusted.is_none() {
            self.probe(key, true, now);
        }
        self.settle(key, now);
        if sent == 0 { Err(PingError::NoWay) } else { Ok(sent) }
    }

    /// Packets went to or came from a peer: its session lives on.
    pub(super) fn note_activity(&mut self, key: NodePublic, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let slept = !self.timers.is_set(Wake::Heartbeat(key));
        peer.last_write = Some(now);
        if slept {
            self.timers.set(Wake::Heartbeat(key), now + HEARTBEAT);
            self.look_at_active(now);
            if !self.timers.is_set(Wake::Restun) {
                self.restun(now);
            }
        }
    }

    /// Pings all candidates that are due, and asks the peer by DERP to do the same when `call`.
    pub(super) fn probe(&mut self, key: NodePublic, call: bool, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.disco.is_none() || peer.is_blocked(now) {
            return;
        }
        let due = peer.paths.start_full_ping(&self.underlay, now);
        let unknown = peer.paths.candidates().next().is_none();
        let wants_way = call;
        let call_due = peer.last_call.is_none_or(|at| now >= at + CALL_INTERVAL);
        let call = call && (!due.is_empty() || (unknown && call_due));
        if call {
            peer.last_call = Some(now);
        }
        for path in due {
            self.send_ping(key, Via::Udp(path), Purpose::Discovery, 0, now);
        }
        if call {
            self.call(key, now);
        }
        if wants_way {
            self.search_relays(key, now);
        }
    }

    /// Sends a call-me-maybe, now or when our own endpoints are fresh.
    pub(super) fn call(&mut self, key: NodePublic, now: Instant) {
        if !self.endpoints.is_fresh(now) {
            self.to_call.insert(key);
            self.start_netcheck(now);
            return;
        }
        let Some((region, disco)) = self.peers.get(&key).and_then(|peer| Some((peer.region()?, peer.disco?)))
        else {
            return;
        };
        let endpoints = self.endpoints.list().iter().map(|endpoint| endpoint.addr).collect();
        let message = Message::CallMeMaybe(CallMeMaybe { endpoints });
        let bytes = self.disco.seal(disco, &message, &mut self.rng);
        self.send_by_derp(region, key, bytes, now);
    }

    /// Whether a ping went out.
    pub(super) fn send_ping(
        &mut self,
        key: NodePublic,
        to: Via,
        purpose: Purpose,
        size: usize,
        now: Instant,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        let Some(disco) = peer.disco else { return false };
        let tx_id = TxId(self.rng.bytes());
        peer.paths.note_sent(tx_id, Sent { to, at: now, purpose });
        let padding = size.min(MAX_PING_LEN).saturating_sub(PING_LEN);
        let ping = Message::Ping(Ping { tx_id, node_key: Some(self.node_key), padding });
        let bytes = self.disco.seal(disco, &ping, &mut self.rng);
        match to {
            Via::Udp(path) => self.transmits.push_back(Transmit::Udp { path, bytes }),
            Via::Derp(region) => self.send_by_derp(region, key, bytes, now),
        }
        true
    }

    /// Sends what the kernel began once more, by the way there is now.
    fn send_opening(&mut self, key: NodePublic, now: Instant) {
        let Some(peer) = self.peers.get(&key) else { return };
        let Some((via, (bytes, _))) = peer.via(now).zip(peer.opening(now)) else { return };
        let bytes = bytes.to_vec();
        match via {
            Via::Udp(path) => self.transmits.push_back(Transmit::Udp { path, bytes }),
            Via::Derp(region) => self.send_by_derp(region, key, bytes, now),
        }
    }

    /// The peer may not have known us yet when its first copy came, or may not have been at its region.
    pub(super) fn repeat_opening(&mut self, key: NodePublic, now: Instant) {
        self.send_opening(key, now);
        if let Some((_, next)) = self.peers.get(&key).and_then(|peer| peer.opening(now)) {
            self.timers.set(Wake::Opening(key), next);
        }
    }

    /// Every three seconds of an active session.
    pub(super) fn heartbeat(&mut self, key: NodePublic, now: Instant) {
        let Some(peer) = self.peers.get(&key) else { return };
        if !peer.is_active(now) {
            return;
        }
        self.timers.set(Wake::Heartbeat(key), now + HEARTBEAT);
        if peer.is_blocked(now) {
            return;
        }
        let (best, in_use, latency) = (peer.paths.best(), peer.in_use(now), peer.latency(now));
        for path in best.into_iter().chain(in_use.filter(|path| Some(*path) != best)) {
            self.send_ping(key, Via::Udp(path), Purpose::Heartbeat, 0, now);
        }
        if let Some((peer, path)) = self.peers.get_mut(&key).zip(in_use) {
            peer.pulse.note_heartbeat(path, latency, now);
            for standby in peer.paths.standbys(path, now) {
                self.send_ping(key, Via::Udp(standby), Purpose::Discovery, 0, now);
            }
        }
        if self.peers.get(&key).is_some_and(|peer| peer.paths.wants_full_ping(now)) {
            self.probe(key, true, now);
        }
        self.settle(key, now);
    }

    /// The path in use is in doubt: it is asked, or has not answered.
    pub(super) fn beat(&mut self, key: NodePublic, now: Instant) {
        while let Some(beat) = self.peers.get_mut(&key).and_then(|peer| peer.pulse.beat(now)) {
            match beat {
                Beat::Ask(path) => drop(self.send_ping(key, Via::Udp(path), Purpose::Heartbeat, 0, now)),
                Beat::AskAll(path) => {
                    self.send_ping(key, Via::Udp(path), Purpose::Heartbeat, 0, now);
                    self.probe_urgently(key, now);
                }
                Beat::Dead(path) => {
                    if let Some(peer) = self.peers.get_mut(&key) {
                        peer.bury(path, now);
                    }
                }
            }
        }
        self.settle(key, now);
    }

    /// Pings every path at once, and asks the peer by DERP to do the same.
    pub(super) fn probe_urgently(&mut self, key: NodePublic, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let due = peer.paths.start_urgent_ping(&self.underlay, now);
        let call = peer.last_call.is_none_or(|at| now >= at + CALL_INTERVAL);
        for path in due {
            self.send_ping(key, Via::Udp(path), Purpose::Discovery, 0, now);
        }
        if let Some(peer) = self.peers.get_mut(&key).filter(|_| call) {
            peer.last_call = Some(now);
            self.call(key, now);
        }
    }

    /// Some pings were not answered in time.
    pub(super) fn expire_pings(&mut self, key: NodePublic, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        for late in peer.paths.expire(now) {
            let Purpose::User(id) = late.purpose else { continue };
            let Some(left) = self.pings.get_mut(&id) else { continue };
            *left -= 1;
            if *left == 0 {
                self.pings.remove(&id);
                self.events.push_back(Event::PingResult { id, result: Err(PingError::Timeout) });
            }
        }
        self.settle(key, now);
    }

    /// The last pong is too old: by DERP from now on, and if the session lives, look for another way.
    pub(super) fn end_trust(&mut self, key: NodePublic, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.paths.elect(TRUST, now);
        }
        if self.peers.get(&key).is_some_and(|peer| peer.is_active(now) && peer.paths.trusted(now).is_none()) {
            self.probe(key, true, now);
        }
        self.settle(key, now);
    }

    /// The kernel's own choice was not confirmed.
    pub(super) fn end_trial(&mut self, key: NodePublic, now: Instant) {
        if let Some(peer) =
            self.peers.get_mut(&key).filter(|p| p.held_until().is_some_and(|until| until <= now))
        {
            peer.end_hold();
        }
        self.settle(key, now);
    }

    /// After anything that may have changed a peer's state: the kernel's endpoint, the desired one, wakes and watchers.
    pub(super) fn settle(&mut self, key: NodePublic, now: Instant) {
        let wanted = self.peers.get(&key).and_then(|peer| peer.wanted(now));
        let endpoint = self.endpoint_of(key, wanted);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some(desired) = self.desired.peers.get_mut(&key) {
            desired.endpoint = endpoint;
            if peer.correct(endpoint, wanted, now) {
                self.events.push_back(Event::SetEndpoint { peer: key, endpoint });
            }
        }
        let vouched = peer.is_vouched(now);
        if peer.told_vouched != vouched {
            peer.told_vouched = vouched;
            self.disco_peers_changed();
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let in_use = peer.in_use(now);
        peer.pulse.follow(in_use, now);
        let pin = in_use
            .and_then(|path| Some((path.remote.ip(), self.underlay.hop(path.remote.ip(), path.uplink?)?)));
        if self.pins.set(key, pin) {
            self.events.push_back(Event::PinsChanged);
        }
        let via = peer.via(now);
        if peer.shown != via {
            let lost = std::mem::replace(&mut peer.shown, via);
            if let Some(Via::Udp(path)) = lost
                && !path.is_direct()
                && !peer.paths.is_confirmed(path, now)
            {
                self.lose_relayed(key, path, now);
            }
            self.events.push_back(Event::PathChanged { peer: key, via });
            self.send_opening(key, now);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let trusted_until =
            peer.paths.trusted_until().filter(|until| *until >= now).map(|until| until + AFTER);
        let blocked_until = peer.blocked_until().filter(|until| *until > now);
        for (wake, at) in [
            (Wake::TrustEnds(key), trusted_until),
            (Wake::Pulse(key), peer.pulse.next()),
            (Wake::PongLate(key), peer.paths.next_expiry()),
            (Wake::TrialEnds(key), peer.held_until()),
            (Wake::BlockEnds(key), blocked_until),
        ] {
            match at {
                Some(at) => self.timers.set(wake, at),
                None => self.timers.stop(wake),
            }
        }
    }
}
