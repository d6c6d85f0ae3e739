//! A gateway between two wires that a test holds in its hands: a TUN device stands for the tunnel, a TAP device for a LAN.
//!
//! What the test writes to the tunnel comes out of it as WireGuard's packets do, from an L3 device with no link header; what
//! the gateway sends to the LAN is read frame by frame. There is no host: its neighbor entries are fixed, so nothing but the
//! gateway ever answers.

use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use dataplane::{Filtering, GatewayPlan, LanPlan, Program, Reason};
use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use node_core::filter::{Destination, Filter, Rule};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::cases::parse;
use crate::namespace::Namespace;
use crate::{Loaded, counts, sums};

/// A peer.
pub const PEER: &str = "100.64.0.7";
/// Another one.
pub const OTHER_PEER: &str = "100.64.0.8";
/// A peer's IPv6 address.
pub const PEER6: &str = "fd7a:115c:a1e0::7";
/// A host of the LAN.
pub const HOST: &str = "192.168.5.2";
/// Another one.
pub const OTHER_HOST: &str = "192.168.5.3";
/// Its IPv6 address.
pub const HOST6: &str = "fd00:5::2";
/// The gateway on the LAN: what peers are hidden behind.
pub const OUTER: &str = "192.168.5.1";
/// The same in IPv6.
pub const OUTER6: &str = "fd00:5::1";

const DEVICE: &str = "gateway0";
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PATIENCE: Duration = Duration::from_secs(2);
/// Long enough for a packet that would come, on a loaded machine.
const SILENCE: Duration = Duration::from_millis(150);

/// The gateway and both wires. To be used inside its namespace.
pub struct Gateway {
    /// The programs.
    pub programs: Loaded,
    tunnel: SyncDevice,
    lan: SyncDevice,
    plan: GatewayPlan,
}

/// Runs `test` with a gateway in a namespace of its own; it hides peers.
pub fn with_gateway(name: &str, test: impl FnOnce(&mut Gateway) + Send + 'static) {
    if crate::skipped(name) {
        return;
    }
    let namespace = Namespace::new();
    let (tunnel, lan) = namespace.run(|| {
        let tunnel = DeviceBuilder::new().name("wg0").layer(Layer::L3).mtu(1280).enable(false).build_sync();
        let lan =
            DeviceBuilder::new().name("lan0").layer(Layer::L2).mac_addr(OUR_MAC).mtu(1500).enable(false);
        (tunnel.expect("a TUN device"), lan.build_sync().expect("a TAP device"))
    });
    for command in [
        "link set wg0 up",
        "link set lan0 up",
        "address add 100.64.0.1/32 dev wg0",
        "address add 192.168.5.1/24 dev lan0",
        "route add 100.64.0.0/10 dev wg0",
        "neighbor add 192.168.5.2 lladdr 02:00:00:00:00:02 dev lan0",
        "neighbor add 192.168.5.3 lladdr 02:00:00:00:00:02 dev lan0",
        "-6 address add fd7a:115c:a1e0::1/128 dev wg0 nodad",
        "-6 address add fd00:5::1/64 dev lan0 nodad",
        "-6 route add fd7a:115c:a1e0::/48 dev wg0",
        "-6 neighbor add fd00:5::2 lladdr 02:00:00:00:00:02 dev lan0",
    ] {
        namespace.ip(command);
    }
    // What the node's own table does for the gateway: connection tracking reassembles, ICMP refuses.
    namespace.nft(
        "table inet gateway {\n chain forward { type filter hook forward priority filter;\n \
         meta mark & 0xff0000 == 0x20000 reject with icmpx admin-prohibited\n ct state invalid counter\n }\n}\n",
    );
    namespace.run(move || {
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{switch}"), "1").expect("a namespace's own switch");
        }
        let mut programs = Loaded::new(DEVICE);
        programs.install(&open_filter()).expect("the filter fits");
        let index = |name| nix::net::if_::if_nametoindex(name).expect("the device exists");
        programs.attach_tunnel(index("wg0")).expect("attached");
        let lan_plan = LanPlan { v4: Some(ip(OUTER)), v6: Some(ip(OUTER6)) };
        let plan = GatewayPlan {
            tunnel: index("wg0"),
            mtu: 1280,
            filtering: Filtering::default(),
            places: abi::DEFAULT_PLACES,
            lans: [(index("lan0"), lan_plan)].into(),
            routes: [(parse("192.168.5.0/24"), true), (parse("fd00:5::/64"), true)].into(),
        };
        programs.set_gateway(Some(&plan)).expect("a gateway");
        test(&mut Gateway { programs, tunnel, lan, plan });
    });
}

impl Gateway {
    /// Changes what the gateway does.
    pub fn change(&mut self, change: impl FnOnce(&mut GatewayPlan)) {
        change(&mut self.plan);
        self.programs.set_gateway(Some(&self.plan)).expect("a gateway");
    }

    /// Hides nobody any more.
    pub fn hide_nobody(&mut self) {
        self.change(|plan| plan.routes.values_mut().for_each(|hidden| *hidden = false));
    }

    /// A packet comes out of the tunnel.
    pub fn from_tunnel(&self, packet: &[u8]) {
        self.tunnel.send(packet).expect("the TUN device takes it");
    }

    /// A packet comes from the LAN.
    pub fn from_lan(&self, packet: &[u8]) {
        let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        self.lan.send(&[&OUR_MAC[..], &HOST_MAC, &kind, packet].concat()).expect("the TAP device takes it");
    }

    /// What leaves to the LAN.
    pub fn to_lan(&self, what: &str) -> Vec<u8> {
        self.next_to_lan(PATIENCE)
            .unwrap_or_else(|| panic!("nothing left to the LAN: {what}\n{}", self.counted()))
    }

    /// What goes into the tunnel.
    pub fn to_tunnel(&self, what: &str) -> Vec<u8> {
        let packet = next(&self.tunnel, PATIENCE, |packet| is_ours(&packet).then_some(packet));
        packet.unwrap_or_else(|| panic!("nothing went into the tunnel: {what}\n{}", self.counted()))
    }

    /// That nothing leaves to the LAN.
    pub fn nothing_to_lan(&self, what: &str) {
        assert_eq!(self.next_to_lan(SILENCE), None, "left to the LAN: {what}");
    }

    /// That nothing goes into the tunnel.
    pub fn nothing_to_tunnel(&self, what: &str) {
        let packet = next(&self.tunnel, SILENCE, |packet| is_ours(&packet).then_some(packet));
        assert_eq!(packet, None, "went into the tunnel: {what}");
    }

    /// How many packets a program counted under a reason.
    pub fn count(&self, program: Program, reason: Reason) -> u64 {
        counts(&self.programs, program)[reason as usize]
    }

    fn next_to_lan(&self, patience: Duration) -> Option<Vec<u8>> {
        next(&self.lan, patience, |frame| {
            let packet = frame.get(14..)?;
            is_ours(packet).then(|| packet.to_vec())
        })
    }

    fn counted(&self) -> String {
        let counters = self.programs.counters().unwrap_or_default();
        let lines = counters.iter().filter(|count| count.packets != 0);
        lines.map(|count| format!("{:?} {:?} {}\n", count.program, count.reason, count.packets)).collect()
    }
}

/// The next packet of a device that `wanted` gives something for.
fn next(
    device: &SyncDevice,
    patience: Duration,
    wanted: impl Fn(Vec<u8>) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut buffer = vec![0; 65_536];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, wait).expect("a device can be polled") == 0 {
            return None;
        }
        let length = device.recv(&mut buffer).expect("the device gives a packet");
        if let Some(found) = wanted(buffer[..length].to_vec()) {
            return Some(found);
        }
    }
}

/// Whether a packet has something to do with a test: not a router solicitation, a report of multicast groups or the like.
fn is_ours(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet[16] < 224,
        Some(6) => packet[24] != 0xff && packet[8] != 0xfe && packet[24] != 0xfe,
        _ => false,
    }
}

/// Everybody to everything.
pub fn open_filter() -> Filter {
    let everything: Vec<IpNet> = vec![parse("0.0.0.0/0"), parse("::/0")];
    let destination = |net: &IpNet| Destination { net: *net, ports: 0..=u16::MAX };
    let rule = Rule {
        protocols: vec![6, 17, 1, 58],
        sources: everything.clone(),
        destinations: everything.iter().map(destination).collect(),
    };
    Filter { local: everything, rules: vec![rule], shields_up: false }
}

fn ip<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is an address"))
}

/// A UDP datagram with its checksums.
pub fn udp(source: (&str, u16), destination: (&str, u16), payload: &[u8]) -> Vec<u8> {
    built(source.0, destination.0, packet::proto::UDP, &crate::packets::udp(source.1, destination.1, payload))
}

/// A TCP segment with its checksums.
pub fn tcp(source: (&str, u16), destination: (&str, u16), flags: u8) -> Vec<u8> {
    built(source.0, destination.0, packet::proto::TCP, &crate::packets::tcp(source.1, destination.1, flags))
}

/// An ICMP message with its checksums: type and code, the four bytes behind the checksum, the rest.
pub fn icmp(source: &str, destination: &str, kind: [u8; 2], head: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let protocol = if source.contains(':') { packet::proto::ICMPV6 } else { packet::proto::ICMP };
    let message = [&kind[..], &[0, 0], &head, rest].concat();
    built(source, destination, protocol, &message)
}

fn built(source: &str, destination: &str, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let (source, destination): (IpAddr, IpAddr) = (ip(source), ip(destination));
    sums::filled(crate::packets::ip(source, destination, protocol, transport))
}

/// What a test looks at in a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Sender and its port (0 for ICMP).
    pub source: (IpAddr, u16),
    /// Receiver and its port.
    pub destination: (IpAddr, u16),
    /// Time to live.
    pub hops: u8,
}

/// Reads a packet, whose checksums must be right.
pub fn seen(packet: &[u8]) -> Seen {
    assert!(sums::are_right(packet), "a checksum is wrong: {packet:02x?}");
    let is_v4 = packet[0] >> 4 == 4;
    let octets = |from: usize| -> [u8; 16] { packet[from..from + 16].try_into().expect("16 bytes") };
    let octets4 = |from: usize| -> [u8; 4] { packet[from..from + 4].try_into().expect("4 bytes") };
    let (source, destination, transport, protocol, hops): (IpAddr, IpAddr, _, _, _) = match is_v4 {
        true => (octets4(12).into(), octets4(16).into(), 20, packet[9], packet[8]),
        false => (octets(8).into(), octets(24).into(), 40, packet[6], packet[7]),
    };
    let has_ports = matches!(protocol, packet::proto::TCP | packet::proto::UDP);
    let port = |at: usize| match has_ports {
        true => u16::from_be_bytes([packet[transport + at], packet[transport + at + 1]]),
        false => 0,
    };
    Seen { source: (source, port(0)), destination: (destination, port(2)), hops }
}

/// An endpoint.
pub fn at(address: &str, port: u16) -> (IpAddr, u16) {
    (ip(address), port)
}
