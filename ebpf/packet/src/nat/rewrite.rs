//! Changing a packet's endpoints, time to live and checksums in place.
//!
//! Only what a change touches is written; every checksum follows by its difference, so what was wrong before stays wrong
//! and what was right stays right. Deliberately not here: which packet becomes what (`session`).

use abi::{Family, Session, SessionKey};

use super::delta::Delta;
use crate::{BytesMut, FrameMut, Ip, Piece, proto};

/// A packet whose checksums can be amended.
pub trait Summed: FrameMut {
    /// Amends the transport checksum at `offset`: the pseudo header changed by `pseudo`, what the checksum covers by
    /// `covered`. They differ where the sum is not complete yet (Linux's `CHECKSUM_PARTIAL` holds the pseudo header only).
    /// `may_lack`: zero means that there is none (UDP over IPv4). `None` past the end.
    fn amend(&mut self, offset: usize, pseudo: Delta, covered: Delta, may_lack: bool) -> Option<()>;

    /// Says that words outside of every checksum changed (IPv6's header has none).
    fn uncovered(&mut self, change: Delta);
}

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The sender.
    Source,
    /// The receiver.
    Destination,
}

/// Offset of the checksum in a transport header, and whether addresses are a part of the sum.
#[inline(always)]
pub(super) const fn checksum_of(protocol: u8) -> Option<(usize, bool)> {
    match protocol {
        proto::TCP => Some((16, true)),
        proto::UDP => Some((6, true)),
        proto::ICMP => Some((2, false)),
        proto::ICMPV6 => Some((2, true)),
        _ => None,
    }
}

/// Gives the packet `key` another source or destination, and counts a hop if it is to be forwarded without the stack.
/// False if the packet is not one; then it may be half changed.
#[inline(always)]
pub fn rewrite(
    frame: &mut impl Summed,
    ip: &Ip,
    key: &SessionKey,
    end: End,
    to: &Session,
    hop: bool,
) -> bool {
    let Some(pseudo) = rewrite_addresses(frame, ip, end, &to.address, hop) else { return false };
    if ip.piece == Piece::Later {
        return true;
    }
    let Some((checksum, covers_addresses)) = checksum_of(ip.protocol) else { return false };
    let Some(covered) = rewrite_port(frame, ip, key, end, to.port) else { return false };
    let pseudo = if covers_addresses { pseudo } else { Delta(0) };
    let may_lack = ip.protocol == proto::UDP;
    frame.amend(ip.transport + checksum, pseudo, covered, may_lack).is_some()
}

/// The network header's part; the answer is how the addresses' sum changed.
#[inline(always)]
pub(super) fn rewrite_addresses(
    frame: &mut impl Summed,
    ip: &Ip,
    end: End,
    to: &abi::Address,
    hop: bool,
) -> Option<Delta> {
    let from = match end {
        End::Source => &ip.source,
        End::Destination => &ip.destination,
    };
    match ip.family {
        Family::V4 => {
            let [head] = frame.words::<1>(8)?;
            let pseudo = Delta(0).swap(from[0], to[0]);
            let [ttl, protocol, c0, c1] = head.to_ne_bytes();
            let lower = ttl.wrapping_sub(hop as u8);
            let header = pseudo
                .swap(u32::from_ne_bytes([ttl, protocol, 0, 0]), u32::from_ne_bytes([lower, protocol, 0, 0]));
            let [c0, c1] = header.apply(u16::from_ne_bytes([c0, c1])).to_ne_bytes();
            let head = u32::from_ne_bytes([lower, protocol, c0, c1]);
            let addresses = match end {
                End::Source => [head, to[0], ip.destination[0]],
                End::Destination => [head, ip.source[0], to[0]],
            };
            frame.set_words(8, addresses).map(|()| pseudo)
        }
        Family::V6 => {
            let pseudo = Delta(0).swap_address(from, to);
            let mut uncovered = pseudo;
            if hop {
                let [head] = frame.words::<1>(4)?;
                let [l0, l1, next, limit] = head.to_ne_bytes();
                let lower = u32::from_ne_bytes([l0, l1, next, limit.wrapping_sub(1)]);
                frame.set_words(4, [lower])?;
                uncovered = uncovered.swap(head, lower);
            }
            let offset = if matches!(end, End::Source) { 8 } else { 24 };
            frame.set_words(offset, *to)?;
            frame.uncovered(uncovered);
            Some(pseudo)
        }
    }
}

/// The port, or the identifier of an ICMP query; the answer is how the sum changed.
#[inline(always)]
fn rewrite_port(
    frame: &mut impl Summed,
    ip: &Ip,
    key: &SessionKey,
    end: End,
    port: [u8; 2],
) -> Option<Delta> {
    let old = match end {
        End::Source => key.source_port,
        End::Destination => key.destination_port,
    };
    if old == port {
        return Some(Delta(0));
    }
    let is_icmp = matches!(ip.protocol, proto::ICMP | proto::ICMPV6);
    let offset = ip.transport + if is_icmp { 4 } else { 0 };
    let [word] = frame.words::<1>(offset)?;
    let [a, b, c, d] = word.to_ne_bytes();
    // An identifier is where a source port would be, whoever's it is.
    let changed = if is_icmp || matches!(end, End::Source) {
        u32::from_ne_bytes([port[0], port[1], c, d])
    } else {
        u32::from_ne_bytes([a, b, port[0], port[1]])
    };
    frame.set_words(offset, [changed]).map(|()| Delta(0).swap(word, changed))
}

impl Summed for BytesMut<'_> {
    fn amend(&mut self, offset: usize, pseudo: Delta, covered: Delta, may_lack: bool) -> Option<()> {
        let two = self.0.get_mut(offset..offset.checked_add(2)?)?;
        let mut checksum = u16::from_ne_bytes([two[0], two[1]]);
        for delta in [pseudo, covered] {
            checksum = if may_lack { delta.apply_udp(checksum) } else { delta.apply(checksum) };
        }
        two.copy_from_slice(&checksum.to_ne_bytes());
        Some(())
    }

    fn uncovered(&mut self, _: Delta) {}
}
