//! DISCO pings of known peers, answered in place (tailscale `disco/disco.go`).
//!
//! The one ping that is answered is the one that Tailscale's clients and ours keep their paths with: in a datagram of its
//! own, naming its node, without padding, sealed for us by the key it names. Everything else is the controller's. An
//! answer is shorter than its question, goes where the question came from, and is told to the controller as evidence.
//! Whether it may be given is the controller's to say too (`DiscoPeer::vouched`): this is ahead of the machine's firewall.

use abi::{Address, DiscoPeer, Family, Reason};

use crate::checksum::{UDP_PROTOCOL, fold, or_ones, sum};
use crate::crypto::{Key, PING_LEN, PONG_LEN, Sealed};
use crate::{Datagram, LinkFrame, bucket, proto};

/// Magic and sender's key; behind them nonce, tag and message.
const KEY: usize = 6;
const NONCE: usize = KEY + 32;
const TAG: usize = NONCE + 24;
const BOX: usize = TAG + 16;
const PING: usize = BOX + PING_LEN;
const PONG: usize = BOX + PONG_LEN;
/// UDP header and pong.
const UDP_PONG: u32 = 8 + PONG as u32;
/// The magic, as half words of a checksum.
const MAGIC_SUM: u64 = u16::from_ne_bytes([0x54, 0x53]) as u64
    + u16::from_ne_bytes([0xf0, 0x9f]) as u64
    + u16::from_ne_bytes([0x92, 0xac]) as u64;
/// Type and version, as the message's first two bytes are.
const IS_PING: u32 = 1;
const IS_PONG: u32 = 2;
/// What Linux gives its packets.
const HOPS: u32 = 64;

/// What answering asks of its surroundings.
pub trait Disco {
    /// What the loader said about this DISCO key.
    fn peer(&self, key: &Key) -> Option<&DiscoPeer>;
    /// Takes a token from a bucket.
    fn take(&self, bucket: u32) -> bool;
    /// What places sources in buckets.
    fn seed(&self) -> u32;
    /// A nonce that was never used before; none before the loader has seeded them.
    fn nonce(&self) -> Option<[u32; 6]>;
    /// Tells the controller.
    fn report(&self, key: &Key, datagram: &Datagram, tx_id: [u32; 3]);
}

/// Turns a ping into its pong; the frame is then to be sent out where it came in. The reason says whether
/// ([`Reason::PingAnswered`]); if not, the frame is as it was. `datagram` is a DISCO message for us.
#[inline(always)]
pub fn answer(
    frame: &mut impl LinkFrame,
    datagram: &Datagram,
    disco: &impl Disco,
    work: &mut Sealed,
) -> Reason {
    let Some(key) = frame.words(datagram.payload + KEY) else { return Reason::ForController };
    work.sender = key;
    let Some(peer) = disco.peer(&work.sender) else {
        let bucket = bucket::of_source(disco.seed(), datagram.ip.family, &datagram.ip.source);
        return if disco.take(bucket) { Reason::ForController } else { Reason::DiscoLimited };
    };
    if !disco.take(peer.bucket) {
        return Reason::DiscoLimited;
    }
    if peer.vouched == 0 || datagram.len != PING || !may_be_answered(datagram) {
        return Reason::ForController;
    }
    let Some(tx_id) = open(frame, datagram, peer, work) else { return Reason::ForController };
    let Some(nonce) = disco.nonce() else { return Reason::ForController };
    seal(datagram, peer, nonce, work);
    if write(frame, datagram, &peer.own, work).is_none() {
        return Reason::Unwritable;
    }
    disco.report(&work.sender, datagram, tx_id);
    Reason::PingAnswered
}

/// Opens the box, and gives the transaction if a ping of this peer's node is in it.
#[inline(always)]
fn open(
    frame: &impl LinkFrame,
    datagram: &Datagram,
    peer: &DiscoPeer,
    work: &mut Sealed,
) -> Option<[u32; 3]> {
    // Piece by piece straight into the map: a program's stack has 512 bytes.
    let payload = datagram.payload;
    work.cipher.nonce = frame.words(payload + NONCE)?;
    work.tag = frame.words(payload + TAG)?;
    let [a, b, c, d] = frame.words(payload + BOX)?;
    let [e, f, g, h] = frame.words(payload + BOX + 16)?;
    let [i, j, k] = frame.words(payload + BOX + 32)?;
    let [last] = frame.words::<1>(payload + PING - 4)?;
    work.text = [a, b, c, d, e, f, g, h, i, j, k, last >> 16];
    if !work.open_ping(&peer.shared) {
        return None;
    }
    let text = &work.text;
    // Two bytes of type and version, twelve of transaction, then the node's key: all shifted by half a word.
    let mut other = text[0] & 0xff ^ IS_PING;
    let mut at = 0;
    while at < 8 {
        other |= (text[3 + at] >> 16 | text[4 + at] << 16) ^ peer.node[at];
        at += 1;
    }
    (other == 0).then_some([
        text[0] >> 16 | text[1] << 16,
        text[1] >> 16 | text[2] << 16,
        text[2] >> 16 | text[3] << 16,
    ])
}

/// Makes the pong's box out of the ping's message.
#[inline(always)]
fn seal(datagram: &Datagram, peer: &DiscoPeer, nonce: [u32; 6], work: &mut Sealed) {
    let [a0, a1, a2, a3] = mapped(&datagram.ip.source, datagram.ip.family);
    let port = u32::from(u16::from_ne_bytes(datagram.source_port));
    let text = &mut work.text;
    text[0] = text[0] & 0xffff_0000 | IS_PONG;
    text[3] = text[3] & 0xffff | a0 << 16;
    text[4] = a0 >> 16 | a1 << 16;
    text[5] = a1 >> 16 | a2 << 16;
    text[6] = a2 >> 16 | a3 << 16;
    text[7] = a3 >> 16 | port << 16;
    work.cipher.nonce = nonce;
    work.seal_pong(&peer.shared);
}

/// Writes the pong over the ping. In the kernel a function of its own: its stack is not there while the box is made.
#[inline(never)]
fn write(frame: &mut impl LinkFrame, datagram: &Datagram, own: &Key, work: &Sealed) -> Option<()> {
    let ([s0, s1], [d0, d1]) = (datagram.source_port, datagram.destination_port);
    let [a, b, c, d, e, f, g, h, ..] = work.text;
    let (first, last) = ([a, b, c, d], [e, f, g, h]);
    let ports = u32::from_ne_bytes([d0, d1, s0, s1]);
    let payload = sum(own) + sum(&work.cipher.nonce) + sum(&work.tag) + sum(&first) + sum(&last);
    let udp = udp_word(datagram, ports, payload);
    let (transport, payload) = (datagram.payload - 8, datagram.payload);
    frame.set_end(transport + UDP_PONG as usize)?;
    frame.set_words(payload + KEY, *own)?;
    frame.set_words(payload + NONCE, work.cipher.nonce)?;
    frame.set_words(payload + TAG, work.tag)?;
    frame.set_words(payload + BOX, first)?;
    frame.set_words(payload + BOX + 16, last)?;
    frame.set_words(transport, [ports, udp])?;
    let Datagram { ip, .. } = datagram;
    match ip.family {
        Family::V4 => frame.set_words(0, header_v4(ip.destination[0], ip.source[0])),
        Family::V6 => frame.set_words(0, header_v6(&ip.destination, &ip.source)),
    }?;
    frame.turn_link()
}

/// An IPv6 address, with IPv4 mapped into it.
#[inline(always)]
const fn mapped(address: &Address, family: Family) -> Address {
    match family {
        Family::V4 => [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), address[0]],
        Family::V6 => *address,
    }
}

/// The second word of the UDP header: the length, and the checksum, which is made anew. What came may have had none yet:
/// virtual devices leave it to hardware that there is not.
#[inline(always)]
fn udp_word(datagram: &Datagram, ports: u32, payload: u64) -> u32 {
    let length = (UDP_PONG as u16).to_be();
    let pseudo = sum(&datagram.ip.source) + sum(&datagram.ip.destination) + UDP_PROTOCOL + u64::from(length);
    let total = pseudo + u64::from(ports) + u64::from(length) + MAGIC_SUM + payload;
    u32::from(length) | u32::from(or_ones(!fold(total))) << 16
}

/// A header without options: as Linux sends a datagram that may not be cut.
#[inline(always)]
const fn header_v4(source: u32, destination: u32) -> [u32; 5] {
    const DO_NOT_FRAGMENT: u32 = 0x4000;
    let mut header = [
        (0x4500_0000 | (20 + UDP_PONG)).to_be(),
        DO_NOT_FRAGMENT.to_be(),
        (HOPS << 24 | (proto::UDP as u32) << 16).to_be(),
        source,
        destination,
    ];
    header[2] |= (!fold(sum(&header)) as u32) << 16;
    header
}

#[inline(always)]
const fn header_v6(source: &Address, destination: &Address) -> [u32; 10] {
    let [s0, s1, s2, s3] = *source;
    let [d0, d1, d2, d3] = *destination;
    let lengths = UDP_PONG << 16 | (proto::UDP as u32) << 8 | HOPS;
    [0x6000_0000_u32.to_be(), lengths.to_be(), s0, s1, s2, s3, d0, d1, d2, d3]
}

/// An answer must go to one other machine, and come from one of ours: nothing unspecified, of loopback, of a group or
/// reserved.
#[inline(always)]
const fn may_be_answered(datagram: &Datagram) -> bool {
    let Datagram { ip, source_port, .. } = datagram;
    let first = u32::from_be(ip.source[0]);
    let from_one = match ip.family {
        Family::V4 => !matches!(first >> 24, 0 | 127 | 224..),
        Family::V6 => ip.source[0] | ip.source[1] != 0 && first >> 24 != 0xff,
    };
    from_one && !ip.is_multicast() && (source_port[0] | source_port[1]) != 0
}
