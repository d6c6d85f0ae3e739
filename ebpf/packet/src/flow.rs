//! Flows that we start: what is remembered on the way out, and what a reply to it looks like.

use abi::FlowKey;

use crate::{Frame, Ip, Piece, proto};

/// The flow an outbound packet belongs to, if replies to it need remembering: UDP and SCTP. TCP replies pass by their
/// flags, ICMP replies by their type.
#[inline(always)]
pub fn outbound(ip: &Ip, frame: &impl Frame) -> Option<FlowKey> {
    if !matches!(ip.protocol, proto::UDP | proto::SCTP) || ip.piece == Piece::Later || !ip.holds(8) {
        return None;
    }
    let [ports] = frame.words::<1>(ip.transport)?;
    let [l0, l1, r0, r1] = ports.to_ne_bytes();
    Some(FlowKey {
        local: ip.source,
        remote: ip.destination,
        local_port: [l0, l1],
        remote_port: [r0, r1],
        protocol: ip.protocol,
        family: ip.family as u8,
        zero: 0,
    })
}

/// The flow an inbound packet would be a reply of.
#[inline(always)]
pub const fn reply_of(ip: &Ip, source_port: [u8; 2], destination_port: [u8; 2]) -> FlowKey {
    FlowKey {
        local: ip.destination,
        remote: ip.source,
        local_port: destination_port,
        remote_port: source_port,
        protocol: ip.protocol,
        family: ip.family as u8,
        zero: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;

    #[test]
    fn a_reply_has_the_key_of_the_packet_it_answers() {
        let mut out = [0; 28];
        out[..10].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, proto::UDP]);
        out[12..24].copy_from_slice(&[100, 64, 0, 1, 100, 64, 0, 2, 0x30, 0x39, 0, 53]);
        let ip = Ip::parse(&Bytes(&out)).unwrap();
        let sent = outbound(&ip, &Bytes(&out)).unwrap();

        let answer = Ip { source: ip.destination, destination: ip.source, ..ip };
        assert_eq!(reply_of(&answer, [0, 53], [0x30, 0x39]), sent);
        assert_ne!(reply_of(&answer, [0, 54], [0x30, 0x39]), sent);
    }

    #[test]
    fn only_protocols_with_replies_to_remember_open_a_flow() {
        let mut out = [0; 28];
        for (protocol, remembered) in
            [(proto::UDP, true), (proto::SCTP, true), (proto::TCP, false), (47, false)]
        {
            out[..10].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol]);
            let ip = Ip::parse(&Bytes(&out)).unwrap();
            assert_eq!(outbound(&ip, &Bytes(&out)).is_some(), remembered, "protocol {protocol}");
        }
    }
}
