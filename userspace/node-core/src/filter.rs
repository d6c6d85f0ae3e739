//! The packet filter as the data plane enforces it: the netmap's rules, resolved to prefixes.
//!
//! Pure values. The netmap makes them from the wire's `FilterRule`; `dataplane` compiles them to kernel maps. Deliberately
//! not here: reply flows, fragments and ICMP exceptions, which are the same for every filter and live in the program.

use std::ops::RangeInclusive;

use ipnet::IpNet;

/// Everything a node lets in from its tunnel. An empty rule list lets nothing in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Inbound destinations that are ours: own addresses and advertised routes. Nothing else is accepted.
    pub local: Vec<IpNet>,
    /// What peers may start, in the server's order (the order does not matter: rules only allow).
    pub rules: Vec<Rule>,
    /// Refuse every inbound connection whatever the rules say (`ShieldsUp`).
    pub shields_up: bool,
}

/// "These sources may reach these destinations with these protocols."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// IANA protocol numbers; never empty.
    pub protocols: Vec<u8>,
    /// Prefixes of the packet's source.
    pub sources: Vec<IpNet>,
    /// Prefixes and ports of the packet's destination.
    pub destinations: Vec<Destination>,
}

/// Where a rule lets packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Prefix of the packet's destination.
    pub net: IpNet,
    /// Ports, for protocols that have them; `0..=65535` for any, which protocols without ports demand.
    pub ports: RangeInclusive<u16>,
}
