//! The node: inputs routed to netmap, peers, netcheck and desired; their outputs queued for the shell.
//!
//! Lives as long as the node key. Call [`Node::handle_map`] with the cached map (if any), answer [`Event::ObserveKernel`]
//! with the first dump of the WireGuard device (empty if there is none), then apply [`Node::desired`]: nothing is desired
//! before the first dump, so that a restart leaves live peers where the kernel has them.
//! One file a kind of input; here are the struct, what it shows, and the dispatch of wakes.

mod derp;
mod disco_key;
mod discovery;
mod kernel;
mod map;
mod probe;
mod relay;
mod stun;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use types::{DiscoPublic, NodePublic, RegionId, overlay};
use wire::control::{DerpMap, DnsConfig, MapResponse, NetInfo, Node as WireNode, UserProfile};

use self::derp::Connection;
pub(crate) use self::disco_key::Told;
use crate::derp_home::DerpHome;
use crate::desired::Desired;
use crate::detours::Detours;
use crate::disco::Disco;
use crate::endpoints::{Endpoint, Endpoints, is_candidate};
use crate::explain::Explanation;
use crate::health::{Facts, Warning, warnings};
use crate::input::{Clock, Config, ObservedPeer, PortMapping, Prefs};
use crate::netcheck::Netcheck;
use crate::netmap::Netmap;
use crate::output::{Event, PingId, Transmit, Via};
use crate::peers::Peers;
use crate::pins::Pins;
use crate::relays::Relays;
use crate::rng::Rng;
use crate::sides::Sides;
use crate::slots::Slots;
use crate::status::PeerStatus;
use crate::timers::{Timers, Wake};
use crate::underlay::{Hop, Underlay};
use crate::vouch::DiscoPeer;

/// How long after the start the peers have to use what an earlier run has left: a session's length.
const SETTLING: Duration = Duration::from_secs(60);

/// The whole node.
pub struct Node {
    node_key: NodePublic,
    wireguard_port: u16,
    clock: Clock,
    /// Control's calendar, once it told: key expiry does not depend on a local clock that may be wrong.
    control_clock: Option<Clock>,
    control_connected: bool,
    prefs: Prefs,
    underlay: Underlay,
    netmap: Netmap,
    peers: Peers,
    slots: Slots,
    relays: Relays,
    detours: Detours,
    /// The revision of the places that the detours are up to.
    detoured: u64,
    /// Until then what an earlier run has left may still be in use.
    settling_until: Instant,
    /// Relay keys that have a box.
    relay_keys: BTreeSet<DiscoPublic>,
    /// The last dump; `None` before the first.
    observed: Option<BTreeMap<NodePublic, ObservedPeer>>,
    disco: Disco,
    rng: Rng,
    endpoints: Endpoints,
    netcheck: Netcheck,
    /// Names of STUN servers; `None` while the shell is asked.
    names: BTreeMap<String, Option<Vec<IpAddr>>>,
    derp_home: DerpHome,
    home: Option<RegionId>,
    net_info: NetInfo,
    port_mapping: PortMapping,
    pins: Pins,
    sides: Sides,
    connections: BTreeMap<RegionId, Connection>,
    /// Peers to call once our own endpoints are fresh.
    to_call: BTreeSet<NodePublic>,
    /// How many pings of each [`PingId`] are under way.
    pings: BTreeMap<PingId, usize>,
    last_ping: u64,
    timers: Timers,
    desired: Desired,
    filter_lost: usize,
    health: Vec<Warning>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    /// An [`Event::DiscoPeersChanged`] is under way.
    disco_peers_asked: bool,
}

/// Who an overlay address is.
#[derive(Clone, Copy, Debug)]
pub struct Whois<'a> {
    /// The node.
    pub node: &'a WireNode,
    /// Its owner, if control said.
    pub user: Option<&'a UserProfile>,
}

impl Node {
    /// A node that knows nothing yet. `seed` is 32 random bytes: transaction ids and nonces come from it.
    pub fn new(config: Config, clock: Clock, seed: [u8; 32]) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            node_key: config.node_key,
            wireguard_port: config.wireguard_port,
            clock,
            control_clock: None,
            control_connected: false,
            prefs: Prefs::default(),
            underlay: Underlay::default(),
            netmap: Netmap::default(),
            peers: Peers::default(),
            slots: Slots::new(config.derp_loopback_port),
            relays: Relays::new(u32::from_be_bytes(rng.bytes())),
            relay_keys: BTreeSet::new(),
            detours: Detours::default(),
            detoured: u64::MAX,
            settling_until: clock.now + SETTLING,
            observed: None,
            disco: Disco::new(config.disco),
            rng,
            endpoints: Endpoints::default(),
            netcheck: Netcheck::default(),
            names: BTreeMap::new(),
            derp_home: DerpHome::default(),
            home: None,
            net_info: NetInfo::default(),
            port_mapping: PortMapping::default(),
            pins: Pins::default(),
            sides: Sides::default(),
            connections: BTreeMap::new(),
            to_call: BTreeSet::new(),
            pings: BTreeMap::new(),
            last_ping: 0,
            timers: Timers::default(),
            desired: Desired::default(),
            filter_lost: 0,
            health: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::from([Event::ObserveKernel]),
            disco_peers_asked: false,
        }
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Wake)> {
        self.timers.next()
    }

    /// Everything due by `now` happens.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(wake) = self.timers.pop(now) {
            match wake {
                Wake::Heartbeat(peer) => self.heartbeat(peer, now),
                Wake::Pulse(peer) => self.beat(peer, now),
                Wake::PongLate(peer) => self.expire_pings(peer, now),
                Wake::TrustEnds(peer) => self.end_trust(peer, now),
                Wake::TrialEnds(peer) => self.end_trial(peer, now),
                Wake::BlockEnds(peer) => self.settle(peer, now),
                Wake::Opening(peer) => self.repeat_opening(peer, now),
                Wake::Relay(peer) => self.step_relays(peer, now),
                Wake::Observe => self.ask_for_dump(now),
                Wake::Probe | Wake::NetcheckEnds => self.pump_netcheck(now),
                Wake::Restun => self.restun(now),
                Wake::DerpIdle(region) => self.close_if_idle(region, now),
                Wake::KeyExpiry => self.follow_expiry(now),
            }
        }
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to act upon.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What the kernel should be.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// The peers whose DISCO pings the kernel is to know, in no particular order. A DISCO key that several nodes share is
    /// ours to resolve.
    pub fn disco_peers(&mut self) -> Vec<DiscoPeer> {
        self.disco_peers_asked = false;
        let known = self.peers.iter().filter_map(|peer| {
            let disco = peer.disco.filter(|disco| self.peers.is_only_one_with(disco))?;
            Some(DiscoPeer { disco, node: peer.key, vouched: peer.told_vouched })
        });
        known.collect()
    }

    /// The kernel will be told; several changes at once are told together.
    fn disco_peers_changed(&mut self) {
        if !self.disco_peers_asked {
            self.disco_peers_asked = true;
            self.events.push_back(Event::DiscoPeersChanged);
        }
    }

    /// The addresses to which packets of our own must leave by a certain uplink, because the path in use does: as routes for
    /// those packets alone.
    pub fn pinned_routes(&self) -> BTreeMap<IpAddr, Hop> {
        self.pins.routes()
    }

    /// Our own node as control sees it.
    pub fn self_node(&self) -> Option<&WireNode> {
        self.netmap.node()
    }

    /// All peers as control sees them, by node id.
    pub fn peers(&self) -> impl Iterator<Item = &WireNode> {
        self.netmap.peers()
    }

    /// The relays.
    pub fn derp_map(&self) -> &DerpMap {
        self.netmap.derp()
    }

    /// The network's name; empty before the first map.
    pub fn domain(&self) -> &str {
        self.netmap.domain()
    }

    /// The network's name service settings.
    pub fn dns(&self) -> Option<&DnsConfig> {
        self.netmap.dns()
    }

    /// A user, if control told of it.
    pub fn user(&self, id: types::UserId) -> Option<&UserProfile> {
        self.netmap.user(id)
    }

    /// Whose overlay address this is, also ours; else who serves the subnet it lies in.
    pub fn whois(&self, addr: IpAddr) -> Option<Whois<'_>> {
        let node = self.netmap.owner(addr).or_else(|| {
            let host = overlay::host(addr);
            let nets = |key: &NodePublic| self.desired.peers.get(key).map(|peer| &peer.allowed_ips);
            self.netmap
                .peers()
                .filter_map(|peer| {
                    let net = nets(&peer.key)?
                        .iter()
                        .filter(|net| net.contains(&host))
                        .max_by_key(|n| n.prefix_len());
                    Some((net?.prefix_len(), peer))
                })
                .max_by_key(|(length, _)| *length)
                .map(|(_, peer)| peer)
        })?;
        Some(Whois { node, user: self.netmap.user(node.user) })
    }

    /// The connection to one peer of the netmap.
    pub fn peer_status(&self, key: NodePublic, now: Instant) -> Option<PeerStatus> {
        let node = self.netmap.peer(&key)?;
        let Some(peer) = self.peers.get(&key) else { return Some(PeerStatus::default()) };
        let (rx_bytes, tx_bytes, last_handshake) = peer.counters().unwrap_or_default();
        Some(PeerStatus {
            current: peer.via(now).and_then(|via| if let Via::Udp(path) = via { Some(path) } else { None }),
            relay: node.home_region().or(peer.heard_in),
            active: peer.is_active(now),
            last_write: peer.last_write.map(|at| self.clock.wall_at(at)),
            last_handshake,
            rx_bytes,
            tx_bytes,
            candidates: peer.paths.addresses().collect(),
            in_engine: peer.counters().is_some(),
        })
    }

    /// Every way to a peer, and why it is used or not; `None` for nodes that are no peers.
    pub fn explain(&self, key: NodePublic, now: Instant) -> Option<Explanation> {
        self.peers.get(&key).map(|peer| peer.explain(now))
    }

    /// A full map that, given to a fresh node, restores this one's; for the state file. `None` before the first map.
    pub fn cached_map(&self) -> Option<MapResponse> {
        self.netmap.to_map()
    }

    /// Our own candidates, as last reported.
    pub fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.list()
    }

    /// Where peers find us.
    pub fn home(&self) -> Option<RegionId> {
        self.home
    }

    /// What netcheck last found, with the home region.
    pub fn net_info(&self) -> &NetInfo {
        &self.net_info
    }

    /// What netcheck last saw of our own mapping: IPv4, then IPv6.
    pub fn global_addresses(&self) -> [Option<SocketAddr>; 2] {
        [self.netcheck.last().global_v4, self.netcheck.last().global_v6]
    }

    /// Measured round trips to DERP regions, the best of the last five minutes.
    pub fn region_latencies(&self) -> BTreeMap<RegionId, Duration> {
        self.derp_home.latencies()
    }

    /// What is wrong now.
    pub fn health(&self) -> &[Warning] {
        &self.health
    }

    /// Whether control said, or its calendar shows, that our own node key is no longer valid. The local calendar is not
    /// asked: peers and control refuse an expired key anyway, and a wrong clock must not take down what works.
    pub fn is_key_expired(&self, now: Instant) -> bool {
        let by_time = |node| self.control_clock.is_some() && self.is_expired(node, now);
        self.netmap.node().is_some_and(|node| node.expired || by_time(node))
    }

    fn is_running(&self, now: Instant) -> bool {
        self.prefs.want_running && self.netmap.node().is_some() && !self.is_key_expired(now)
    }

    fn is_expired(&self, node: &WireNode, now: Instant) -> bool {
        node.expired || node.key_expiry.get().is_some_and(|at| SystemTime::from(at) <= self.control_wall(now))
    }

    /// The calendar as control reads it, else our own.
    fn control_wall(&self, now: Instant) -> SystemTime {
        self.control_clock.unwrap_or(self.clock).wall_at(now)
    }

    /// Whether there is any address a peer might reach; before the underlay is known there may be.
    fn is_online(&self) -> bool {
        let mut addresses = self.underlay.addresses.iter();
        self.underlay == Underlay::default() || addresses.any(|net| is_candidate(net.addr()))
    }

    /// Computes the warnings anew and tells when they differ.
    fn refresh_health(&mut self, now: Instant) {
        let home_region = self.home.and_then(|home| self.netmap.derp().regions.get(&home)?.as_ref());
        let facts = Facts {
            want_running: self.prefs.want_running,
            has_map: self.netmap.node().is_some(),
            key_expired: self.is_key_expired(now),
            online: self.is_online(),
            home: self.home,
            searching: self.netcheck.is_running(),
            home_name: home_region.map(|region| region.region_name.clone()).unwrap_or_default(),
            home_connected: self
                .home
                .is_some_and(|home| self.connections.get(&home).is_some_and(|c| !c.is_lost())),
            firewalled: self.peers.iter().filter(|p| p.is_firewalled()).map(|p| p.name.clone()).collect(),
            wireguard_port: self.wireguard_port,
            from_control: self.netmap.messages().collect(),
            filter_lost: self.filter_lost,
        };
        let health = warnings(&facts);
        if health != self.health {
            self.health = health;
            self.events.push_back(Event::HealthChanged);
        }
    }
}
