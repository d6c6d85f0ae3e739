//! Which packets of an underlay are for the controller, which for another program, and which came by a detour.
//!
//! Fragments are none of these: the stack reassembles them, and neither DISCO nor STUN is ever that long.

use abi::{Arrival, Config, Next, Reason};

use crate::{Class, Datagram, Frame, arrival, classify, is_stun_request, relayed_vni};

/// The UDP ports on which this machine is something, in network order; zero: it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// WireGuard, DISCO and answers to our STUN requests.
    pub wireguard: [u8; 2],
    /// The peer relay: Geneve, and STUN.
    pub relay: [u8; 2],
    /// STUN alone.
    pub stun: [u8; 2],
    /// More ports that DISCO and WireGuard may arrive on, host order: the first, and how many.
    pub probes: (u16, u16),
}

impl Ports {
    /// Those of the loader's settings.
    #[inline(always)]
    pub const fn of(config: &Config) -> Self {
        Self {
            wireguard: config.wireguard_port,
            relay: config.relay_port,
            stun: config.stun_port,
            probes: (config.probe_first, config.probe_count),
        }
    }

    /// Whether what comes to this port may be WireGuard's or DISCO.
    #[inline(always)]
    pub fn are_wireguards(&self, port: [u8; 2]) -> bool {
        self.wireguard != [0; 2] && port == self.wireguard || self.are_probes(port)
    }

    /// Whether it is one of the ports besides WireGuard's own.
    #[inline(always)]
    pub const fn are_probes(&self, port: [u8; 2]) -> bool {
        u16::from_be_bytes(port).wrapping_sub(self.probes.0) < self.probes.1
    }
}

/// Why a datagram on an underlay is for the controller; `None` if it is not.
#[inline(always)]
pub fn for_controller(frame: &impl Frame, datagram: &Datagram, ports: &Ports) -> Option<Reason> {
    if !ports.are_wireguards(datagram.destination_port) {
        return None;
    }
    match classify(frame, datagram.payload, datagram.len) {
        Class::Disco => Some(Reason::Disco),
        Class::Stun => Some(Reason::Stun),
        Class::Geneve => Some(Reason::ThroughRelay),
        Class::WireGuard(_) | Class::WrongSize | Class::Other => None,
    }
}

/// The program a datagram is for; `None` leaves it to the stack.
#[inline(always)]
pub fn next(frame: &impl Frame, datagram: &Datagram, ports: &Ports) -> Option<Next> {
    let Datagram { destination_port, payload, len, .. } = *datagram;
    if destination_port == [0; 2] {
        None
    } else if destination_port == ports.wireguard {
        match classify(frame, payload, len) {
            Class::Disco => Some(Next::Disco),
            Class::Stun | Class::WireGuard(1 | 2) | Class::WrongSize => Some(Next::Shield),
            Class::WireGuard(_) | Class::Geneve | Class::Other => None,
        }
    } else if destination_port == ports.relay {
        Some(if is_stun_request(frame, payload, len) { Next::Stun } else { Next::Relay })
    } else if destination_port == ports.stun {
        is_stun_request(frame, payload, len).then_some(Next::Stun)
    } else {
        None
    }
}

/// What to look a datagram up by that may have come by a detour; `None` if it can not.
#[inline(always)]
pub fn detour(frame: &impl Frame, datagram: &Datagram, ports: &Ports) -> Option<Arrival> {
    let is_probe = ports.are_probes(datagram.destination_port);
    if !is_probe && !ports.are_wireguards(datagram.destination_port) {
        return None;
    }
    let vni = relayed_vni(frame, datagram);
    (is_probe || vni != 0).then(|| arrival(datagram, vni))
}
