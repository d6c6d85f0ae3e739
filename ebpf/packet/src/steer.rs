//! Which packets of an underlay are for the controller.

use abi::{Family, Reason};

use crate::{Class, Frame, Ip, Piece, classify, proto};

/// A datagram for the controller: addresses and ports are needed to find its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The network header.
    pub ip: Ip,
    /// Source port, network order.
    pub source_port: [u8; 2],
    /// [`Reason::Disco`] or [`Reason::Stun`].
    pub reason: Reason,
}

/// Says whether a packet on an underlay is one for the controller. Fragments are not: the stack reassembles them, and
/// neither DISCO nor STUN is ever that long.
#[inline(always)]
pub fn for_controller(frame: &impl Frame, wireguard_port: [u8; 2]) -> Option<Found> {
    let ip = Ip::parse(frame).ok()?;
    if ip.protocol != proto::UDP || ip.piece != Piece::Whole || !ip.holds(8) {
        return None;
    }
    // An extension-less header is all we ever steer; IPv4 options are left to the stack.
    if ip.family == Family::V4 && ip.transport != 20 {
        return None;
    }
    let [ports, length] = frame.words::<2>(ip.transport)?;
    let ports = ports.to_ne_bytes();
    if [ports[2], ports[3]] != wireguard_port {
        return None;
    }
    let length = (u32::from_be(length) >> 16) as usize;
    if length < 8 || !ip.holds(length) {
        return None;
    }
    let reason = match classify(frame, ip.transport + 8, length - 8) {
        Class::Disco => Reason::Disco,
        Class::Stun => Reason::Stun,
        Class::WireGuard(_) | Class::Other => return None,
    };
    Some(Found { ip, source_port: [ports[0], ports[1]], reason })
}
