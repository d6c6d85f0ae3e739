//! NATs by how they map and filter (RFC 4787), with mappings that die after 30 s without a packet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const LIFETIME: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No NAT: the host has the public address itself.
    None,
    /// One mapping for all destinations, open for everybody.
    Easy,
    /// One mapping for all destinations, open for those sent to.
    PortRestricted,
    /// A mapping for each destination, open for that one.
    Hard,
    /// UDP is dropped in both directions.
    Blocked,
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

    /// The host's address as the Internet knows it; the port is not meant.
    pub(crate) fn public(&self, inside: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.public_ip, inside.port())
    }

    /// What a packet's source looks like outside.
    pub(crate) fn outbound(
        &mut self,
        inside: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        match self.kind {
            Kind::None => return Some(inside),
            Kind::Blocked => return None,
            Kind::Easy | Kind::PortRestricted | Kind::Hard => self.sweep(now),
        }
        let hard = self.kind == Kind::Hard;
        let fits = |m: &&mut Mapping| m.inside == inside && (!hard || m.sent_to.contains_key(&to));
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
        match self.kind {
            Kind::None => return Some(to),
            Kind::Blocked => return None,
            Kind::Easy | Kind::PortRestricted | Kind::Hard => self.sweep(now),
        }
        let open = self.kind == Kind::Easy;
        let mapping = self.mappings.iter_mut().find(|m| m.public_port == to.port())?;
        if !open && !mapping.sent_to.contains_key(&from) {
            return None;
        }
        mapping.sent_to.insert(from, now);
        Some(mapping.inside)
    }

    fn sweep(&mut self, now: Instant) {
        for mapping in &mut self.mappings {
            mapping.sent_to.retain(|_, at| now < *at + LIFETIME);
        }
        self.mappings.retain(|mapping| !mapping.sent_to.is_empty());
    }
}
