//! STUN binding requests, answered in place (RFC 5389; tailscale `net/stun/stun.go`, `derp/xdp/xdp.c`).
//!
//! Only the one request that Tailscale's clients and ours send is answered: 20 bytes of header, SOFTWARE "tailnode",
//! FINGERPRINT, and all three of IPv4's, UDP's and the fingerprint's sums right. The answer is the one that our server in
//! userspace would give, byte by byte. Everything else is left to that server. Deliberately not here: which addresses are
//! ours, and how much a source may ask ([`Stun`]).

use abi::{Address, Family, Reason};

use crate::checksum::{UDP_PROTOCOL, fold, or_ones, sum};
use crate::fingerprint;
use crate::{LinkFrame, proto};

/// UDP header, STUN header, two attributes.
const UDP_REQUEST: u32 = 8 + 20 + 12 + 8;
/// UDP header, STUN header, one XOR-MAPPED-ADDRESS.
const UDP_ANSWER_V4: u32 = 8 + 20 + 12;
const UDP_ANSWER_V6: u32 = 8 + 20 + 24;
const COOKIE: u32 = 0x2112_a442;
/// "Binding request" and the length of its attributes; "binding success" and those of its.
const REQUEST: u32 = 0x0001_0014;
const SUCCESS_V4: u32 = 0x0101_000c;
const SUCCESS_V6: u32 = 0x0101_0018;
/// SOFTWARE of eight bytes, "tailnode"; FINGERPRINT of four bytes.
const SOFTWARE: [u32; 3] = [0x8022_0008, u32::from_be_bytes(*b"tail"), u32::from_be_bytes(*b"node")];
const FINGERPRINT: u32 = 0x8028_0004;
/// XOR-MAPPED-ADDRESS and its length; before the port stand a zero byte and the family.
const MAPPED_V4: u32 = 0x0020_0008;
const MAPPED_V6: u32 = 0x0020_0014;
/// What Linux gives its packets.
const HOPS: u32 = 64;

/// What answering asks of its surroundings.
pub trait Stun {
    /// Whether packets to this address of the device end here.
    fn is_own(&self, address: &Address, family: Family) -> bool;

    /// Whether all requests are to be dropped: the server is leaving.
    fn is_dropping(&self) -> bool;

    /// Takes one answer from what the source may have.
    fn take(&self, source: &Address, family: Family) -> bool;
}

/// Turns a request into its answer; the frame is then to be sent out where it came in. The reason says whether
/// ([`Reason::StunAnswered`]); if not, the frame is as it was (unless it is [`Reason::Unwritable`]).
#[inline(always)]
pub fn answer(frame: &mut impl LinkFrame, stun: &impl Stun) -> Reason {
    let done = match frame.words::<1>(0) {
        Some([first]) if u32::from_be(first) >> 28 == 6 => answer_v6(frame, stun),
        Some(_) => answer_v4(frame, stun),
        None => Err(Reason::StunOther),
    };
    match done {
        Ok(()) => Reason::StunAnswered,
        Err(reason) => reason,
    }
}

#[inline(always)]
fn answer_v4(frame: &mut impl LinkFrame, stun: &impl Stun) -> Result<(), Reason> {
    let head = frame.words::<7>(0).ok_or(Reason::StunOther)?;
    let [h0, h1, h2, source, destination, ports, udp] = head;
    let is_udp = u32::from_be(h0) >> 24 == 0x45
        && u32::from_be(h1) & 0x3fff == 0
        && u32::from_be(h2) >> 16 & 0xff == proto::UDP as u32;
    let (from, to) = ([source, 0, 0, 0], [destination, 0, 0, 0]);
    if !is_udp || !may_be_client_v4(source) || fold(sum(&[h0, h1, h2, source, destination])) != 0xffff {
        return Err(Reason::StunOther);
    }
    drop_all(stun, &to, Family::V4)?;
    let lengths = u32::from_be(h0) & 0xffff == 20 + UDP_REQUEST && u32::from_be(udp) >> 16 == UDP_REQUEST;
    let body = frame.words::<10>(28).ok_or(Reason::StunOther)?;
    let checked = u32::from_be(udp) & 0xffff == 0
        || fold(pseudo(&from, &to, UDP_REQUEST) + u64::from(ports) + u64::from(udp) + sum(&body)) == 0xffff;
    if !lengths || !checked || port_of(ports) == 0 {
        return Err(Reason::StunOther);
    }
    let id = request(&body)?;
    admit(stun, &from, &to, Family::V4)?;

    let first = (u32::from_be(h0) & 0xffff_0000 | (20 + UDP_ANSWER_V4)).to_be();
    let mut ip = [first, h1, (HOPS << 24 | (proto::UDP as u32) << 16).to_be(), destination, source];
    ip[2] |= u32::from(u16::from_be(!fold(sum(&ip)))).to_be();
    let message = [
        SUCCESS_V4.to_be(),
        COOKIE.to_be(),
        id[0],
        id[1],
        id[2],
        MAPPED_V4.to_be(),
        (1 << 16 | u32::from(port_of(ports)) ^ COOKIE >> 16).to_be(),
        source ^ COOKIE.to_be(),
    ];
    let ports = ports.rotate_left(16);
    let udp = udp_header(pseudo(&from, &to, UDP_ANSWER_V4) + u64::from(ports) + sum(&message), UDP_ANSWER_V4);
    frame.set_end((20 + UDP_ANSWER_V4) as usize).ok_or(Reason::Unwritable)?;
    let [a, b, c, d, e] = ip;
    frame.set_words(0, [a, b, c, d, e, ports, udp]).ok_or(Reason::Unwritable)?;
    frame.set_words(28, message).ok_or(Reason::Unwritable)?;
    frame.turn_link().ok_or(Reason::Unwritable)
}

#[inline(always)]
fn answer_v6(frame: &mut impl LinkFrame, stun: &impl Stun) -> Result<(), Reason> {
    let head = frame.words::<12>(0).ok_or(Reason::StunOther)?;
    let [h0, h1, s0, s1, s2, s3, d0, d1, d2, d3, ports, udp] = head;
    let (from, to) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
    let is_udp = u32::from_be(h1) >> 8 & 0xff == proto::UDP as u32;
    if !is_udp || !may_be_client_v6(&from) {
        return Err(Reason::StunOther);
    }
    drop_all(stun, &to, Family::V6)?;
    let lengths = u32::from_be(h1) >> 16 == UDP_REQUEST && u32::from_be(udp) >> 16 == UDP_REQUEST;
    let body = frame.words::<10>(48).ok_or(Reason::StunOther)?;
    let checked = u32::from_be(udp) & 0xffff != 0
        && fold(pseudo(&from, &to, UDP_REQUEST) + u64::from(ports) + u64::from(udp) + sum(&body)) == 0xffff;
    if !lengths || !checked || port_of(ports) == 0 {
        return Err(Reason::StunOther);
    }
    let id = request(&body)?;
    admit(stun, &from, &to, Family::V6)?;

    let message = [
        SUCCESS_V6.to_be(),
        COOKIE.to_be(),
        id[0],
        id[1],
        id[2],
        MAPPED_V6.to_be(),
        (2 << 16 | u32::from(port_of(ports)) ^ COOKIE >> 16).to_be(),
        s0 ^ COOKIE.to_be(),
        s1 ^ id[0],
        s2 ^ id[1],
        s3 ^ id[2],
    ];
    let ports = ports.rotate_left(16);
    let udp = udp_header(pseudo(&from, &to, UDP_ANSWER_V6) + u64::from(ports) + sum(&message), UDP_ANSWER_V6);
    let lengths = (UDP_ANSWER_V6 << 16 | (proto::UDP as u32) << 8 | HOPS).to_be();
    frame.set_end((40 + UDP_ANSWER_V6) as usize).ok_or(Reason::Unwritable)?;
    let ip = [h0, lengths, d0, d1, d2, d3, s0, s1, s2, s3, ports, udp];
    frame.set_words(0, ip).ok_or(Reason::Unwritable)?;
    frame.set_words(48, message).ok_or(Reason::Unwritable)?;
    frame.turn_link().ok_or(Reason::Unwritable)
}

/// In maintenance every packet to the port is dropped unseen, as Tailscale's program does: what is answered is answered
/// by another server.
#[inline(always)]
fn drop_all(stun: &impl Stun, to: &Address, family: Family) -> Result<(), Reason> {
    if stun.is_dropping() && stun.is_own(to, family) { Err(Reason::StunMaintenance) } else { Ok(()) }
}

#[inline(always)]
fn admit(stun: &impl Stun, from: &Address, to: &Address, family: Family) -> Result<(), Reason> {
    if !stun.is_own(to, family) {
        return Err(Reason::StunOther);
    }
    if stun.take(from, family) { Ok(()) } else { Err(Reason::StunLimited) }
}

/// The transaction of the one request that is answered here.
#[inline(always)]
fn request(body: &[u32; 10]) -> Result<[u32; 3], Reason> {
    let [kind, cookie, i0, i1, i2, software, s0, s1, fingerprint, value] = *body;
    let known = kind == REQUEST.to_be()
        && cookie == COOKIE.to_be()
        && [software, s0, s1] == [SOFTWARE[0].to_be(), SOFTWARE[1].to_be(), SOFTWARE[2].to_be()]
        && fingerprint == FINGERPRINT.to_be();
    let id = [i0, i1, i2];
    if known && value == fingerprint::of_request(&id).to_be() { Ok(id) } else { Err(Reason::StunOther) }
}

/// The sum of a UDP pseudo header.
#[inline(always)]
fn pseudo(source: &Address, destination: &Address, length: u32) -> u64 {
    sum(source) + sum(destination) + UDP_PROTOCOL + u64::from((length as u16).to_be())
}

/// The second word of a UDP header: the length, and the checksum that completes `rest`.
#[inline(always)]
fn udp_header(rest: u64, length: u32) -> u32 {
    let word = (length << 16).to_be();
    let sum = or_ones(!fold(rest + u64::from(word)));
    word | u32::from(u16::from_be(sum)).to_be()
}

/// The sender's port.
#[inline(always)]
fn port_of(ports: u32) -> u16 {
    (u32::from_be(ports) >> 16) as u16
}

/// Not "this network", loopback, multicast or reserved: an answer to these goes to many, to nobody, or to ourselves.
#[inline(always)]
fn may_be_client_v4(source: u32) -> bool {
    !matches!(u32::from_be(source) >> 24, 0 | 127 | 224..)
}

/// Not unspecified, loopback, IPv4-mapped or multicast.
#[inline(always)]
fn may_be_client_v6(source: &Address) -> bool {
    source[0] | source[1] != 0 && u32::from_be(source[0]) >> 24 != 0xff
}
