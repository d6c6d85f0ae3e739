//! ICMP errors about translated packets (RFC 5508 section 4): the packet inside is turned back as well.

use abi::{Edge, Family, Session, SessionKey};

use super::delta::Delta;
use super::rewrite::{End, Summed, checksum_of, rewrite_addresses};
use super::tuple::ports;
use crate::{Frame, Ip, Piece, proto};

/// The packet inside an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Where it begins.
    offset: usize,
    /// Where its transport header begins.
    transport: usize,
    /// The flow of the packets that the inner one answers, as it looks where the error comes in.
    pub key: SessionKey,
}

/// The packet inside, if this is an ICMP error and that packet has ports. It was going the other way: its receiver is the
/// error's side.
#[inline(always)]
pub fn inner(ip: &Ip, frame: &impl Frame, edge: Edge) -> Option<Inner> {
    if !is_error(ip, frame) {
        return None;
    }
    let offset = ip.transport + 8;
    let head = frame.words::<5>(offset)?;
    let first = u32::from_be(head[0]);
    let (protocol, source, destination, transport) = match ip.family {
        Family::V4 => {
            let length = (first >> 24 & 0xf) as usize * 4;
            let is_later = u32::from_be(head[1]) & 0x1fff != 0;
            if first >> 28 != 4 || length < 20 || is_later {
                return None;
            }
            let protocol = (u32::from_be(head[2]) >> 16) as u8;
            (protocol, [head[3], 0, 0, 0], [head[4], 0, 0, 0], offset + length)
        }
        Family::V6 => {
            let tail = frame.words::<5>(offset + 20)?;
            if first >> 28 != 6 {
                return None;
            }
            let source = [head[2], head[3], head[4], tail[0]];
            let destination = [tail[1], tail[2], tail[3], tail[4]];
            ((u32::from_be(head[1]) >> 8) as u8, source, destination, offset + 40)
        }
    };
    if transport + 8 > ip.end {
        return None;
    }
    let [first, second] = frame.words::<2>(transport)?;
    let (source_port, destination_port) = ports(protocol, ip.family, first, second)?;
    let key = SessionKey {
        source: destination,
        destination: source,
        source_port: destination_port,
        destination_port: source_port,
        protocol,
        family: ip.family as u8,
        edge: edge as u8,
        zero: 0,
    };
    Some(Inner { offset, transport, key })
}

/// Destination unreachable, time exceeded, parameter problem, packet too big; redirects are for hosts on the link only.
#[inline(always)]
fn is_error(ip: &Ip, frame: &impl Frame) -> bool {
    let is_icmp = match ip.family {
        Family::V4 => ip.protocol == proto::ICMP,
        Family::V6 => ip.protocol == proto::ICMPV6,
    };
    if !is_icmp || ip.piece != Piece::Whole || !ip.holds(8) {
        return false;
    }
    let Some([first]) = frame.words::<1>(ip.transport) else { return false };
    let kind = u32::from_be(first) >> 24;
    match ip.family {
        Family::V4 => matches!(kind, 3 | 11 | 12),
        Family::V6 => matches!(kind, 1..=4),
    }
}

/// Gives an error's `end` the address `outer`, and the opposite end of the packet inside the session's endpoint.
#[inline(always)]
pub fn rewrite_error(
    frame: &mut impl Summed,
    ip: &Ip,
    inner: &Inner,
    end: End,
    outer: &abi::Address,
    to: &Session,
) -> bool {
    let Some(addresses) = rewrite_addresses(frame, ip, end, outer, false) else { return false };
    let Some(inside) = rewrite_inner(frame, ip, inner, end, to) else { return false };
    let pseudo = if ip.family == Family::V6 { addresses } else { Delta(0) };
    frame.amend(ip.transport + 2, pseudo, inside, false).is_some()
}

/// The packet inside; the answer is how its sum changed.
#[inline(always)]
fn rewrite_inner(frame: &mut impl Summed, ip: &Ip, inner: &Inner, end: End, to: &Session) -> Option<Delta> {
    let mut covered = Delta(0);
    let from = &inner.key.destination;
    // The error's source is the inner packet's receiver, so the session's endpoint is at the inner packet's other end.
    let is_destination = matches!(end, End::Source);
    let old = if is_destination { &inner.key.source } else { from };
    let mut addresses = Delta(0);
    match ip.family {
        Family::V4 => {
            let [head] = frame.words::<1>(inner.offset + 8)?;
            addresses = addresses.swap(old[0], to.address[0]);
            let [a, b, c0, c1] = head.to_ne_bytes();
            let [c0, c1] = addresses.apply(u16::from_ne_bytes([c0, c1])).to_ne_bytes();
            patch(frame, inner.offset + 8, head, u32::from_ne_bytes([a, b, c0, c1]), &mut covered)?;
            let offset = inner.offset + if is_destination { 16 } else { 12 };
            patch(frame, offset, old[0], to.address[0], &mut covered)?;
        }
        Family::V6 => {
            addresses = addresses.swap_address(old, &to.address);
            covered = covered.swap_address(old, &to.address);
            let offset = inner.offset + if is_destination { 24 } else { 8 };
            frame.set_words(offset, to.address)?;
        }
    }
    rewrite_inner_transport(frame, ip, inner, is_destination, to, addresses, &mut covered)?;
    Some(covered)
}

#[inline(always)]
fn rewrite_inner_transport(
    frame: &mut impl Summed,
    ip: &Ip,
    inner: &Inner,
    is_destination: bool,
    to: &Session,
    addresses: Delta,
    covered: &mut Delta,
) -> Option<()> {
    let is_icmp = matches!(inner.key.protocol, proto::ICMP | proto::ICMPV6);
    let offset = inner.transport + if is_icmp { 4 } else { 0 };
    let [word] = frame.words::<1>(offset)?;
    let [a, b, c, d] = word.to_ne_bytes();
    let port = to.port;
    let changed = if is_icmp || !is_destination {
        u32::from_ne_bytes([port[0], port[1], c, d])
    } else {
        u32::from_ne_bytes([a, b, port[0], port[1]])
    };
    let (checksum, covers_addresses) = checksum_of(inner.key.protocol)?;
    let change = if covers_addresses { addresses } else { Delta(0) }.swap(word, changed);
    patch(frame, offset, word, changed, covered)?;
    // Many errors hold only eight bytes of the transport header: TCP's checksum is not among them then.
    let offset = inner.transport + checksum / 4 * 4;
    if offset + 4 > ip.end {
        return Some(());
    }
    let Some([word]) = frame.words::<1>(offset) else { return Some(()) };
    let [a, b, c, d] = word.to_ne_bytes();
    let changed = if checksum % 4 == 0 {
        let [a, b] = change.apply(u16::from_ne_bytes([a, b])).to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    } else {
        let sum = u16::from_ne_bytes([c, d]);
        let sum = if inner.key.protocol == proto::UDP { change.apply_udp(sum) } else { change.apply(sum) };
        let [c, d] = sum.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    };
    patch(frame, offset, word, changed, covered)
}

#[inline(always)]
fn patch(frame: &mut impl Summed, offset: usize, old: u32, new: u32, covered: &mut Delta) -> Option<()> {
    *covered = covered.swap(old, new);
    frame.set_words(offset, [new])
}
