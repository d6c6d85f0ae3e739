//! The compiled filter as the program sees the kernel's maps, for judging on the host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use abi::{Address, Family, FlowKey, PairKey, PortRange, Reason, Side, Span};
use dataplane::Compiled;
use packet::{Bytes, Ip, Lookups, decide, outbound};

/// A filter in force and the flows seen.
pub struct Tables {
    /// The filter.
    pub compiled: Compiled,
    flows: BTreeSet<FlowKey>,
}

impl Tables {
    /// A filter that has seen no packet.
    pub fn new(compiled: Compiled) -> Self {
        Self { compiled, flows: BTreeSet::new() }
    }

    /// What `from_tunnel` makes of a packet.
    pub fn from_tunnel(&self, packet: &[u8]) -> Reason {
        match Ip::parse(&Bytes(packet)) {
            Ok(ip) => decide(&ip, &Bytes(packet), self),
            Err(reason) => reason,
        }
    }

    /// What `into_tunnel` remembers of a packet.
    pub fn into_tunnel(&mut self, packet: &[u8]) {
        if let Ok(ip) = Ip::parse(&Bytes(packet)) {
            self.flows.extend(outbound(&ip, &Bytes(packet)));
        }
    }

    fn class(&self, side: Side, family: Family, address: Address) -> Option<u32> {
        let octets = address.map(u32::to_ne_bytes).concat();
        let address: IpAddr = match family {
            Family::V4 => <[u8; 4]>::try_from(&octets[..4]).ok()?.into(),
            Family::V6 => <[u8; 16]>::try_from(&octets[..]).ok()?.into(),
        };
        self.compiled.class(side, address)
    }
}

impl Lookups for Tables {
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
        self.compiled.pairs.get(&(key.source, key.destination)).copied()
    }
    fn range(&self, position: u32) -> Option<PortRange> {
        self.compiled.ranges.get(position as usize).copied()
    }
    fn is_live(&self, flow: &FlowKey) -> bool {
        self.flows.contains(flow)
    }
}
