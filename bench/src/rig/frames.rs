//! Frames to send: Ethernet, IPv4, UDP, checksums filled in; one head, and what differs between its flows.

use std::net::SocketAddrV4;

use anyhow::{Context as _, ensure};

use super::kernel::layout;

const ETHERNET: usize = 14;
const HEADERS: usize = ETHERNET + 20 + 8;

/// One packet of a flow.
pub(crate) struct Udp {
    pub(crate) source: SocketAddrV4,
    pub(crate) target: SocketAddrV4,
    pub(crate) payload: Vec<u8>,
}

/// What the generator sends, flow by flow in turns.
#[derive(Clone)]
pub(crate) struct Frames {
    /// The first flow's frame.
    pub(crate) frame: Vec<u8>,
    pub(crate) flows: Vec<layout::Flow>,
}

impl Frames {
    /// Frames from `link.0` to `link.1` (MAC addresses).
    ///
    /// # Errors
    /// Without packets, with more flows than the generator holds, or where the flows differ in more than the source port and
    /// the four bytes at [`layout::TAG`].
    pub(crate) fn new(
        link: ([u8; 6], [u8; 6]),
        packets: impl IntoIterator<Item = Udp>,
    ) -> anyhow::Result<Self> {
        let mut packets = packets.into_iter();
        let first = build(link, &packets.next().context("at least one flow")?)?;
        let mut flows = vec![flow(&first)];
        for packet in packets {
            let frame = build(link, &packet)?;
            flows.push(flow(&frame));
            let same = frame.len() == first.len() && masked(frame) == masked(first.clone());
            ensure!(same, "the flows differ in more than port and tag");
        }
        ensure!(flows.len() <= layout::FLOWS as usize, "{} flows are too many", flows.len());
        Ok(Self { frame: first, flows })
    }
}

fn build((from, to): ([u8; 6], [u8; 6]), packet: &Udp) -> anyhow::Result<Vec<u8>> {
    let length = u16::try_from(packet.payload.len() + 28).ok().filter(|length| *length <= 1500);
    let length = length.with_context(|| format!("{} bytes do not fit a frame", packet.payload.len()))?;
    ensure!(HEADERS + packet.payload.len() >= layout::TAG + 4, "the payload is too short to tell flows");
    let mut ip = [0; 20];
    ip[..2].copy_from_slice(&[0x45, 0]);
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[6..10].copy_from_slice(&[0x40, 0, 64, 17]);
    ip[12..16].copy_from_slice(&packet.source.ip().octets());
    ip[16..].copy_from_slice(&packet.target.ip().octets());
    let check = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&check);
    let [source, target] = [packet.source, packet.target].map(|address| address.port().to_be_bytes());
    let udp_length = (length - 20).to_be_bytes();
    let udp = [source, target, udp_length, [0, 0]].concat();
    let check = checksum(&[&ip[12..], &[0, 17], &udp_length, &udp, &packet.payload]);
    Ok([&to[..], &from, &[8, 0], &ip, &udp[..6], &check, &packet.payload].concat())
}

/// The Internet checksum of the concatenated parts, all but the last of even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

/// What [`layout::Flow`] holds of a frame.
fn flow(frame: &[u8]) -> layout::Flow {
    [34, 40, layout::TAG, layout::TAG + 2].map(|at| u16::from_ne_bytes([frame[at], frame[at + 1]]))
}

/// A frame without what flows may differ in.
fn masked(mut frame: Vec<u8>) -> Vec<u8> {
    for at in [34, 40, layout::TAG, layout::TAG + 2] {
        frame[at..at + 2].fill(0);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(port: u16, payload: &[u8]) -> Udp {
        Udp {
            source: SocketAddrV4::new([192, 0, 2, 2].into(), port),
            target: SocketAddrV4::new([192, 0, 2, 1].into(), 3478),
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn checksums_are_those_of_the_rfc() {
        let frames = Frames::new(([2; 6], [4; 6]), [packet(40_000, b"odd length")]).unwrap();
        assert_eq!(checksum(&[&frames.frame[14..34]]), [0, 0], "the header sums up to nothing");
        let udp = &frames.frame[34..];
        let length = u16::try_from(udp.len()).unwrap().to_be_bytes();
        assert_eq!(checksum(&[&frames.frame[26..34], &[0, 17], &length, udp]), [0, 0]);
        assert_eq!(
            checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]),
            [0x22, 0x0d],
            "RFC 1071, 3"
        );
    }

    #[test]
    fn flows_may_differ_in_port_and_tag_only() {
        let one = packet(1, &[0, 0, 0, 0, 1, 2, 3, 4, 9]);
        let two = packet(2, &[0, 0, 0, 0, 5, 6, 7, 8, 9]);
        assert_eq!(Frames::new(([2; 6], [4; 6]), [one, two]).unwrap().flows.len(), 2);
        let [one, other] = [packet(1, &[0; 9]), packet(2, &[0, 0, 0, 1, 0, 0, 0, 0, 0])];
        assert!(Frames::new(([2; 6], [4; 6]), [one, other]).is_err());
    }
}
