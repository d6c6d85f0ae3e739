//! Attributes: type (2), length (2), value, padded to four bytes (RFC 5389 section 15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Error, MAGIC_COOKIE, TxId};

pub(super) const MAPPED_ADDRESS: u16 = 0x0001;
pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Not in the RFC: XOR-MAPPED-ADDRESS in the comprehension-optional range, which servers do send.
pub(super) const XOR_MAPPED_ADDRESS_ALTERNATE: u16 = 0x8020;
pub(super) const SOFTWARE: u16 = 0x8022;
pub(super) const FINGERPRINT: u16 = 0x8028;

/// Every attribute of a message's body in order; the last item is an error when the body is cut.
pub(super) fn iter(mut body: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Error>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let attribute = split(body);
        body = attribute.map_or(&[], |(_, rest)| rest);
        Some(attribute.map(|(attribute, _)| attribute))
    })
}

type Attribute<'a> = (u16, &'a [u8]);

fn split(body: &[u8]) -> Result<(Attribute<'_>, &[u8]), Error> {
    let (&[k0, k1, l0, l1], rest) = body.split_first_chunk().ok_or(Error::Attributes)?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let (padded, rest) = rest.split_at_checked(length.next_multiple_of(4)).ok_or(Error::Attributes)?;
    Ok(((u16::from_be_bytes([k0, k1]), &padded[..length]), rest))
}

/// A MAPPED-ADDRESS (section 15.1).
pub(super) fn decode_address(value: &[u8]) -> Result<SocketAddr, Error> {
    let (&[_, family, p0, p1], address) = value.split_first_chunk().ok_or(Error::Attributes)?;
    let ip = match family {
        1 => address.first_chunk::<4>().map(|a| IpAddr::from(Ipv4Addr::from(*a))),
        2 => address.first_chunk::<16>().map(|a| IpAddr::from(Ipv6Addr::from(*a))),
        _ => None,
    };
    Ok(SocketAddr::new(ip.ok_or(Error::Attributes)?, u16::from_be_bytes([p0, p1])))
}

/// What XOR-MAPPED-ADDRESS does to an address, in both directions (section 15.2).
pub(super) fn xor(address: SocketAddr, tx_id: TxId) -> SocketAddr {
    let mask = [&MAGIC_COOKIE[..], &tx_id.0].concat();
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::from(apply(ip.octets(), &mask)),
        IpAddr::V6(ip) => IpAddr::from(apply(ip.octets(), &mask)),
    };
    SocketAddr::new(ip, address.port() ^ u16::from_be_bytes([MAGIC_COOKIE[0], MAGIC_COOKIE[1]]))
}

fn apply<const N: usize>(mut octets: [u8; N], mask: &[u8]) -> [u8; N] {
    octets.iter_mut().zip(mask).for_each(|(octet, mask)| *octet ^= mask);
    octets
}
