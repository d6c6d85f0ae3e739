//! Which packets of an underlay are for the controller, and which for another program.

use abi::{Next, Reason};

use crate::{Class, Datagram, Frame, classify, is_stun_request};

/// A datagram for the controller: addresses and ports are needed to find its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it came from and where it goes.
    pub datagram: Datagram,
    /// [`Reason::Disco`], [`Reason::Stun`] or [`Reason::ThroughRelay`].
    pub reason: Reason,
}

/// Says whether a packet on an underlay is one for the controller. Fragments are not: the stack reassembles them, and
/// neither DISCO nor STUN is ever that long.
#[inline(always)]
pub fn for_controller(frame: &impl Frame, wireguard_port: [u8; 2]) -> Option<Found> {
    let datagram = Datagram::parse(frame)?;
    if datagram.destination_port != wireguard_port {
        return None;
    }
    let reason = match classify(frame, datagram.payload, datagram.len) {
        Class::Disco => Reason::Disco,
        Class::Stun => Reason::Stun,
        Class::Geneve => Reason::ThroughRelay,
        Class::WireGuard(_) | Class::WrongSize | Class::Other => return None,
    };
    Some(Found { datagram, reason })
}

/// The UDP ports on which this machine is something, in network order; zero: it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// WireGuard, DISCO and answers to our STUN requests.
    pub wireguard: [u8; 2],
    /// The peer relay: Geneve, and STUN.
    pub relay: [u8; 2],
    /// STUN alone.
    pub stun: [u8; 2],
}

/// The program a packet is for; `None` leaves it to the stack.
#[inline(always)]
pub fn next(frame: &impl Frame, ports: &Ports) -> Option<(Datagram, Next)> {
    let datagram = Datagram::parse(frame)?;
    let Datagram { destination_port, payload, len, .. } = datagram;
    if destination_port == [0; 2] {
        return None;
    }
    let next = if destination_port == ports.wireguard {
        match classify(frame, payload, len) {
            Class::Disco => Next::Disco,
            Class::Stun | Class::WireGuard(1 | 2) | Class::WrongSize => Next::Shield,
            Class::WireGuard(_) | Class::Geneve | Class::Other => return None,
        }
    } else if destination_port == ports.relay {
        if is_stun_request(frame, payload, len) { Next::Stun } else { Next::Relay }
    } else if destination_port == ports.stun {
        is_stun_request(frame, payload, len).then_some(Next::Stun)?
    } else {
        return None;
    };
    Some((datagram, next))
}
