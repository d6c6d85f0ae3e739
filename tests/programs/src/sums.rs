//! Checksums summed up again from the whole packet: what incremental ones are compared with.

use packet::proto::{ICMP, ICMPV6, TCP, UDP};

/// Where a packet's parts are.
struct Parts {
    is_v4: bool,
    protocol: u8,
    transport: usize,
    checksum: Option<usize>,
}

fn parts(packet: &[u8]) -> Parts {
    let is_v4 = packet[0] >> 4 == 4;
    let (protocol, transport) = match is_v4 {
        true => (packet[9], usize::from(packet[0] & 15) * 4),
        false if packet[6] == 44 => (packet[40], 48),
        false => (packet[6], 40),
    };
    let checksum = match protocol {
        TCP => Some(transport + 16),
        UDP => Some(transport + 6),
        ICMP | ICMPV6 => Some(transport + 2),
        _ => None,
    };
    Parts { is_v4, protocol, transport, checksum }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|two| u64::from(two[0]) << 8 | u64::from(two.get(1).copied().unwrap_or(0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn transport_sum(packet: &[u8], parts: &Parts) -> u16 {
    let payload = &packet[parts.transport..];
    let addresses = if parts.is_v4 { &packet[12..20] } else { &packet[8..40] };
    let pseudo = match parts.protocol {
        ICMP => 0,
        protocol => sum(addresses) + u64::from(protocol) + payload.len() as u64,
    };
    fold(pseudo + sum(payload))
}

/// The packet with every checksum filled in.
pub fn filled(mut packet: Vec<u8>) -> Vec<u8> {
    let parts = parts(&packet);
    if parts.is_v4 {
        packet[10..12].fill(0);
        let sum = fold(sum(&packet[..parts.transport]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    if let Some(at) = parts.checksum.filter(|at| at + 2 <= packet.len()) {
        packet[at..at + 2].fill(0);
        let sum = match transport_sum(&packet, &parts) {
            0 if parts.protocol == UDP => 0xffff,
            sum => sum,
        };
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Whether every checksum of a whole packet is right; a UDP checksum that is left out is.
pub fn are_right(packet: &[u8]) -> bool {
    let parts = parts(packet);
    let header = !parts.is_v4 || fold(sum(&packet[..parts.transport])) == 0;
    let Some(at) = parts.checksum else { return header };
    let is_left_out = parts.protocol == UDP && parts.is_v4 && packet[at..at + 2] == [0, 0];
    header && (is_left_out || transport_sum(packet, &parts) == 0)
}
