//! What `from_tunnel` costs a packet, by the number of rules: the kernel's own test-run, without a device.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dataplane::{Error, Program, Programs};
use ipnet::IpNet;
use node_core::filter::{Destination, Filter, Rule};
use packet::proto::{TCP, UDP};

use crate::packets::{ethernet, ip, tcp};

/// How the rules differ from each other, so that no shape is flattered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each rule lets one peer reach one port of ours.
    Peers,
    /// Each rule lets one peer's subnet reach a port of a host in a subnet that we route.
    Subnets,
    /// Each rule lets everybody reach another port of ours.
    Ports,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 3] = [Self::Peers, Self::Subnets, Self::Ports];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Subnets => "subnets",
            Self::Ports => "ports",
        }
    }

    /// `count` rules, and a SYN that the last one allows: the whole depth of the port search.
    fn rules(self, count: u32) -> (Vec<Rule>, Vec<u8>) {
        let rules = (0..count).map(|n| self.rule(n)).collect();
        let (source, destination, port) = self.example(count - 1);
        (rules, ip(source.into(), destination.into(), TCP, &tcp(40_000, port, 0x02)))
    }

    fn rule(self, n: u32) -> Rule {
        let (source, destination, port) = self.example(n);
        let source = match self {
            Self::Peers => IpNet::from(IpAddr::V4(source)),
            Self::Subnets => net(source, 24),
            Self::Ports => net(Ipv4Addr::UNSPECIFIED, 0),
        };
        let destination = Destination { net: IpNet::from(IpAddr::V4(destination)), ports: port..=port };
        Rule { protocols: vec![TCP, UDP], sources: vec![source], destinations: vec![destination] }
    }

    /// A packet that rule `n` allows: sender, receiver, port.
    fn example(self, n: u32) -> (Ipv4Addr, Ipv4Addr, u16) {
        let port = 1 + (n * 2 % 60_000) as u16;
        match self {
            Self::Peers => (Ipv4Addr::from(0x6440_0000 + n), OWN, port),
            Self::Subnets => (Ipv4Addr::from(0x0a00_0007 + (n << 8)), Ipv4Addr::from(0xac10_0000 + n), port),
            Self::Ports => (Ipv4Addr::new(100, 64, 0, 9), OWN, port),
        }
    }
}

const OWN: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 1);

fn net(address: Ipv4Addr, bits: u8) -> IpNet {
    IpNet::new(address.into(), bits).expect("a valid length").trunc()
}

/// The mean time a packet takes in `from_tunnel` under `count` rules: the least of `runs` runs of `repeat` packets each,
/// since other work on the machine only ever adds.
///
/// # Errors
/// When the filter or the run is refused.
pub fn from_tunnel(
    programs: &mut Programs,
    shape: Shape,
    count: u32,
    runs: u32,
    repeat: u32,
) -> Result<Duration, Error> {
    let (rules, packet) = shape.rules(count);
    let local = vec![IpNet::from(IpAddr::V4(OWN)), net(Ipv4Addr::new(172, 16, 0, 0), 12)];
    programs.install(&Filter { local, rules, shields_up: false })?;
    measure(programs, Program::FromTunnel, &packet, runs, repeat)
}

/// The mean time of one packet (from its IP header on) in one program.
///
/// # Errors
/// When the run is refused.
pub fn measure(
    programs: &Programs,
    program: Program,
    packet: &[u8],
    runs: u32,
    repeat: u32,
) -> Result<Duration, Error> {
    let frame = ethernet(packet);
    let mut best = Duration::MAX;
    for _ in 0..runs {
        best = best.min(programs.test_run(program, &frame, repeat)?.1);
    }
    Ok(best)
}
