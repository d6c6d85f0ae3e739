//! Packets, built from the network header on.

use std::net::{IpAddr, SocketAddr};

/// An IP header for `payload` in the family of the addresses. No checksums: programs do not look at them.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = (20 + length).to_be_bytes();
            let head = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
            [&head[..], &source.octets(), &destination.octets(), payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = length.to_be_bytes();
            let head = [0x60, 0, 0, 0, high, low, protocol, 64];
            [&head[..], &source.octets(), &destination.octets(), payload].concat()
        }
        families => panic!("one family a packet: {families:?}"),
    }
}

/// A TCP header with these flags.
pub fn tcp(source_port: u16, destination_port: u16, flags: u8) -> Vec<u8> {
    let mut header = ports(source_port, destination_port);
    header.extend([0; 8]);
    header.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    header
}

/// A UDP header and its payload.
pub fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = ports(source_port, destination_port);
    header.extend((8 + payload.len() as u16).to_be_bytes());
    header.extend([0, 0]);
    header.extend(payload);
    header
}

/// A DISCO message of `len` bytes, as far as its first bytes go.
pub fn disco(len: usize) -> Vec<u8> {
    headed(&[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac], len)
}

/// A STUN binding response (`kind` 0x0101), request (0x0001) or anything else.
pub fn stun(kind: u16) -> Vec<u8> {
    let [high, low] = kind.to_be_bytes();
    headed(&[high, low, 0, 0, 0x21, 0x12, 0xa4, 0x42], 32)
}

/// A WireGuard message of this type and size.
pub fn wireguard(kind: u8, len: usize) -> Vec<u8> {
    headed(&[kind], len)
}

/// A Geneve header of this protocol and VNI, and what it carries (tailscale `net/packet/geneve.go`).
pub fn geneve(protocol: u16, vni: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend(protocol.to_be_bytes());
    bytes.extend((vni << 8).to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The packet behind an Ethernet header, as the kernel's test-run wants it.
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] =
        if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&[0; 12][..], &kind, packet].concat()
}

fn headed(head: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = head.to_vec();
    bytes.resize(len, 0);
    bytes
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

/// A datagram with all checksums right: time to live, sender, receiver, payload.
pub fn datagram(hops: u8, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let transport = udp(source.port(), destination.port(), payload);
    let mut packet = ip(source.ip(), destination.ip(), 17, &transport);
    packet[if source.is_ipv4() { 8 } else { 7 }] = hops;
    sum_up(&mut packet);
    packet
}

/// Writes the IPv4 and the UDP checksum of a packet without options, whatever was there.
pub fn sum_up(packet: &mut [u8]) {
    let (start, addresses) = if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let sum = !ones_complement(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        (20, 12..20)
    } else {
        (40, 8..40)
    };
    packet[start + 6..start + 8].fill(0);
    let sum = match !udp_sum(packet, start, addresses) {
        0 => 0xffff,
        sum => sum,
    };
    packet[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
}

/// Whether the checksums of a packet without options are right; a UDP checksum that is not there is right in IPv4.
pub fn is_summed_up(packet: &[u8]) -> bool {
    if packet[0] >> 4 == 4 {
        let unsummed = packet[26..28] == [0, 0];
        ones_complement(&packet[..20]) == 0xffff && (unsummed || udp_sum(packet, 20, 12..20) == 0xffff)
    } else {
        packet[46..48] != [0, 0] && udp_sum(packet, 40, 8..40) == 0xffff
    }
}

/// The sum of a datagram and its pseudo header.
fn udp_sum(packet: &[u8], start: usize, addresses: std::ops::Range<usize>) -> u16 {
    let length = usize::from(u16::from_be_bytes([packet[start + 4], packet[start + 5]]));
    let datagram = &packet[start..start + length];
    ones_complement(&[&packet[addresses], &[0, 17], &datagram[4..6], datagram].concat())
}

/// RFC 1071, as slowly as it is written there.
pub fn ones_complement(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from_be_bytes([0, 0, pair[0], *pair.get(1).unwrap_or(&0)]));
    words.fold(0, |sum, word| {
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    }) as u16
}

/// The packet behind an Ethernet header with these addresses.
pub fn framed(destination: [u8; 6], source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(packet);
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&source);
    frame
}

/// An address as programs see it.
pub fn address_of(ip: IpAddr) -> (abi::Family, abi::Address) {
    let mut octets = [0; 16];
    let family = match ip {
        IpAddr::V4(ip) => {
            octets[..4].copy_from_slice(&ip.octets());
            abi::Family::V4
        }
        IpAddr::V6(ip) => {
            octets = ip.octets();
            abi::Family::V6
        }
    };
    let mut words = [0; 4];
    for (word, four) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
    }
    (family, words)
}
