//! Discovery: DISCO messages that come in, by UDP or by DERP, and STUN answers beside them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use types::{DiscoPublic, NodePublic};
use wire::disco::{CallMeMaybe, Message, Ping, Pong, TxId, sender};
use wire::geneve::looks_like_geneve;
use wire::stun::looks_like_stun;

use super::Node;
use crate::output::{self, Event, Transmit, Via};
use crate::path::Path;
use crate::paths::{Purpose, Source};
use crate::slots::Slot;

/// A peer that pings has something to send: so soon afterwards the kernel may have moved.
const LOOK_AFTER_PING: Duration = Duration::from_secs(1);
/// What a pong names as the source of a ping that came by DERP, with the region as port (`tailcfg.DerpMagicIP`).
const DERP_SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 3, 3, 40));

impl Node {
    /// A DISCO or STUN datagram that arrived at the WireGuard port, and by which path: the uplink may be left out where it
    /// is not known. Anything else is ignored.
    ///
    /// What a peer relay carries comes here too, with its Geneve header: where that is WireGuard's, what follows the header
    /// is to be delivered to the kernel from the loopback address returned, as from DERP.
    pub fn handle_datagram(&mut self, path: Path, bytes: &[u8], now: Instant) -> Option<Slot> {
        let remote = SocketAddr::new(path.remote.ip().to_canonical(), path.remote.port());
        let path = self.underlay.canonical(Path { remote, ..path });
        if looks_like_geneve(bytes) {
            return self.handle_relayed(path, bytes, now);
        }
        if looks_like_stun(bytes) {
            self.handle_stun(bytes, now);
        } else {
            self.handle_disco(Via::Udp(path), None, bytes, now);
        }
        None
    }

    /// The kernel has answered a ping of the peer with this DISCO key that came from `from`.
    pub fn handle_answered(&mut self, disco: DiscoPublic, from: SocketAddr, tx_id: TxId, now: Instant) {
        let path = self.underlay.canonical(Path::direct(from));
        for key in self.peers.with_disco(&disco) {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.vouch.note_answer(now);
            }
            // What would be the pong's business is done already.
            self.note_ping(key, path, tx_id, now);
            self.settle(key, now);
        }
    }

    /// A DISCO message. `derp_from` is who the relay says sent it.
    pub(super) fn handle_disco(
        &mut self,
        via: Via,
        derp_from: Option<NodePublic>,
        bytes: &[u8],
        now: Instant,
    ) {
        let Some(disco) = sender(bytes).filter(|disco| self.peers.knows_disco(disco)) else { return };
        let Some(message) = self.disco.open(disco, bytes) else { return };
        if let Via::Udp(path) = via {
            self.note_relayed(path, disco, now);
            self.note_passage(path, disco, now);
        }
        match message {
            Message::Ping(ping) => self.handle_ping(via, derp_from, disco, &ping, now),
            Message::Pong(pong) => self.handle_pong(disco, &pong, now),
            Message::CallMeMaybe(call) => self.handle_call(derp_from, disco, &call, now),
            message => self.handle_relay_message(derp_from, disco, message, now),
        }
    }

    /// DISCO came up by WireGuard's port: WireGuard would have got through as well.
    fn note_passage(&mut self, path: Path, disco: DiscoPublic, now: Instant) {
        if path.vni.is_some() {
            return;
        }
        for key in self.peers.with_disco(&disco) {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.vouch.prove();
                self.settle(key, now);
            }
        }
    }

    /// Answers at once, to where it came from, by the way it came.
    fn handle_ping(
        &mut self,
        via: Via,
        derp_from: Option<NodePublic>,
        disco: DiscoPublic,
        ping: &Ping,
        now: Instant,
    ) {
        match (via, derp_from) {
            (Via::Udp(path), _) => {
                let keys = self.peers.resolve(&disco, ping.node_key);
                let fresh =
                    keys.into_iter().filter(|key| self.note_ping(*key, path, ping.tx_id, now)).count();
                if fresh > 0 {
                    let bytes = self.pong(disco, ping.tx_id, path.remote);
                    self.transmits.push_back(Transmit::Udp { path, bytes });
                }
            }
            (Via::Derp(region), Some(from)) => {
                let source = SocketAddr::new(DERP_SOURCE, u16::try_from(region.0).unwrap_or(0));
                let bytes = self.pong(disco, ping.tx_id, source);
                self.send_by_derp(region, from, bytes, now);
            }
            (Via::Derp(_), None) => {}
        }
    }

    /// A peer pinged us by `path`; whether that deserves an answer. None does while WireGuard does not get through there:
    /// the peer would believe in a path that carries nothing.
    fn note_ping(&mut self, key: NodePublic, path: Path, tx_id: TxId, now: Instant) -> bool {
        let may_be_candidate = self.may_be_candidate(path.remote);
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| !peer.is_blocked(now)) else { return false };
        if !may_be_candidate {
            return true;
        }
        let source = peer.paths.add_pinging(path, tx_id, &self.underlay, now);
        if source == Source::Duplicate {
            return false;
        }
        if peer.in_use(now).is_some_and(|in_use| in_use != path) {
            // It looks for other paths: it may know that ours is dead.
            peer.pulse.doubt(peer.latency(now), now);
        }
        let answer = source == Source::New || peer.paths.wants_answer_ping(path, now);
        if answer {
            self.send_ping(key, Via::Udp(path), Purpose::Discovery, 0, now);
        }
        self.look_before(now + LOOK_AFTER_PING);
        self.settle(key, now);
        true
    }

    fn pong(&mut self, disco: DiscoPublic, tx_id: TxId, source: SocketAddr) -> Vec<u8> {
        self.disco.seal(disco, &Message::Pong(Pong { tx_id, source }), &mut self.rng)
    }

    fn handle_pong(&mut self, disco: DiscoPublic, pong: &Pong, now: Instant) {
        for key in self.peers.with_disco(&disco) {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let Some(sent) = peer.paths.handle_pong(pong.tx_id, now) else { continue };
            if let Via::Udp(path) = sent.to {
                peer.pulse.note_pong(path, now);
            }
            if let Purpose::User(id) = sent.purpose
                && self.pings.remove(&id).is_some()
            {
                let latency = now.saturating_duration_since(sent.at);
                let result = Ok(output::Pong { latency, via: sent.to });
                self.events.push_back(Event::PingResult { id, result });
            }
            self.settle(key, now);
            return;
        }
    }

    /// The peer has just pinged all our endpoints: its firewall is open for our pings to all of its.
    fn handle_call(
        &mut self,
        derp_from: Option<NodePublic>,
        disco: DiscoPublic,
        call: &CallMeMaybe,
        now: Instant,
    ) {
        let Some(key) = derp_from else { return };
        let addrs: Vec<SocketAddr> =
            call.endpoints.iter().copied().filter(|addr| self.may_be_candidate(*addr)).collect();
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.disco == Some(disco)) else { return };
        if peer.is_blocked(now) {
            return;
        }
        peer.paths.set_called_candidates(&addrs, &self.underlay, now);
        self.probe(key, false, now);
        self.settle(key, now);
    }
}
