//! Packets, built from the network header on.

use std::net::IpAddr;

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
