//! Forwarding without a copy: a packet sent and a packet received are laid out alike (type, length, a key, the packet), so
//! a server turns the one into the other where it lies.

use types::NodePublic;

use super::{Error, HEADER_LEN};

/// The type of a frame with a packet for a peer.
pub const SEND_PACKET: u8 = 0x04;
/// The type of a frame with a packet from a peer.
const RECV_PACKET: u8 = 0x05;
/// Header and key: what stands before the packet in both.
pub const KEYED_LEN: usize = HEADER_LEN + 32;

/// Type and body length of the frame that `bytes` begin with; `None` while the header is not all there.
///
/// # Errors
/// When it announces more than `limit` bytes: the stream is lost.
pub fn header(bytes: &[u8], limit: usize) -> Result<Option<(u8, usize)>, Error> {
    let Some(&[kind, a, b, c, d]) = bytes.first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > limit {
        return Err(Error::TooLong { kind, length, limit });
    }
    Ok(Some((kind, length)))
}

/// Turns one whole frame of type [`SEND_PACKET`] into what its destination is to read, a packet from `source`, and tells
/// the destination.
///
/// # Errors
/// When it is too short for a key; it is left as it was.
pub fn readdress(frame: &mut [u8], source: &NodePublic) -> Result<NodePublic, Error> {
    let key = frame.get_mut(HEADER_LEN..KEYED_LEN).ok_or(Error::Short("send"))?;
    let destination = NodePublic::from_bytes(*key.first_chunk().ok_or(Error::Short("send"))?);
    key.copy_from_slice(source.as_bytes());
    frame[0] = RECV_PACKET;
    Ok(destination)
}

/// The packet in a whole frame that [`readdress`] accepts or made.
pub fn packet(frame: &[u8]) -> &[u8] {
    frame.get(KEYED_LEN..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derp::Frame;

    #[test]
    fn a_sent_packet_becomes_a_received_one() {
        let (source, destination) = (NodePublic::from_bytes([1; 32]), NodePublic::from_bytes([2; 32]));
        let (mut frame, mut expected) = (Vec::new(), Vec::new());
        Frame::SendPacket { destination, packet: b"payload" }.encode(&mut frame);
        Frame::RecvPacket { source, packet: b"payload" }.encode(&mut expected);
        assert_eq!(header(&frame, 100), Ok(Some((SEND_PACKET, 39))));
        assert_eq!(readdress(&mut frame, &source), Ok(destination));
        assert_eq!((&frame, packet(&frame)), (&expected, &b"payload"[..]));
    }

    #[test]
    fn what_is_too_short_or_too_long_is_refused() {
        assert_eq!(header(&[4, 0, 0, 0], 100), Ok(None));
        assert!(matches!(header(&[4, 0, 0, 0, 101], 100), Err(Error::TooLong { length: 101, .. })));
        let mut short = [4, 0, 0, 0, 2, 7, 7];
        assert_eq!(readdress(&mut short, &NodePublic::default()), Err(Error::Short("send")));
        assert_eq!((short, packet(&short)), ([4, 0, 0, 0, 2, 7, 7], &[][..]));
    }
}
