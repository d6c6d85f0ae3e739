//! What of a packet names its flow.

use abi::{Edge, Family, Session, SessionKey};

use crate::{Frame, Ip, Piece, proto};

/// Bits of TCP's flags.
pub const FIN: u8 = 1;
/// See [`FIN`].
pub const SYN: u8 = 2;
/// See [`FIN`].
pub const RST: u8 = 4;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// A packet's flow, and what it means to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// As the packet has it.
    pub key: SessionKey,
    /// TCP's flags, else zero.
    pub flags: u8,
}

/// The flow of a packet with a transport header; none for what has no ports and is no echo.
#[inline(always)]
pub fn tuple(ip: &Ip, frame: &impl Frame, edge: Edge) -> Option<Tuple> {
    let header = match ip.protocol {
        proto::TCP => 20,
        _ => 8,
    };
    if ip.piece == Piece::Later || !ip.holds(header) {
        return None;
    }
    let [first, second] = frame.words::<2>(ip.transport)?;
    let (source_port, destination_port) = ports(ip.protocol, ip.family, first, second)?;
    let flags = match ip.protocol {
        proto::TCP => {
            let [word] = frame.words::<1>(ip.transport + 12)?;
            (u32::from_be(word) >> 16) as u8
        }
        _ => 0,
    };
    let (source, destination) = (ip.source, ip.destination);
    let (protocol, family, edge) = (ip.protocol, ip.family as u8, edge as u8);
    let key =
        SessionKey { source, destination, source_port, destination_port, protocol, family, edge, zero: 0 };
    Some(Tuple { key, flags })
}

/// Both ports, from a transport header's first two words.
#[inline(always)]
pub(super) fn ports(protocol: u8, family: Family, first: u32, second: u32) -> Option<([u8; 2], [u8; 2])> {
    let [kind, code, high, low] = first.to_ne_bytes();
    let [i0, i1, _, _] = second.to_ne_bytes();
    match (protocol, family) {
        (proto::TCP | proto::UDP, _) => Some(([kind, code], [high, low])),
        (proto::ICMP, Family::V4) if kind == ECHO_REQUEST => Some(([i0, i1], [0; 2])),
        (proto::ICMP, Family::V4) if kind == ECHO_REPLY => Some(([0; 2], [i0, i1])),
        (proto::ICMPV6, Family::V6) if kind == ECHO_REQUEST_V6 => Some(([i0, i1], [0; 2])),
        (proto::ICMPV6, Family::V6) if kind == ECHO_REPLY_V6 => Some(([0; 2], [i0, i1])),
        _ => None,
    }
}

/// What answers look like at the LAN's edge to a session that looks like `key` at the tunnel's and becomes `session`.
#[inline(always)]
pub fn lan_key(key: &SessionKey, session: &Session) -> SessionKey {
    SessionKey {
        source: key.destination,
        destination: session.address,
        source_port: key.destination_port,
        destination_port: session.port,
        edge: Edge::Lan as u8,
        ..*key
    }
}

/// The key at the tunnel's edge of a session that looks like `key` at the LAN's and becomes `session`.
#[inline(always)]
pub fn tunnel_key(key: &SessionKey, session: &Session) -> SessionKey {
    SessionKey {
        source: session.address,
        destination: key.source,
        source_port: session.port,
        destination_port: key.source_port,
        edge: Edge::Tunnel as u8,
        ..*key
    }
}
