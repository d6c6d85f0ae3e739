//! The cases that host and kernel must judge alike: Tailscale's own (`wgengine/filter/filter_test.go`), and ours.

use std::net::IpAddr;

use abi::Next;
use dataplane::Reason;
use ipnet::IpNet;
use node_core::filter::{Destination, Filter, Rule};
use packet::proto::{ICMP, ICMPV6, IGMP, SCTP, TCP, TSMP, UDP};

use crate::packets::{disco, geneve, ip, stun, tcp, udp, wireguard};

/// One packet and what becomes of it.
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// From the IP header on.
    pub packet: Vec<u8>,
    /// What the program says; `None` for a packet `steer` leaves alone.
    pub want: Option<Reason>,
}

/// One packet on an underlay, and the program that `underlay` hands it to.
pub struct Dispatch {
    /// What it shows.
    pub name: &'static str,
    /// From the IP header on.
    pub packet: Vec<u8>,
    /// None: the stack.
    pub want: Option<Next>,
}

/// A protocol number that a rule of [`filter`] opens, and one that none opens.
const OPENED: u8 = 116;
const CLOSED: u8 = 127;
/// The WireGuard port of the `steer` cases.
pub const PORT: u16 = 41641;
/// The peer relay's port of the [`underlay`] cases.
pub const RELAY_PORT: u16 = 7777;
/// The STUN port of the [`underlay`] cases.
pub const STUN_PORT: u16 = 3478;

/// The filter of Tailscale's tests, without its node capabilities (which the control plane's rules no longer need).
pub fn filter() -> Filter {
    let default = [TCP, UDP, ICMP, ICMPV6];
    let rule = |protocols: &[u8], sources: &[&str], destinations: &[(&str, u16, u16)]| Rule {
        protocols: protocols.to_vec(),
        sources: sources.iter().map(|net| parse(net)).collect(),
        destinations: destinations
            .iter()
            .map(|(net, first, last)| Destination { net: parse(net), ports: *first..=*last })
            .collect(),
    };
    Filter {
        local: [
            "100.122.98.50",
            "1.2.3.4",
            "5.6.7.8",
            "102.102.102.102",
            "119.119.119.119",
            "8.1.0.0/16",
            "2001::/16",
        ]
        .map(parse)
        .to_vec(),
        rules: vec![
            rule(&default, &["8.1.1.1", "8.2.2.2"], &[("1.2.3.4", 22, 22), ("5.6.7.8", 23, 24)]),
            rule(&[SCTP], &["9.1.1.1", "9.2.2.2"], &[("1.2.3.4", 22, 22), ("5.6.7.8", 23, 24)]),
            rule(&default, &["8.1.1.1", "8.2.2.2"], &[("5.6.7.8", 27, 28)]),
            rule(&default, &["2.2.2.2"], &[("8.1.1.1", 22, 22)]),
            rule(&default, &["0.0.0.0/0"], &[("100.122.98.50", 0, u16::MAX)]),
            rule(&default, &["0.0.0.0/0"], &[("0.0.0.0/0", 443, 443)]),
            rule(&default, &["153.1.1.1", "153.1.1.2", "153.3.3.3"], &[("1.2.3.4", 999, 999)]),
            rule(&default, &["::1", "::2"], &[("2001::1", 22, 22), ("2001::2", 22, 22)]),
            rule(&default, &["::/0"], &[("::/0", 443, 443)]),
            rule(&[OPENED], &["0.0.0.0/0"], &[("0.0.0.0/0", 0, u16::MAX)]),
            rule(&[OPENED], &["::/0"], &[("::/0", 0, u16::MAX)]),
        ],
        shields_up: false,
    }
}

/// Packets out of the tunnel under [`filter`].
pub fn from_tunnel() -> Vec<Case> {
    let mut cases = Vec::new();
    for (source, destination, port, want) in [
        ("8.1.1.1", "1.2.3.4", 22, Reason::Rule),
        ("8.1.1.1", "1.2.3.4", 21, Reason::Acl),
        ("8.1.1.1", "1.2.3.4", 0, Reason::Acl),
        ("8.2.2.2", "1.2.3.4", 22, Reason::Rule),
        ("8.2.2.2", "1.2.3.4", 23, Reason::Acl),
        ("8.3.3.3", "1.2.3.4", 22, Reason::Acl),
        ("8.1.1.1", "5.6.7.8", 23, Reason::Rule),
        ("8.1.1.1", "5.6.7.8", 24, Reason::Rule),
        ("8.1.1.1", "5.6.7.8", 27, Reason::Rule),
        ("8.1.1.3", "5.6.7.8", 24, Reason::Acl),
        ("8.1.1.1", "5.6.7.8", 22, Reason::Acl),
        ("17.34.51.68", "8.1.34.51", 443, Reason::Rule),
        ("17.34.51.68", "8.1.34.51", 444, Reason::Acl),
        ("17.34.51.68", "100.122.98.50", 999, Reason::Rule),
        ("17.34.51.68", "100.122.98.50", 0, Reason::Rule),
        ("2.2.2.2", "8.1.1.1", 22, Reason::Rule),
        ("2.2.2.2", "8.1.1.2", 22, Reason::Acl),
        ("::1", "2001::1", 22, Reason::Rule),
        ("::2", "2001::2", 22, Reason::Rule),
        ("::1", "2001::1", 23, Reason::Acl),
        ("::1", "2001::3", 22, Reason::Acl),
        ("::3", "2001::1", 22, Reason::Acl),
        ("::1", "2001::1", 443, Reason::Rule),
        ("8.1.1.1", "16.32.48.64", 443, Reason::NotLocal),
        ("1::", "2602::1", 443, Reason::NotLocal),
    ] {
        // Tailscale treats TCP and UDP alike here, and so do its tests.
        cases.push(case("a new TCP connection", source, destination, TCP, &tcp(999, port, 0x02), want));
        cases.push(case("a UDP datagram", source, destination, UDP, &udp(999, port, &[0; 12]), want));
    }
    cases.extend(by_protocol());
    cases.extend(special());
    cases.extend(fragments());
    cases
}

fn by_protocol() -> Vec<Case> {
    let any = [0; 20];
    let icmp = |kind: u8, code: u8| [kind, code, 0, 0, 0, 0, 0, 0];
    let (peer, us, peer6, us6) = ("8.1.1.1", "1.2.3.4", "::1", "2001::1");
    vec![
        case("SCTP without a rule", peer, us, SCTP, &udp(999, 22, &[0; 12]), Reason::Acl),
        case("SCTP with a rule", "9.1.1.1", us, SCTP, &udp(999, 22, &[0; 12]), Reason::Rule),
        case("SCTP too short for its header", "9.1.1.1", us, SCTP, &[0; 11], Reason::TooShort),
        case("a protocol open on all ports", "1.2.3.4", "5.6.7.8", OPENED, &any, Reason::Rule),
        case("the same in IPv6", "2001::1", "2001::2", OPENED, &any, Reason::Rule),
        case("a protocol that no rule names", "1.2.3.4", "5.6.7.8", CLOSED, &any, Reason::Acl),
        case("TSMP needs no rule", "77.7.7.7", us, TSMP, b"p12345678", Reason::Tsmp),
        case("TSMP too short", "77.7.7.7", us, TSMP, b"p12345", Reason::TooShort),
        case("TSMP to somebody else", "77.7.7.7", "9.9.9.9", TSMP, b"p12345678", Reason::NotLocal),
        case("IGMP", peer, us, IGMP, &[0; 8], Reason::Acl),
        case("TCP that is no SYN", "77.7.7.7", us, TCP, &tcp(1, 2, 0x10), Reason::TcpEstablished),
        case("a SYN-ACK", "77.7.7.7", us, TCP, &tcp(1, 2, 0x12), Reason::TcpEstablished),
        case("a SYN with FIN", "77.7.7.7", us, TCP, &tcp(1, 2, 0x03), Reason::Acl),
        case("TCP too short for its header", peer, us, TCP, &tcp(1, 22, 0x02)[..19], Reason::TooShort),
        case("UDP too short for its header", peer, us, UDP, &[0; 7], Reason::TooShort),
        case("a ping where a rule opens anything", peer, us, ICMP, &icmp(8, 0), Reason::Rule),
        // The rule "anybody to anywhere, port 443" opens every pair of IPv4 addresses to pings, in Tailscale too.
        case("a ping where only a wide rule matches", "77.7.7.7", us, ICMP, &icmp(8, 0), Reason::Rule),
        case("an echo reply", "77.7.7.7", us, ICMP, &icmp(0, 0), Reason::IcmpReply),
        case("an unreachable", "77.7.7.7", us, ICMP, &icmp(3, 1), Reason::IcmpReply),
        case("a time exceeded", "77.7.7.7", us, ICMP, &icmp(11, 0), Reason::IcmpReply),
        case("ICMP too short", peer, us, ICMP, &[8, 0, 0], Reason::TooShort),
        case("a ping in IPv6", peer6, us6, ICMPV6, &icmp(128, 0), Reason::Rule),
        case("an echo reply in IPv6", "77::7", us6, ICMPV6, &icmp(129, 0), Reason::IcmpReply),
        case("a packet too big", "77::7", us6, ICMPV6, &icmp(2, 0), Reason::IcmpReply),
        case("IPv4's ICMP in IPv6 has no meaning", peer6, us6, ICMP, &icmp(8, 0), Reason::Acl),
    ]
}

fn special() -> Vec<Case> {
    let syn = tcp(999, 443, 0x02);
    let mut cases = vec![
        case("multicast", "8.1.1.1", "224.0.0.251", UDP, &udp(1, 443, &[]), Reason::Multicast),
        case("multicast in IPv6", "::1", "ff02::1", UDP, &udp(1, 443, &[]), Reason::Multicast),
        case("link-local", "8.1.1.1", "169.254.1.1", TCP, &syn, Reason::LinkLocal),
        case("link-local in IPv6", "::1", "fe80::1", TCP, &syn, Reason::LinkLocal),
        case(
            "the metadata address is not link-local",
            "8.1.1.1",
            "169.254.169.254",
            TCP,
            &syn,
            Reason::NotLocal,
        ),
        case("protocol zero", "8.1.1.1", "1.2.3.4", 0, &[0; 20], Reason::UnknownProtocol),
        case("protocol 255", "8.1.1.1", "1.2.3.4", 255, &[0; 20], Reason::UnknownProtocol),
        case("hop-by-hop options", "::1", "2001::1", 0, &[0; 20], Reason::UnknownProtocol),
        case("destination options are a protocol of their own", "::1", "2001::1", 60, &[0; 28], Reason::Acl),
    ];
    let packet = ip(address("8.1.1.1"), address("1.2.3.4"), TCP, &syn);
    let mut edited = |name, want, edit: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = packet.clone();
        edit(&mut packet);
        cases.push(Case { name, packet, want: Some(want) });
    };
    edited("IPv4 options before the TCP header", Reason::Rule, &|p| {
        p[0] = 0x46;
        p[3] += 4;
        p.splice(20..20, [1, 1, 1, 1]);
    });
    edited("bytes behind the packet's end", Reason::Rule, &|p| p.extend([0; 6]));
    edited("cut off before its end", Reason::TooShort, &|p| p.truncate(39));
    edited("a header shorter than IPv4's", Reason::TooShort, &|p| p[0] = 0x44);
    edited("a length shorter than the header", Reason::TooShort, &|p| p[3] = 19);
    edited("not IP", Reason::UnknownProtocol, &|p| p[0] = 0x55);
    cases
}

fn fragments() -> Vec<Case> {
    let v4 = |name, field: u16, payload: &[u8], want| {
        let mut packet = ip(address("8.1.1.1"), address("1.2.3.4"), TCP, payload);
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        Case { name, packet, want: Some(want) }
    };
    let v6 = |name, protocol: u8, field: u16, payload: &[u8], want| {
        let [high, low] = field.to_be_bytes();
        let payload = [&[protocol, 0, high, low, 0xde, 0xad, 0xbe, 0xef], payload].concat();
        case(name, "2001::5", "2001::1", 44, &payload, want)
    };
    let more = 0x2000;
    vec![
        v4("a first fragment with its header", more, &tcp(999, 22, 0x02), Reason::Rule),
        v4("a first fragment that no rule allows", more, &tcp(999, 21, 0x02), Reason::Acl),
        v4("a first fragment without its whole header", more, &tcp(999, 22, 0x02)[..16], Reason::TooShort),
        v4("a later fragment", 10, &[0; 24], Reason::LaterFragment),
        v4("a fragment that could overlap a header", 9, &[0; 24], Reason::TinyFragment),
        v4("a later fragment that says more follow", more | 185, &[0; 24], Reason::LaterFragment),
        v6("a first fragment in IPv6", UDP, 1, &udp(1234, 443, &[0; 8]), Reason::Rule),
        v6("a first fragment in IPv6 that no rule allows", UDP, 1, &udp(1234, 444, &[0; 8]), Reason::Acl),
        v6("a later fragment in IPv6", UDP, 0x05c8, &[0x61; 8], Reason::LaterFragment),
        v6("an overlapping fragment in IPv6", UDP, 0x0048, &[0x61; 8], Reason::TinyFragment),
        v6("TSMP in fragments", TSMP, 1, b"p12345678", Reason::UnknownProtocol),
        v6("a fragment header behind a fragment header", 44, 1, &[0; 16], Reason::Acl),
        case("a fragment header cut short", "2001::5", "2001::1", 44, &[17, 0, 0], Reason::TooShort),
    ]
}

/// Packets on an underlay whose WireGuard port is [`PORT`]. A reason means "for the controller".
pub fn steer() -> Vec<Case> {
    let to_us = |payload: &[u8]| udp(5000, PORT, payload);
    let mut cases = Vec::new();
    for (source, destination) in [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")] {
        let mut add = |name, transport: &[u8], want: Option<Reason>| {
            let packet = ip(address(source), address(destination), UDP, transport);
            cases.push(Case { name, packet, want });
        };
        add("a DISCO message", &to_us(&disco(100)), Some(Reason::Disco));
        add("the shortest DISCO message", &to_us(&disco(62)), Some(Reason::Disco));
        add("DISCO's magic and too little behind it", &to_us(&disco(61)), None);
        add("a STUN response", &to_us(&stun(0x0101)), Some(Reason::Stun));
        add("a STUN error", &to_us(&stun(0x0111)), Some(Reason::Stun));
        add("a STUN request", &to_us(&stun(0x0001)), None);
        let relayed = |protocol, payload: &[u8]| to_us(&geneve(protocol, 7, payload));
        let reason = Some(Reason::ThroughRelay);
        add("DISCO from a peer relay", &relayed(0x7a11, &disco(100)), reason);
        add("WireGuard from a peer relay", &relayed(0x7a12, &wireguard(4, 32)), reason);
        add("another protocol in Geneve", &relayed(0x6558, &wireguard(4, 32)), None);
        add("a handshake initiation", &to_us(&wireguard(1, 148)), None);
        add("a handshake response", &to_us(&wireguard(2, 92)), None);
        add("a cookie", &to_us(&wireguard(3, 64)), None);
        add("data", &to_us(&wireguard(4, 128)), None);
        add("a keepalive", &to_us(&wireguard(4, 32)), None);
        add("an empty datagram", &to_us(&[]), None);
        add("DISCO to another port", &udp(5000, PORT + 1, &disco(100)), None);
        add("DISCO from our port's number", &udp(PORT, 5000, &disco(100)), None);
        add("a UDP header cut short", &to_us(&[])[..7], None);
        let mut long = to_us(&disco(100));
        long[5] += 1;
        add("a UDP length past the packet's end", &long, None);
        let mut short = to_us(&disco(100));
        short[5] = 7;
        add("a UDP length below its header's", &short, None);
        let packet = ip(address(source), address(destination), TCP, &to_us(&disco(100)));
        cases.push(Case { name: "the same bytes in TCP", packet, want: None });
    }
    let packet = ip(address("192.0.2.2"), address("192.0.2.1"), UDP, &to_us(&disco(100)));
    for (name, byte, value) in
        [("a first fragment", 6, 0x20), ("a later fragment", 7, 10), ("IPv4 options", 0, 0x46)]
    {
        let mut packet = packet.clone();
        packet[byte] = value;
        cases.push(Case { name, packet, want: None });
    }
    cases
}

/// Packets on an underlay of a node that is a relay too, with the ports of this file.
pub fn underlay() -> Vec<Dispatch> {
    let request = stun(0x0001);
    let mut cases = Vec::new();
    for (source, destination) in [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")] {
        let mut add = |name, port, payload: &[u8], want| {
            let packet = ip(address(source), address(destination), UDP, &udp(5000, port, payload));
            cases.push(Dispatch { name, packet, want });
        };
        add("DISCO", PORT, &disco(100), Some(Next::Disco));
        add("DISCO cut short", PORT, &disco(61), None);
        add("WireGuard data", PORT, &wireguard(4, 128), None);
        add("an initiation", PORT, &wireguard(1, 148), Some(Next::Shield));
        add("a response", PORT, &wireguard(2, 92), Some(Next::Shield));
        add("a cookie reply", PORT, &wireguard(3, 64), None);
        add("an initiation of another size", PORT, &wireguard(1, 147), Some(Next::Shield));
        add("an answer to our STUN request", PORT, &stun(0x0101), Some(Next::Shield));
        add("a STUN request to the WireGuard port", PORT, &request, None);
        add("Geneve to the relay", RELAY_PORT, &geneve(0x7a12, 5, &wireguard(4, 64)), Some(Next::Relay));
        add("anything to the relay", RELAY_PORT, b"noise", Some(Next::Relay));
        add("STUN to the relay", RELAY_PORT, &request, Some(Next::Stun));
        add("STUN to the STUN port", STUN_PORT, &request, Some(Next::Stun));
        add("a STUN answer to the STUN port", STUN_PORT, &stun(0x0101), None);
        add("DISCO to the STUN port", STUN_PORT, &disco(100), None);
        add("STUN to port 0, where nothing is", 0, &request, None);
        add("STUN to another port", 3479, &request, None);
        let packet = ip(address(source), address(destination), TCP, &udp(5000, PORT, &disco(100)));
        cases.push(Dispatch { name: "the same bytes in TCP", packet, want: None });
    }
    let packet = ip(address("192.0.2.2"), address("192.0.2.1"), UDP, &udp(5000, PORT, &disco(100)));
    for (name, byte, value) in
        [("a first fragment", 6, 0x20), ("a later fragment", 7, 10), ("IPv4 options", 0, 0x46)]
    {
        let mut packet = packet.clone();
        packet[byte] = value;
        cases.push(Dispatch { name, packet, want: None });
    }
    cases
}

fn case(
    name: &'static str,
    source: &str,
    destination: &str,
    protocol: u8,
    payload: &[u8],
    want: Reason,
) -> Case {
    Case { name, packet: ip(address(source), address(destination), protocol, payload), want: Some(want) }
}

/// An address in a test.
pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is an address"))
}

/// A prefix in a test; an address is one of full length.
pub fn parse(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| IpNet::from(address(text)))
}
