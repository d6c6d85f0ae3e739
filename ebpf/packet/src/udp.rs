//! A UDP datagram that lies whole in one packet.

use crate::{Frame, Ip, Piece, proto};
use abi::Family;

/// Where a datagram's ports and payload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The network header.
    pub ip: Ip,
    /// Network order.
    pub source_port: [u8; 2],
    /// Network order.
    pub destination_port: [u8; 2],
    /// Offset of the payload, in bytes from the network header.
    pub payload: usize,
    /// Bytes of payload, as the UDP header says; the packet holds them.
    pub len: usize,
}

impl Datagram {
    /// Finds the datagram, or `None`: not UDP, a fragment, IPv4 options, IPv6 extension headers, lengths that contradict
    /// each other. The stack knows what to do with those.
    #[inline(always)]
    pub fn parse(frame: &impl Frame) -> Option<Self> {
        let ip = Ip::parse(frame).ok()?;
        if ip.protocol != proto::UDP || ip.piece != Piece::Whole || !ip.holds(8) {
            return None;
        }
        // Constants from here on, which is what lets the verifier follow.
        let transport = match (ip.family, ip.transport) {
            (Family::V4, 20) => 20,
            (Family::V6, 40) => 40,
            _ => return None,
        };
        let [ports, length] = frame.words::<2>(transport)?;
        let [s0, s1, d0, d1] = ports.to_ne_bytes();
        let length = (u32::from_be(length) >> 16) as usize;
        if length < 8 || !ip.holds(length) {
            return None;
        }
        let (payload, len) = (transport + 8, length - 8);
        Some(Self { ip, source_port: [s0, s1], destination_port: [d0, d1], payload, len })
    }
}
