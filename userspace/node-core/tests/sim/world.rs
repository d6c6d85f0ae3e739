//! The world: hosts behind NATs, two DERP regions with STUN, a control server, and a clock.
//!
//! ```text
//!   host (Node, Kernel) -- NAT --+-- UDP, 10..40 ms one way --+-- NAT -- host
//!                                |                            |
//!                                +-- STUN 198.51.100.1/2 -----+
//!                    DERP (never lost, 30 ms) and control (20 ms) beside it
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use node_core::{Clock, Config, FromDerp, Hop, Node, PingError, PingId, Pong, Prefs, Underlay, Uplink, Via};
use relay_core::PeerRelay;
use types::{CapabilityVersion, DiscoPrivate, NodeId, NodePrivate, NodePublic, RegionId};
use wire::control::{DerpMap, MapResponse, Node as WireNode};

use crate::kernel::{Kernel, Packet};
use crate::nat::{Kind, Nat};
use crate::traffic::{Delivery, Payload};

pub(crate) const PORT: u16 = 41641;
pub(crate) const RELAY_PORT: u16 = 7777;
pub(crate) const LOOPBACK_PORT: u16 = 40000;
const REGION: RegionId = RegionId(1);
pub(crate) const DERP_DELAY: Duration = Duration::from_millis(30);
pub(crate) const CONTROL_DELAY: Duration = Duration::from_millis(20);

pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) kernel: Kernel,
    pub(crate) key: NodePublic,
    pub(crate) lines: Vec<Line>,
    /// Underlay routes pinned by the node: the line for a remote.
    pub(crate) pins: BTreeMap<IpAddr, Uplink>,
    /// How often the way to a peer changed.
    pub(crate) path_changes: usize,
    /// A firewall that drops DISCO and lets WireGuard in.
    pub(crate) drops_disco: bool,
    /// A firewall that drops WireGuard and lets DISCO in.
    pub(crate) drops_wireguard: bool,
    /// Its connections to DERP hang, as when the uplink they use is dead.
    pub(crate) derp_hangs: bool,
    /// Whether a controller runs; the kernel does in any case.
    pub(crate) is_up: bool,
    pub(crate) pings: BTreeMap<PingId, Result<Pong, PingError>>,
    /// UDP datagrams of the controller so far.
    pub(crate) controller_sent: usize,
    /// A peer relay, where this host is one.
    pub(crate) relay: Option<PeerRelay>,
    /// WireGuard packets sent to a relay.
    pub(crate) relayed_sent: usize,
    disco: [u8; 32],
    pub(crate) derp: BTreeSet<RegionId>,
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) home: RegionId,
}

impl Host {
    /// Of hosts with a public address.
    pub(crate) fn relay_address(&self) -> SocketAddr {
        SocketAddr::new(self.lines[0].inside.ip(), RELAY_PORT)
    }
}

/// One uplink of a host: a cable to a router.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Which NAT is at its other end.
    pub(crate) nat: usize,
    pub(crate) inside: SocketAddr,
    /// Plugged in, as far as the host can see.
    pub(crate) carrier: bool,
    /// Whether packets pass: out, in.
    pub(crate) passes: [bool; 2],
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) nats: Vec<Nat>,
    /// Arrival of each data packet, by number.
    pub(crate) arrived: BTreeMap<u64, Instant>,
    /// How the last data packet from one host to another looked on the Internet: from, to.
    pub(crate) flows: BTreeMap<(usize, usize), (SocketAddr, SocketAddr)>,
    /// Of a hundred UDP datagrams so many get lost.
    pub(crate) loss: u64,
    pub(crate) start: Instant,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    deliveries: BTreeMap<u64, Delivery>,
    count: u64,
    random: u64,
}

fn derp_map() -> DerpMap {
    serde_json::from_str(
        r#"{"Regions":{"1":{"RegionID":1,"RegionName":"sim","Nodes":[
            {"Name":"1a","HostName":"a","IPv4":"198.51.100.1","IPv6":"none"},
            {"Name":"1b","HostName":"b","IPv4":"198.51.100.2","IPv6":"none"}]},
            "2":{"RegionID":2,"RegionName":"far","Nodes":[{"Name":"2a","HostName":"c","IPv4":"198.51.100.2","IPv6":"none"}]}}}"#,
    )
    .unwrap()
}

pub(crate) fn overlay(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, 0, host as u8 + 1)
}

impl World {
    /// Hosts, each behind a NAT of its own.
    pub(crate) fn new(seed: u64, nats: &[Kind]) -> Self {
        let lines: Vec<Vec<usize>> = (0..nats.len()).map(|nat| vec![nat]).collect();
        Self::wired(seed, nats, &lines)
    }

    /// NATs, and for each host the NATs at the other ends of its lines, the preferred first.
    pub(crate) fn wired(seed: u64, nats: &[Kind], lines: &[Vec<usize>]) -> Self {
        let start = Instant::now();
        let mut world = Self {
            now: start,
            hosts: Vec::new(),
            nats: Vec::new(),
            arrived: BTreeMap::new(),
            flows: BTreeMap::new(),
            loss: 0,
            start,
            queue: BinaryHeap::new(),
            deliveries: BTreeMap::new(),
            count: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        for (index, kind) in nats.iter().enumerate() {
            let public = IpAddr::from([203, 0, 113, index as u8 + 1]);
            let first_port = 10_000 + world.below(40_000) as u16;
            world.nats.push(Nat::new(*kind, public, first_port));
        }
        for (index, lines) in lines.iter().enumerate() {
            let host = world.host(index, lines);
            world.hosts.push(host);
        }
        for index in 0..world.hosts.len() {
            world.restart(index, None);
            world.hosts[index].node.handle_control_state(true);
            let map = world.full_map(index);
            world.at(world.now + CONTROL_DELAY, Delivery::Map { host: index, map: map.into() });
        }
        world
    }

    fn host(&mut self, index: usize, lines: &[usize]) -> Host {
        let line = |nat: &usize| {
            let private = IpAddr::from([192, 168, *nat as u8, index as u8 + 2]);
            let kind = self.nats[*nat].kind;
            let inside = if kind == Kind::None { self.nats[*nat].public_ip() } else { private };
            Line { nat: *nat, inside: SocketAddr::new(inside, PORT), carrier: true, passes: [true; 2] }
        };
        let lines = lines.iter().map(line).collect();
        let key = NodePrivate::from_random([index as u8 + 1; 32]).public();
        let disco = [index as u8 + 101; 32];
        Host {
            node: Node::new(config(key, disco), self.clock(), self.seed()),
            kernel: Kernel::default(),
            key,
            lines,
            pins: BTreeMap::new(),
            path_changes: 0,
            drops_disco: false,
            drops_wireguard: false,
            derp_hangs: false,
            is_up: true,
            pings: BTreeMap::new(),
            controller_sent: 0,
            relay: None,
            relayed_sent: 0,
            disco,
            derp: BTreeSet::new(),
            endpoints: Vec::new(),
            home: RegionId(0),
        }
    }

    /// Kills the controller; the kernel goes on.
    pub(crate) fn kill(&mut self, index: usize) {
        self.hosts[index].is_up = false;
        self.hosts[index].derp.clear();
    }

    /// A new controller that has only `cached`; control answers later.
    pub(crate) fn restart(&mut self, index: usize, cached: Option<MapResponse>) {
        let (clock, seed, now) = (self.clock(), self.seed(), self.now);
        let host = &mut self.hosts[index];
        host.is_up = true;
        host.node = Node::new(config(host.key, host.disco), clock, seed);
        host.node.handle_prefs(Prefs { want_running: true, ..Prefs::default() }, now);
        if let Some(cached) = cached {
            host.node.handle_map(cached, now);
        }
        self.tell_underlay(index);
    }

    /// What the kernel tells the node of its lines.
    pub(crate) fn tell_underlay(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        let mut underlay = Underlay::default();
        for (line, number) in host.lines.iter().zip(0..).filter(|(line, _)| line.carrier) {
            // Public hosts are no neighbors.
            let length = if line.inside.ip().to_string().starts_with("192.168") { 24 } else { 32 };
            let net = IpNet::new(line.inside.ip(), length).unwrap();
            let hop = Hop { metric: 100 * (number + 1), uplink: Uplink(number + 2), gateway: None };
            underlay.addresses.push(net);
            underlay.routes.entry(net.trunc()).or_default().insert(Hop { metric: 0, ..hop });
            underlay.routes.entry("0.0.0.0/0".parse().unwrap()).or_default().insert(hop);
        }
        host.node.handle_underlay(underlay, now);
        self.drain(index);
    }

    /// The NAT of a host's first line.
    pub(crate) fn nat_of(&mut self, host: usize) -> &mut Nat {
        let nat = self.hosts[host].lines[0].nat;
        &mut self.nats[nat]
    }

    /// How control describes a host.
    pub(crate) fn wire_node(&self, index: usize) -> WireNode {
        let host = &self.hosts[index];
        WireNode {
            id: NodeId(index as i64 + 1),
            name: format!("host{index}.example.com."),
            key: host.key,
            disco_key: DiscoPrivate::from_random(host.disco).public(),
            addresses: vec![IpAddr::from(overlay(index)).into()],
            endpoints: host.endpoints.clone(),
            home_derp: host.home,
            machine_authorized: true,
            cap: CapabilityVersion(130),
            ..WireNode::default()
        }
    }

    pub(crate) fn full_map(&self, index: usize) -> MapResponse {
        let others = (0..self.hosts.len()).filter(|other| *other != index);
        MapResponse {
            node: Some(self.wire_node(index)),
            peers: others.map(|other| self.wire_node(other)).collect(),
            derp_map: Some(derp_map()),
            ..MapResponse::default()
        }
    }

    /// A map for one host, now.
    pub(crate) fn give_map(&mut self, index: usize, map: MapResponse) {
        let now = self.now;
        self.hosts[index].node.handle_map(map, now);
        self.drain(index);
    }

    pub(crate) fn ping(&mut self, from: usize, to: usize) -> PingId {
        let (key, now) = (self.hosts[to].key, self.now);
        let id = self.hosts[from].node.ping(key, 0, now);
        self.drain(from);
        id
    }

    /// A program on `from` sends data packet `id` to `to`.
    pub(crate) fn send(&mut self, from: usize, to: usize, id: u64) {
        let (key, now) = (self.hosts[to].key, self.now);
        self.hosts[from].kernel.send(key, id, now);
        self.drain(from);
    }

    /// Sends from `from` to `to` and back every `every` for `length`; returns the numbers sent.
    pub(crate) fn talk(&mut self, from: usize, to: usize, every: Duration, length: Duration) -> Vec<u64> {
        let end = self.now + length;
        let mut sent = Vec::new();
        while self.now < end {
            for (a, b) in [(from, to), (to, from)] {
                self.count += 1;
                sent.push(self.count);
                self.send(a, b, self.count);
            }
            self.run_for(every);
        }
        sent
    }

    /// The loopback address under which the kernel of `from` knows `to` when it is relayed.
    pub(crate) fn loopback(&mut self, from: usize, to: usize) -> SocketAddr {
        let (key, now) = (self.hosts[to].key, self.now);
        let FromDerp::Deliver(slot) = self.hosts[from].node.handle_derp(REGION, key, &[1, 0, 0, 0], now)
        else {
            panic!("a known peer's packet is delivered");
        };
        SocketAddr::new(slot.ip().into(), LOOPBACK_PORT)
    }

    /// An authenticated packet that for once comes by DERP.
    pub(crate) fn send_by_derp(&mut self, from: usize, to: usize) {
        let payload = Payload::WireGuard {
            from: self.hosts[from].key,
            to: self.hosts[to].key,
            packet: Packet::KeepAlive,
        };
        let home = self.hosts[to].node.home().unwrap();
        self.derp(from, home, self.hosts[to].key, payload);
    }

    pub(crate) fn lost(&self, sent: &[u64]) -> usize {
        sent.iter().filter(|id| !self.arrived.contains_key(id)).count()
    }

    pub(crate) fn via(&self, from: usize, to: usize) -> Via {
        let status = self.hosts[from].node.peer_status(self.hosts[to].key, self.now).unwrap();
        status.current.map_or(Via::Derp(REGION), Via::Udp)
    }

    pub(crate) fn is_direct(&self, a: usize, b: usize) -> bool {
        let direct = |a, b| matches!(self.via(a, b), Via::Udp(path) if path.is_direct());
        direct(a, b) && direct(b, a)
    }

    /// Whether neither trusts a path to the other.
    pub(crate) fn both_relayed(&self, a: usize, b: usize) -> bool {
        let relayed = |a, b| matches!(self.via(a, b), Via::Derp(_));
        relayed(a, b) && relayed(b, a)
    }

    /// Whether packets between two hosts take one path, back and forth.
    pub(crate) fn is_one_path(&self, a: usize, b: usize) -> bool {
        match (self.flows.get(&(a, b)), self.flows.get(&(b, a))) {
            (Some((from, to)), Some(back)) => (*to, *from) == *back,
            (None, None) => true,
            _ => false,
        }
    }

    /// Whether the kernel of `from` sends to `to` by DERP.
    pub(crate) fn rests_on_derp(&self, from: usize, to: usize) -> bool {
        self.hosts[from].kernel.peers[&self.hosts[to].key].endpoint.unwrap().ip().is_loopback()
    }

    /// Runs until `done`, at most `limit`; how long it took.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let (start, end) = (self.now, self.now + limit);
        while !done(self) {
            if !self.step(end) {
                return None;
            }
        }
        Some(self.now - start)
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// The next thing that happens before `end`; false when nothing does.
    fn step(&mut self, end: Instant) -> bool {
        let delivery = self.queue.peek().map(|Reverse((at, _))| *at);
        let nodes = self.hosts.iter().filter(|host| host.is_up);
        let timer = nodes.filter_map(|host| Some(host.node.poll_timeout()?.0)).min();
        let kernel = self.hosts.iter().filter_map(|host| host.kernel.next_timer()).min();
        let Some(next) = [delivery, timer, kernel].into_iter().flatten().min().filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(next);
        if delivery == Some(next) {
            let id = self.queue.pop().map(|Reverse((_, id))| id).unwrap();
            let delivery = self.deliveries.remove(&id).unwrap();
            self.deliver(delivery);
            return true;
        }
        let now = self.now;
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            host.kernel.handle_timers(now);
            if host.is_up {
                host.node.handle_timeout(now);
            }
            self.drain(index);
        }
        true
    }

    pub(crate) fn at(&mut self, at: Instant, delivery: Delivery) {
        self.count += 1;
        self.queue.push(Reverse((at, self.count)));
        self.deliveries.insert(self.count, delivery);
    }

    pub(crate) fn wall(&self) -> SystemTime {
        self.clock().wall
    }

    fn clock(&self) -> Clock {
        // 2026, so that tests with calendar dates read well.
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        Clock { now: self.now, wall: begin + (self.now - self.start) }
    }

    fn seed(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| self.below(256) as u8)
    }

    /// xorshift64*
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

fn config(key: NodePublic, disco: [u8; 32]) -> Config {
    Config {
        node_key: key,
        disco: DiscoPrivate::from_random(disco),
        wireguard_port: PORT,
        derp_loopback_port: LOOPBACK_PORT,
    }
}
