//! The compiler against a plain matcher that asks every rule, as Tailscale's does (`wgengine/filter/match.go`).

use std::net::IpAddr;

use abi::{Address, Family, FlowKey, PairKey, Reason};
use node_core::filter::{Destination, Rule};
use packet::{Bytes, Ip, Lookups, decide, proto};
use proptest::prelude::*;

use super::*;

/// The compiled tables as the program sees the kernel's maps.
struct Tables<'a>(&'a Compiled);

impl Tables<'_> {
    fn class(&self, side: Side, family: Family, address: Address) -> Option<u32> {
        let bytes: Vec<u8> = address.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let address: IpAddr = match family {
            Family::V4 => <[u8; 4]>::try_from(&bytes[..4]).unwrap().into(),
            Family::V6 => <[u8; 16]>::try_from(&bytes[..]).unwrap().into(),
        };
        self.0.class(side, address)
    }
}

impl Lookups for Tables<'_> {
    fn generation(&self) -> u32 {
        1
    }
    fn source_class(&self, _: u32, family: Family, address: Address) -> Option<u32> {
        self.class(Side::Source, family, address)
    }
    fn destination_class(&self, _: u32, family: Family, address: Address) -> Option<u32> {
        self.class(Side::Destination, family, address)
    }
    fn pair(&self, key: PairKey) -> Option<Span> {
        self.0.pairs.get(&(key.source, key.destination)).copied()
    }
    fn range(&self, position: u32) -> Option<PortRange> {
        self.0.ranges.get(position as usize).copied()
    }
    fn is_live(&self, _: &FlowKey) -> bool {
        false
    }
}

/// A packet that asks for something new: TCP SYN, UDP, echo request, or a protocol without ports.
#[derive(Clone, Debug)]
struct Asks {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    port: u16,
}

impl Asks {
    fn packet(&self) -> Vec<u8> {
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let head = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, self.protocol, 0, 0];
                [&head[..], &source.octets(), &destination.octets()].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let head = [0x60, 0, 0, 0, 0, 20, self.protocol, 64];
                [&head[..], &source.octets(), &destination.octets()].concat()
            }
            families => panic!("one family a packet: {families:?}"),
        };
        let mut transport = [0; 20];
        match self.protocol {
            proto::ICMP => transport[0] = 8,
            proto::ICMPV6 => transport[0] = 128,
            _ => {
                transport[2..4].copy_from_slice(&self.port.to_be_bytes());
                transport[13] = 2;
            }
        }
        packet.extend(transport);
        packet
    }

    /// What the tables make of it.
    fn judged_by(&self, compiled: &Compiled) -> Reason {
        let packet = self.packet();
        let ip = Ip::parse(&Bytes(&packet)).unwrap();
        decide(&ip, &Bytes(&packet), &Tables(compiled))
    }

    /// What every rule, asked one after the other, makes of it.
    fn expected(&self, filter: &Filter) -> Reason {
        if !filter.local.iter().any(|net| net.contains(&self.destination)) {
            return Reason::NotLocal;
        }
        let opens = |rule: &Rule, d: &Destination| match self.protocol {
            proto::ICMP | proto::ICMPV6 => true,
            proto::TCP | proto::UDP | proto::SCTP => {
                rule.protocols.contains(&self.protocol) && d.ports.contains(&self.port)
            }
            _ => rule.protocols.contains(&self.protocol) && d.ports == (0..=u16::MAX),
        };
        let allowed = !filter.shields_up
            && filter.rules.iter().any(|rule| {
                rule.sources.iter().any(|net| net.contains(&self.source))
                    && rule.destinations.iter().any(|d| d.net.contains(&self.destination) && opens(rule, d))
            });
        if allowed { Reason::Rule } else { Reason::Acl }
    }
}

fn net() -> impl Strategy<Value = IpNet> {
    // Few distinct prefixes, so that they nest, repeat and touch.
    prop_oneof![
        (0_u8..4, 0_u8..4, prop::sample::select(vec![0, 8, 16, 24, 30, 31, 32]))
            .prop_map(|(a, b, bits)| { IpNet::new(IpAddr::from([10, a, 0, b]), bits).unwrap().trunc() }),
        (0_u16..4, 0_u16..4, prop::sample::select(vec![0, 16, 48, 112, 127, 128])).prop_map(
            |(a, b, bits)| { IpNet::new(IpAddr::from([0xfd7a, a, 0, 0, 0, 0, 0, b]), bits).unwrap().trunc() }
        ),
    ]
}

fn protocol() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![proto::TCP, proto::UDP, proto::SCTP, proto::ICMP, proto::ICMPV6, 47])
}

fn ports() -> impl Strategy<Value = std::ops::RangeInclusive<u16>> {
    prop_oneof![Just(0..=u16::MAX), (0_u16..8, 0_u16..4).prop_map(|(first, more)| first..=first + more)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let destination = (net(), ports()).prop_map(|(net, ports)| Destination { net, ports });
    (
        prop::collection::vec(protocol(), 1..3),
        prop::collection::vec(net(), 1..4),
        prop::collection::vec(destination, 1..4),
    )
        .prop_map(|(protocols, sources, destinations)| Rule { protocols, sources, destinations })
}

fn filter() -> impl Strategy<Value = Filter> {
    (prop::collection::vec(net(), 0..4), prop::collection::vec(rule(), 0..8), prop::bool::weighted(0.1))
        .prop_map(|(local, rules, shields_up)| Filter { local, rules, shields_up })
}

fn asks() -> impl Strategy<Value = Asks> {
    let v4 = || (0_u8..5, 0_u8..5).prop_map(|(a, b)| IpAddr::from([10, a, 0, b]));
    let v6 = || (0_u16..5, 0_u16..5).prop_map(|(a, b)| IpAddr::from([0xfd7a, a, 0, 0, 0, 0, 0, b]));
    let ends = prop_oneof![(v4(), v4()), (v6(), v6())];
    (ends, protocol(), 0_u16..12).prop_map(|((source, destination), protocol, port)| {
        // The other family's ICMP is just a protocol without ports there; Tailscale's default branch, tested apart.
        let protocol = match (protocol, source.is_ipv4()) {
            (proto::ICMP, false) => proto::ICMPV6,
            (proto::ICMPV6, true) => proto::ICMP,
            other => other.0,
        };
        Asks { source, destination, protocol, port }
    })
}

proptest! {
    #[test]
    fn tables_and_rules_agree(filter in filter(), packets in prop::collection::vec(asks(), 1..40)) {
        let compiled = compile(&filter).unwrap();
        for asks in packets {
            prop_assert_eq!(asks.judged_by(&compiled), asks.expected(&filter), "{:?}", asks);
        }
    }
}

fn nets(text: &[&str]) -> Vec<IpNet> {
    text.iter().map(|net| net.parse().unwrap()).collect()
}

fn allow(source: &str, destination: &str, ports: std::ops::RangeInclusive<u16>) -> Rule {
    Rule {
        protocols: vec![proto::TCP, proto::UDP],
        sources: nets(&[source]),
        destinations: vec![Destination { net: destination.parse().unwrap(), ports }],
    }
}

#[test]
fn peers_with_the_same_rules_share_a_class() {
    let hosts: Vec<String> = (1..=200).map(|n| format!("100.64.0.{n}/32")).collect();
    let sources = nets(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let rules = vec![Rule { sources, ..allow("0.0.0.0/0", "100.64.1.1/32", 22..=22) }];
    let compiled = compile(&Filter { local: nets(&["100.64.1.1/32"]), rules, shields_up: false }).unwrap();
    assert_eq!((compiled.pairs.len(), compiled.ranges.len()), (1, 2), "one range of TCP, one of UDP");
}

#[test]
fn ranges_that_touch_are_joined() {
    let rules = (0..1000).map(|port| allow("100.64.0.0/10", "100.64.1.1/32", port..=port)).collect();
    let compiled = compile(&Filter { local: nets(&["100.64.1.1/32"]), rules, shields_up: false }).unwrap();
    assert_eq!(compiled.ranges.len(), 2, "one range of TCP, one of UDP");
}

/// The `n`th address, without a pattern that prefixes could gather.
fn host(n: u32) -> String {
    let [_, b, c, d] = n.to_be_bytes();
    format!("10.{b}.{c}.{d}/32")
}

#[test]
fn senders_that_may_do_the_same_share_a_class_whatever_the_rules() {
    let rules = (0..10_000).map(|n| allow(&host(n), "100.64.1.1/32", 22..=22)).collect();
    let compiled = compile(&Filter { local: nets(&["100.64.1.1/32"]), rules, shields_up: false }).unwrap();
    assert_eq!((compiled.classes.len(), compiled.pairs.len()), (10_001, 1));
}

#[test]
fn rules_for_others_leave_nothing_behind() {
    let rules = (0..100).map(|n| allow(&host(n), "100.64.1.2/32", 22..=22)).collect();
    let compiled = compile(&Filter { local: nets(&["100.64.1.1/32"]), rules, shields_up: false }).unwrap();
    assert_eq!((compiled.classes.len(), compiled.pairs.len()), (1, 0));
}

#[test]
fn a_filter_over_a_limit_is_refused_and_says_which() {
    let check = |rules: Vec<Rule>, what: &str| {
        let refused =
            compile(&Filter { local: nets(&["100.64.1.0/24"]), rules, shields_up: false }).unwrap_err();
        assert!(refused.to_string().contains(what), "{refused}");
    };
    let many = 0..MAX_PREFIXES + 1;
    check(many.map(|n| allow(&host(n), "100.64.1.1/32", 22..=22)).collect(), "address prefixes");
    // Ports that never touch, other ones for every sender.
    let ports = |n: u16| (0..400).map(move |m| (n + m * 160)..=(n + m * 160));
    let scattered = (0..200).map(|n| Rule {
        destinations: ports(n as u16 % 150)
            .chain([n as u16..=n as u16])
            .map(|ports| Destination { net: "100.64.1.1/32".parse().unwrap(), ports })
            .collect(),
        ..allow(&host(n), "100.64.1.1/32", 22..=22)
    });
    check(scattered.collect(), "port ranges");
}
