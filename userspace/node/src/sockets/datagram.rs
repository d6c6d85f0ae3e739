//! Builds a whole UDP datagram, IP header included, for the raw senders. Pure bytes.
//!
//! Headers are the plainest there are: no options, no fragments, hop limit 64, both checksums filled in (RFC 791, RFC 8200,
//! RFC 768). Deliberately not here: payloads longer than an underlay packet; DISCO and STUN never are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const HOP_LIMIT: u8 = 64;

/// The packet `source:source_port -> destination:destination_port` carrying `payload`, or `None` when the two addresses are
/// of different families or the payload does not fit a datagram.
pub(crate) fn build(
    (source, source_port): (IpAddr, u16),
    (destination, destination_port): (IpAddr, u16),
    payload: &[u8],
) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4_header(source, destination, length)?,
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6_header(source, destination, length),
        _ => return None,
    };
    let udp = packet.len();
    packet.extend_from_slice(&source_port.to_be_bytes());
    packet.extend_from_slice(&destination_port.to_be_bytes());
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    let pseudo_header = sum_address(source) + sum_address(destination) + u32::from(UDP) + u32::from(length);
    // An all-zero UDP checksum means "none"; its other form of zero is sent instead (RFC 768).
    let checksum = match fold(pseudo_header + sum(&packet[udp..])) {
        0 => 0xffff,
        checksum => checksum,
    };
    packet[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
    Some(packet)
}

fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr, udp_length: u16) -> Option<Vec<u8>> {
    let total = udp_length.checked_add(IPV4_HEADER as u16)?;
    let mut header = Vec::with_capacity(usize::from(total));
    header.extend_from_slice(&[0x45, 0]);
    header.extend_from_slice(&total.to_be_bytes());
    // Identification 0 is replaced by the kernel (raw(7)); don't fragment is not set, as for the kernel's own WireGuard.
    header.extend_from_slice(&[0, 0, 0, 0, HOP_LIMIT, UDP, 0, 0]);
    header.extend_from_slice(&source.octets());
    header.extend_from_slice(&destination.octets());
    let checksum = fold(sum(&header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    Some(header)
}

fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr, udp_length: u16) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend_from_slice(&udp_length.to_be_bytes());
    header.extend_from_slice(&[UDP, HOP_LIMIT]);
    header.extend_from_slice(&source.octets());
    header.extend_from_slice(&destination.octets());
    header
}

/// The checksum of a whole message (RFC 1071), for protocols without a pseudo header.
pub(super) fn checksum(message: &[u8]) -> u16 {
    fold(sum(message))
}

fn sum_address(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// The unfolded sum of big-endian 16-bit words; a last odd byte counts as if a zero followed (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
        build((source.parse().unwrap(), 41641), (destination.parse().unwrap(), 3478), payload).unwrap()
    }

    /// Bytes packed and summed by a few lines of Python, which share nothing with this file.
    #[test]
    fn ipv4_matches_an_independent_builder() {
        let golden = "450000210000000040111492c6336401cb007105a2a90d96000da28c646973636f";
        assert_eq!(hex(&packet("198.51.100.1", "203.0.113.5", b"disco")), golden);
    }

    #[test]
    fn ipv6_matches_an_independent_builder() {
        let golden = concat!(
            "60000000000d114020010db800000000000000000000000120010db8000000000000000000000002",
            "a2a90d96000dad52646973636f"
        );
        assert_eq!(hex(&packet("2001:db8::1", "2001:db8::2", b"disco")), golden);
    }

    #[test]
    fn a_receiver_sums_every_packet_to_zero() {
        for length in 0..64u8 {
            let payload: Vec<u8> = (0..length).collect();
            let packet = packet("192.0.2.1", "192.0.2.2", &payload);
            let addresses = sum(&packet[12..20]);
            let udp = &packet[20..];
            assert_eq!(fold(sum(&packet[..20])), 0);
            assert_eq!(fold(addresses + u32::from(UDP) + udp.len() as u32 + sum(udp)), 0);
        }
    }

    #[test]
    fn mixed_families_and_oversized_payloads_are_refused() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(build((v4, 1), (v6, 2), b""), None);
        assert_eq!(build((v4, 1), (v4, 2), &[0; 65_520]), None);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
