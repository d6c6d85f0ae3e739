//! NATs by how they map and filter (RFC 4787), with mappings that die after 30 s without a packet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const LIFETIME: Duration = Duration::from_secs(30);

/// On what of the other side a mapping, or the right to come in by it, depends (RFC 4787, sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dependence {
    Nothing,
    Address,
    AddressAndPort,
}

impl Dependence {
    pub(crate) const ALL: [Self; 3] = [Self::Nothing, Self::Address, Self::AddressAndPort];

    fn same(self, a: SocketAddr, b: SocketAddr) -> bool {
        match self {
            Self::Nothing => true,
            Self::Address => a.ip() == b.ip(),
            Self::AddressAndPort => a == b,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No NAT: the host has the public address itself.
    None,
    Nat {
        mapping: Dependence,
        filtering: Dependence,
        hairpin: bool,
    },
    /// UDP is dropped in both directions.
    Blocked,
}

impl Kind {
    /// One mapping for all destinations, open for everybody.
    pub(crate) const EASY: Self = Self::nat(Dependence::Nothing, Dependence::Nothing);
    /// One mapping for all destinations, open for those sent to.
    pub(crate) const PORT_RESTRICTED: Self = Self::nat(Dependence::Nothing, Dependence::AddressAndPort);
    /// A mapping for each destination, open for that one.
    pub(crate) const HARD: Self = Self::nat(Dependence::AddressAndPort, Dependence::AddressAndPort);

    pub(crate) const fn nat(mapping: Dependence, filtering: Dependence) -> Self {
        Self::Nat { mapping, filtering, hairpin: false }
    }
}

#[derive(Clone, Debug)]
struct Mapping {
    public_port: u16,
    inside: SocketAddr,
    /// Whom it was used for, and when last.
    sent_to: BTreeMap<SocketAddr, Instant>,
}

#[derive(Clone, Debug)]
pub(crate) struct Nat {
    pub(crate) kind: Kind,
    public_ip: IpAddr,
    next_port: u16,
    mappings: Vec<Mapping>,
}

impl Nat {
    pub(crate) fn new(kind: Kind, public_ip: IpAddr, first_port: u16) -> Self {
        Self { kind, public_ip, next_port: first_port, mappings: Vec::new() }
    }

    /// As a router's restart: later packets get new mappings.
    pub(crate) fn forget(&mut self) {
        self.mappings.clear();
    }

    pub(crate) fn public_ip(&self) -> IpAddr {
        self.public_ip
    }

    pub(crate) fn hairpins(&self) -> bool {
        matches!(self.kind, Kind::Nat { hairpin: true, .. })
    }

    /// What a packet's source looks like outside.
    pub(crate) fn outbound(
        &mut self,
        inside: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        let by = match self.kind {
            Kind::None => return Some(inside),
            Kind::Blocked => return None,
            Kind::Nat { mapping, .. } => mapping,
        };
        self.sweep(now);
        let fits =
            |m: &&mut Mapping| m.inside == inside && m.sent_to.keys().next().is_some_and(|a| by.same(*a, to));
        let mapping = match self.mappings.iter_mut().find(fits) {
            Some(mapping) => mapping,
            None => {
                self.next_port += 1;
                let (public_port, sent_to) = (self.next_port, BTreeMap::new());
                self.mappings.push(Mapping { public_port, inside, sent_to });
                self.mappings.last_mut().unwrap()
            }
        };
        mapping.sent_to.insert(to, now);
        Some(SocketAddr::new(self.public_ip, mapping.public_port))
    }

    /// Who inside gets a packet, if anybody.
    pub(crate) fn inbound(&mut self, from: SocketAddr, to: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let by = match self.kind {
            Kind::None => return Some(to),
            Kind::Blocked => return None,
            Kind::Nat { filtering, .. } => filtering,
        };
        self.sweep(now);
        let mapping = self.mappings.iter_mut().find(|m| m.public_port == to.port())?;
        let mut known = mapping.sent_to.iter_mut().filter(|(known, _)| by.same(**known, from)).peekable();
        known.peek()?;
        // What comes in keeps a mapping open (RFC 4787, section 4.3, allows it).
        known.for_each(|(_, at)| *at = now);
        Some(mapping.inside)
    }

    fn sweep(&mut self, now: Instant) {
        for mapping in &mut self.mappings {
            mapping.sent_to.retain(|_, at| now < *at + LIFETIME);
        }
        self.mappings.retain(|mapping| !mapping.sent_to.is_empty());
    }
}
