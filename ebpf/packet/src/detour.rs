//! Detours of WireGuard packets: a relay's Geneve header put on and taken off, ports exchanged.
//!
//! Both directions are one change of headers whose checksums are mended, not made (RFC 1624): what was wrong stays wrong, and
//! a datagram without a UDP checksum keeps none. Tailscale's header has no options (`net/packet/geneve.go`).

use abi::{Arrival, Endpoint, Family};

use crate::checksum::{UDP_PROTOCOL, delta, fold, or_ones, sum, update};
use crate::{Datagram, Frame, LinkFrame};

/// Bytes of the header.
pub const GENEVE: usize = 8;
/// First word of the header of WireGuard data: version 0, no options, not a control message.
const WIREGUARD: u32 = 0x0000_7a12;

/// What happens to the Geneve header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// There is none.
    None,
    /// It is taken off.
    Off,
    /// One is put on; the second word of it.
    On(u32),
}

/// The headers of a packet afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The first words of the network header; the others stay.
    pub network: [u32; 3],
    /// The UDP header.
    pub udp: [u32; 2],
}

/// The VNI of WireGuard data that a relay sent, as the packet carries it; zero if it is not that.
#[inline(always)]
pub fn relayed_vni(frame: &impl Frame, datagram: &Datagram) -> u32 {
    match frame.words::<2>(datagram.payload) {
        Some([first, vni])
            if first == WIREGUARD.to_be() && datagram.len >= GENEVE && u32::from_be(vni) & 0xff == 0 =>
        {
            vni
        }
        _ => 0,
    }
}

/// Whether the checksum was left to the sender's device, as on a veth: the field holds the sum of the pseudo header alone. One
/// complete checksum in 65,536 looks the same.
#[inline(always)]
pub fn is_partial(frame: &impl Frame, datagram: &Datagram) -> bool {
    let Some([rest]) = frame.words::<1>(datagram.payload - 4) else { return false };
    let [l0, l1, c0, c1] = rest.to_ne_bytes();
    let length = u16::from_ne_bytes([l0, l1]) as u64;
    let pseudo = sum(&datagram.ip.source) + sum(&datagram.ip.destination) + UDP_PROTOCOL + length;
    u16::from_ne_bytes([c0, c1]) == fold(pseudo)
}

/// The key of what has arrived.
#[inline(always)]
pub const fn arrival(datagram: &Datagram, vni: u32) -> Arrival {
    Arrival {
        address: datagram.ip.source,
        port: datagram.source_port,
        local_port: datagram.destination_port,
        vni,
        family: datagram.ip.family as u32,
    }
}

/// The key of where a datagram goes.
#[inline(always)]
pub const fn endpoint(datagram: &Datagram) -> Endpoint {
    Endpoint::new(datagram.ip.family, datagram.ip.destination, datagram.destination_port)
}

/// The headers with these ports (source and destination, network order) and the Geneve header on or off.
#[inline(always)]
pub fn headers(frame: &impl Frame, datagram: &Datagram, ports: [u8; 4], header: Header) -> Option<Headers> {
    let [n0, n1, n2] = frame.words::<3>(0)?;
    let [old_ports, old_rest] = frame.words::<2>(datagram.payload - 8)?;
    let ports = u32::from_ne_bytes(ports);
    let [l0, l1, c0, c1] = old_rest.to_ne_bytes();
    let (length, checksum) = (u16::from_be_bytes([l0, l1]), u16::from_ne_bytes([c0, c1]));
    let (geneve_off, geneve_on, length_now) = match header {
        Header::None => (0, 0, length),
        Header::Off => (sum(&frame.words::<2>(datagram.payload)?), 0, length.checked_sub(GENEVE as u16)?),
        Header::On(vni) => (0, sum(&geneve(vni)), length.checked_add(GENEVE as u16)?),
    };
    // The length is in the UDP header and in the pseudo header.
    let before = fold(old_ports as u64 + 2 * length.to_be() as u64 + geneve_off);
    let after = fold(ports as u64 + 2 * length_now.to_be() as u64 + geneve_on);
    let checksum = match checksum {
        0 => 0,
        checksum => or_ones(update(checksum, delta(before, after))),
    };
    let network = match datagram.ip.family {
        Family::V4 => {
            let head = u32::from_be(n0);
            let total = (head as u16).wrapping_sub(length).wrapping_add(length_now);
            let [t0, t1, h0, h1] = n2.to_ne_bytes();
            let change = delta((head as u16).to_be(), total.to_be());
            let [h0, h1] = update(u16::from_ne_bytes([h0, h1]), change).to_ne_bytes();
            [(head & 0xffff_0000 | total as u32).to_be(), n1, u32::from_ne_bytes([t0, t1, h0, h1])]
        }
        Family::V6 => {
            let rest = u32::from_be(n1);
            let payload = ((rest >> 16) as u16).wrapping_sub(length).wrapping_add(length_now);
            [n0, ((payload as u32) << 16 | rest & 0xffff).to_be(), n2]
        }
    };
    let ([l0, l1], [c0, c1]) = (length_now.to_be_bytes(), checksum.to_ne_bytes());
    Some(Headers { network, udp: [ports, u32::from_ne_bytes([l0, l1, c0, c1])] })
}

/// The Geneve header of WireGuard data.
#[inline(always)]
pub const fn geneve(vni: u32) -> [u32; 2] {
    [WIREGUARD.to_be(), vni]
}

/// Writes the headers of an arrived frame in place; with the Geneve header taken off, everything before it moves up.
#[inline(always)]
pub fn take_off(
    frame: &mut impl LinkFrame,
    datagram: &Datagram,
    headers: &Headers,
    header: Header,
) -> Option<()> {
    let Headers { network: [n0, n1, n2], udp } = *headers;
    if header != Header::Off {
        return frame.set_words(datagram.payload - 8, udp);
    }
    let macs = frame.macs()?;
    let (source, destination) = (datagram.ip.source, datagram.ip.destination);
    match datagram.ip.family {
        Family::V4 => frame.set_words(GENEVE, [n0, n1, n2, source[0], destination[0], udp[0], udp[1]])?,
        Family::V6 => {
            let ([_, s1, s2, s3], [d0, d1, d2, d3]) = (source, destination);
            frame.set_words(GENEVE, [n0, n1, n2, s1, s2, s3, d0, d1, d2, d3, udp[0], udp[1]])?;
        }
    }
    frame.move_head(GENEVE as i32)?;
    frame.set_link(&macs, datagram.ip.family)
}
