//! An address and port in 18 bytes: IPv6, or IPv4 mapped into IPv6, then the port, big endian.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub(super) const LEN: usize = 18;

pub(super) fn encode(address: SocketAddr, out: &mut Vec<u8>) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&address.port().to_be_bytes());
}

pub(super) fn decode(bytes: &[u8; LEN]) -> SocketAddr {
    let (ip, port) = bytes.split_first_chunk::<16>().expect("16 of 18 bytes");
    let port = u16::from_be_bytes([port[0], port[1]]);
    SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), port)
}

/// A list that fills `bytes` exactly; `None` when it does not.
pub(super) fn decode_list(bytes: &[u8]) -> Option<Vec<SocketAddr>> {
    let (entries, rest) = bytes.as_chunks::<LEN>();
    rest.is_empty().then(|| entries.iter().map(decode).collect())
}
