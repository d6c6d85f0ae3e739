//! The peer relay's data path: a session's packet goes from one end to the other.
//!
//! A packet on the relay's port begins with a Geneve header (RFC 8926; tailscale `net/packet/geneve.go`) whose VNI names a
//! session of two ends. It is sent on if it comes from the exact address and port that bound one end, to the address of
//! ours that this end bound at, with its payload untouched. The session's checksum deltas are precomputed, so the payload
//! is not even read. Binding, STUN and whatever is unusual are left to the relay's socket, which knows everything this file
//! knows and more. Deliberately not here: the session table, routes, counters ([`Relay`] is what the caller has of them).

use abi::{Address, Family, Hop, Reason, RelayEnd, RelaySession};

use crate::checksum::{self, UDP_PROTOCOL, fold, or_ones, sum};
use crate::{LinkFrame, proto};

/// The UDP header and the Geneve header behind it: the least a packet has.
const HEADERS: u32 = 8 + 8;
/// First words of Geneve headers without options, control bit or critical bit: DISCO and WireGuard between clients.
const DATA: [u32; 2] = [0x7a11, 0x7a12];
/// Version 6, no label; version 4 with five words of header.
const VERSION_6: u32 = 6 << 28;
const VERSION_4: u32 = 0x45 << 24;
/// "Do not fragment", and an identification that such a packet need not have (RFC 6864).
const ATOMIC: u32 = 0x4000;

/// What forwarding asks of its surroundings.
pub trait Relay {
    /// The session of a VNI, and its stamp as it was read before all else.
    fn session(&self, vni: u32) -> Option<(&RelaySession, u64)>;

    /// Whether packets to this address of the device end here, and may be dropped here.
    fn is_own(&self, address: &Address, family: Family) -> bool;

    /// The way to the other end for an IP packet of `length` bytes; or why it must be left to the stack.
    fn way(&self, from: &Sender<'_>, length: u32) -> Result<Hop, Reason>;

    /// Counts a packet with its `payload` bytes, which is sent on now. False if the session is another by now: what was
    /// read of it may be neither the one nor the other.
    fn count(&self, from: &Sender<'_>, payload: u32) -> bool;
}

/// The end that sent a packet.
pub struct Sender<'a> {
    /// Its session.
    pub session: &'a RelaySession,
    /// The session's stamp.
    pub stamp: u64,
    /// Which end: 0 or 1.
    pub index: usize,
}

impl Sender<'_> {
    /// The sender's end.
    #[inline(always)]
    pub const fn end(&self) -> &RelayEnd {
        &self.session.ends[self.index & 1]
    }

    /// The other end.
    #[inline(always)]
    pub const fn to(&self) -> &RelayEnd {
        &self.session.ends[(self.index ^ 1) & 1]
    }
}

/// Sends the packet on: the frame is rewritten, and leaves by the device that is returned. Otherwise the reason says what
/// becomes of it, and the frame is as it was (unless the reason is [`Reason::Unwritable`]).
#[inline(always)]
pub fn forward(frame: &mut impl LinkFrame, relay: &impl Relay) -> Result<u32, Reason> {
    let [first] = frame.words::<1>(0).ok_or(Reason::RelayOther)?;
    match u32::from_be(first) >> 28 {
        4 => forward_v4(frame, relay),
        6 => forward_v6(frame, relay),
        _ => Err(Reason::RelayOther),
    }
}

/// What both families have in common, as read from the packet.
struct Datagram {
    source: Address,
    destination: Address,
    /// Source and destination port, as in the packet.
    ports: u32,
    /// UDP length and checksum, as in the packet.
    udp: u32,
    /// Traffic class and hop limit.
    class: u32,
    hops: u32,
    vni: u32,
}

#[inline(always)]
fn forward_v4(frame: &mut impl LinkFrame, relay: &impl Relay) -> Result<u32, Reason> {
    let head = frame.words::<9>(0).ok_or(Reason::RelayOther)?;
    let first = u32::from_be(head[0]);
    let udp_length = u32::from_be(head[6]) >> 16;
    let plain = first >> 24 == 0x45
        // Neither a fragment nor the first of some.
        && u32::from_be(head[1]) & 0x3fff == 0
        && u32::from_be(head[2]) >> 16 & 0xff == proto::UDP as u32
        && first & 0xffff == 20 + udp_length;
    if !plain || udp_length < HEADERS || !frame.reaches((20 + udp_length) as usize) {
        return Err(Reason::RelayOther);
    }
    let datagram = Datagram {
        source: [head[3], 0, 0, 0],
        destination: [head[4], 0, 0, 0],
        ports: head[5],
        udp: head[6],
        class: first >> 16 & 0xff,
        hops: u32::from_be(head[2]) >> 24,
        vni: vni(head[7], head[8])?,
    };
    let from = find(relay, &datagram, Family::V4)?;
    check(&datagram, from.end(), udp_length)?;
    if from.to().family == Family::V4 as u8 {
        let hop = relay.way(&from, 20 + udp_length)?;
        let word = u32::from_be(head[2]);
        let sum = checksum::update((word as u16).to_be(), from.end().ip_delta);
        let word = ((word & 0xffff_0000) - (1 << 24)) | u32::from(u16::from_be(sum));
        let udp = udp(&datagram, &from);
        let words = [word.to_be(), from.to().local[0], from.to().address[0], udp[0], udp[1]];
        account(relay, &from, udp_length)?;
        frame.set_words(8, words).ok_or(Reason::Unwritable)?;
        frame.set_link(&hop.macs, Family::V4).ok_or(Reason::Unwritable)?;
        return Ok(hop.ifindex);
    }
    // IPv6 has no header checksum to carry a wrong one on, and needs a UDP checksum.
    if fold(sum(&[head[0], head[1], head[2], head[3], head[4]])) != 0xffff || has_no_checksum(&datagram) {
        return Err(Reason::RelayOther);
    }
    let hop = relay.way(&from, 40 + udp_length)?;
    let words = header_v6(VERSION_6 | datagram.class << 20, &datagram, udp_length, &from);
    account(relay, &from, udp_length)?;
    frame.move_head(-20).ok_or(Reason::Unwritable)?;
    frame.set_words(0, words).ok_or(Reason::Unwritable)?;
    frame.set_link(&hop.macs, Family::V6).ok_or(Reason::Unwritable)?;
    Ok(hop.ifindex)
}

#[inline(always)]
fn forward_v6(frame: &mut impl LinkFrame, relay: &impl Relay) -> Result<u32, Reason> {
    let head = frame.words::<14>(0).ok_or(Reason::RelayOther)?;
    let (first, lengths) = (u32::from_be(head[0]), u32::from_be(head[1]));
    let udp_length = u32::from_be(head[11]) >> 16;
    if lengths >> 16 != udp_length
        || lengths >> 8 & 0xff != proto::UDP as u32
        || udp_length < HEADERS
        || !frame.reaches((40 + udp_length) as usize)
    {
        return Err(Reason::RelayOther);
    }
    let datagram = Datagram {
        source: [head[2], head[3], head[4], head[5]],
        destination: [head[6], head[7], head[8], head[9]],
        ports: head[10],
        udp: head[11],
        class: first >> 20 & 0xff,
        hops: lengths & 0xff,
        vni: vni(head[12], head[13])?,
    };
    if has_no_checksum(&datagram) {
        return Err(Reason::RelayOther);
    }
    let from = find(relay, &datagram, Family::V6)?;
    check(&datagram, from.end(), udp_length)?;
    if from.to().family == Family::V6 as u8 {
        let hop = relay.way(&from, 40 + udp_length)?;
        let words = header_v6(first, &datagram, udp_length, &from);
        account(relay, &from, udp_length)?;
        frame.set_words(0, words).ok_or(Reason::Unwritable)?;
        frame.set_link(&hop.macs, Family::V6).ok_or(Reason::Unwritable)?;
        return Ok(hop.ifindex);
    }
    let hop = relay.way(&from, 20 + udp_length)?;
    let words = header_v4(&datagram, udp_length, &from);
    account(relay, &from, udp_length)?;
    frame.move_head(20).ok_or(Reason::Unwritable)?;
    frame.set_words(0, words).ok_or(Reason::Unwritable)?;
    frame.set_link(&hop.macs, Family::V4).ok_or(Reason::Unwritable)?;
    Ok(hop.ifindex)
}

/// The VNI of a data packet's header.
#[inline(always)]
fn vni(first: u32, second: u32) -> Result<u32, Reason> {
    let (first, second) = (u32::from_be(first), u32::from_be(second));
    // The last byte is reserved.
    if (first != DATA[0] && first != DATA[1]) || second & 0xff != 0 {
        return Err(Reason::RelayOther);
    }
    Ok(second >> 8)
}

/// Who sent the packet. What no session wants is dropped, if it was for us at all.
#[inline(always)]
fn find<'a>(relay: &'a impl Relay, datagram: &Datagram, family: Family) -> Result<Sender<'a>, Reason> {
    let mut reason = Reason::RelayUnknown;
    if let Some((session, stamp)) = relay.session(datagram.vni) {
        for index in [0, 1] {
            if is_from(datagram, &session.ends[index], family) {
                return Ok(Sender { session, stamp, index });
            }
        }
        // Not bound yet: the packets that follow the binding come before the loader has heard of it.
        let waits = session.ends[0].family == 0;
        reason = if waits { Reason::RelayOther } else { Reason::RelayWrongSource };
    }
    Err(if relay.is_own(&datagram.destination, family) { reason } else { Reason::RelayOther })
}

#[inline(always)]
fn is_from(datagram: &Datagram, end: &RelayEnd, family: Family) -> bool {
    let ports = datagram.ports.to_ne_bytes();
    let (source, destination) = (&datagram.source, &datagram.destination);
    if end.family != family as u8 || end.port != [ports[0], ports[1]] {
        return false;
    }
    match family {
        Family::V4 => end.address[0] == source[0] && end.local[0] == destination[0],
        Family::V6 => is_same(&end.address, source) && is_same(&end.local, destination),
    }
}

/// Word by word, for comparing arrays is a call.
#[inline(always)]
fn is_same(a: &Address, b: &Address) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

#[inline(always)]
fn account(relay: &impl Relay, from: &Sender<'_>, udp_length: u32) -> Result<(), Reason> {
    if relay.count(from, udp_length - 8) { Ok(()) } else { Err(Reason::RelayOther) }
}

/// What the relay's socket must see to.
#[inline(always)]
fn check(datagram: &Datagram, end: &RelayEnd, udp_length: u32) -> Result<(), Reason> {
    if datagram.hops <= 1 {
        return Err(Reason::RelayOther);
    }
    // A checksum that the sender left to its device, which is none (veth, virtio): only the stack knows.
    let pseudo = checksum::add(end.pseudo, (udp_length as u16).to_be());
    if checksum_of(datagram) == pseudo { Err(Reason::RelayPartial) } else { Ok(()) }
}

/// The UDP checksum, in memory order.
#[inline(always)]
fn checksum_of(datagram: &Datagram) -> u16 {
    (u32::from_be(datagram.udp) as u16).to_be()
}

#[inline(always)]
fn has_no_checksum(datagram: &Datagram) -> bool {
    checksum_of(datagram) == 0
}

/// The UDP header towards the other end.
#[inline(always)]
fn udp(datagram: &Datagram, from: &Sender<'_>) -> [u32; 2] {
    let [_, _, p0, p1] = datagram.ports.to_ne_bytes();
    let to = from.to();
    let ports = u32::from_ne_bytes([p0, p1, to.port[0], to.port[1]]);
    let mut sum = checksum_of(datagram);
    if sum != 0 {
        sum = or_ones(checksum::update(sum, from.end().udp_delta));
    }
    let udp = u32::from_be(datagram.udp) & 0xffff_0000 | u32::from(u16::from_be(sum));
    [ports, udp.to_be()]
}

/// The IPv6 and UDP headers towards the other end.
#[inline(always)]
fn header_v6(first: u32, datagram: &Datagram, udp_length: u32, from: &Sender<'_>) -> [u32; 12] {
    let lengths = udp_length << 16 | (proto::UDP as u32) << 8 | (datagram.hops - 1);
    let ([l0, l1, l2, l3], [a0, a1, a2, a3]) = (from.to().local, from.to().address);
    let [ports, udp] = udp(datagram, from);
    [first.to_be(), lengths.to_be(), l0, l1, l2, l3, a0, a1, a2, a3, ports, udp]
}

/// The IPv4 and UDP headers towards the other end.
#[inline(always)]
fn header_v4(datagram: &Datagram, udp_length: u32, from: &Sender<'_>) -> [u32; 7] {
    let first = (VERSION_4 | datagram.class << 16 | (20 + udp_length)).to_be();
    let third = ((datagram.hops - 1) << 24 | (proto::UDP as u32) << 16).to_be();
    let mut words = [first, ATOMIC.to_be(), third, from.to().local[0], from.to().address[0]];
    let sum = !fold(sum(&words));
    words[2] |= u32::from(u16::from_be(sum)).to_be();
    let [first, second, third, local, address] = words;
    let [ports, udp] = udp(datagram, from);
    [first, second, third, local, address, ports, udp]
}

/// Fills in what packets of each end need on their way to the other; the loader calls this when it writes a session. The
/// relay's own port is in all headers, at one side or the other, and does not change a sum.
pub fn link_ends(ends: &mut [RelayEnd; 2]) {
    let [a, b] = *ends;
    for (end, other) in ends.iter_mut().zip([b, a]) {
        let (arriving, leaving) = (addresses(end), addresses(&other));
        let before = u64::from(arriving) + u64::from(u16::from_ne_bytes(end.port));
        let after = u64::from(leaving) + u64::from(u16::from_ne_bytes(other.port));
        end.udp_delta = checksum::delta(fold(before), fold(after));
        // The time to live is the first byte of its word, and falls by one.
        let one_hop = !u16::from_ne_bytes([1, 0]);
        end.ip_delta = fold(u64::from(checksum::delta(arriving, leaving)) + u64::from(one_hop));
        end.pseudo = fold(u64::from(arriving) + UDP_PROTOCOL);
    }
}

fn addresses(end: &RelayEnd) -> u16 {
    fold(sum(&end.address) + sum(&end.local))
}
