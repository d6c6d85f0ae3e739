//! The network header: addresses, protocol, where the transport header begins, which fragment it is.
//!
//! The only IPv6 extension header looked into is a fragment header right behind the fixed one, as in Tailscale
//! (`net/packet/packet.go`): other extension headers are protocols of their own here, which no default rule opens.

use abi::{Address, Family, Reason};

use crate::{Frame, proto};

/// Fragments starting below this many blocks of 8 bytes could overlap a transport header: the longest IPv4 header and a
/// TCP header. Tailscale applies the same bound to both families.
const MIN_LATER_FRAGMENT: u32 = (60 + 20) / 8;

/// Which part of a datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All of it.
    Whole,
    /// The first fragment: the transport header is here.
    First,
    /// A later fragment: no transport header.
    Later,
}

/// A parsed network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// IANA protocol number of what follows.
    pub protocol: u8,
    /// Which fragment.
    pub piece: Piece,
    /// Offset of what follows, in bytes from the network header.
    pub transport: usize,
    /// Offset of the packet's end as the header says; the frame may be longer (padding), never shorter.
    pub end: usize,
}

impl Ip {
    /// Reads the header, or says why the packet cannot be one.
    #[inline(always)]
    pub fn parse(frame: &impl Frame) -> Result<Self, Reason> {
        // Both headers have at least these words: one read serves IPv4 entirely.
        let head = frame.words::<5>(0).ok_or(Reason::TooShort)?;
        match u32::from_be(head[0]) >> 28 {
            4 => Self::parse_v4(frame, head),
            6 => Self::parse_v6(frame, head),
            _ => Err(Reason::UnknownProtocol),
        }
    }

    /// RFC 791.
    #[inline(always)]
    fn parse_v4(frame: &impl Frame, header: [u32; 5]) -> Result<Self, Reason> {
        let first = u32::from_be(header[0]);
        let transport = ((first >> 24 & 0xf) * 4) as usize;
        let end = (first & 0xffff) as usize;
        if transport < 20 || end < transport || !frame.reaches(end) {
            return Err(Reason::TooShort);
        }
        let fragment = u32::from_be(header[1]) & 0xffff;
        Ok(Self {
            family: Family::V4,
            source: [header[3], 0, 0, 0],
            destination: [header[4], 0, 0, 0],
            protocol: (u32::from_be(header[2]) >> 16) as u8,
            piece: piece(fragment & 0x1fff, fragment & 0x2000 != 0)?,
            transport,
            end,
        })
    }

    /// RFC 8200 sections 3 and 4.5.
    #[inline(always)]
    fn parse_v6(frame: &impl Frame, head: [u32; 5]) -> Result<Self, Reason> {
        let tail = frame.words::<5>(20).ok_or(Reason::TooShort)?;
        let lengths = u32::from_be(head[1]);
        let end = 40 + (lengths >> 16) as usize;
        if !frame.reaches(end) {
            return Err(Reason::TooShort);
        }
        let mut ip = Self {
            family: Family::V6,
            source: [head[2], head[3], head[4], tail[0]],
            destination: [tail[1], tail[2], tail[3], tail[4]],
            protocol: (lengths >> 8) as u8,
            piece: Piece::Whole,
            transport: 40,
            end,
        };
        if ip.protocol == proto::FRAGMENT {
            let [fragment, _id] = frame.words::<2>(40).ok_or(Reason::TooShort)?;
            let fragment = u32::from_be(fragment);
            ip.protocol = (fragment >> 24) as u8;
            ip.piece = piece(fragment >> 3 & 0x1fff, fragment & 1 != 0)?;
            ip.transport = 48;
        }
        Ok(ip)
    }

    /// Whether `bytes` bytes of transport header lie within the packet.
    #[inline(always)]
    pub const fn holds(&self, bytes: usize) -> bool {
        self.transport + bytes <= self.end
    }

    /// Whether the receiver is a multicast group.
    #[inline(always)]
    pub const fn is_multicast(&self) -> bool {
        let first = u32::from_be(self.destination[0]);
        match self.family {
            Family::V4 => first >> 28 == 0xe,
            Family::V6 => first >> 24 == 0xff,
        }
    }

    /// Whether the receiver is link-local; the cloud metadata address is not counted (`filter.go`, `gcpDNSAddr`).
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        let first = u32::from_be(self.destination[0]);
        match self.family {
            Family::V4 => first >> 16 == 0xa9fe && first != 0xa9fe_a9fe,
            Family::V6 => first >> 22 == 0xfe80 >> 6,
        }
    }
}

/// Which fragment, from its offset in blocks of 8 bytes and the more-fragments bit.
#[inline(always)]
const fn piece(offset: u32, more: bool) -> Result<Piece, Reason> {
    match (offset, more) {
        (0, false) => Ok(Piece::Whole),
        (0, true) => Ok(Piece::First),
        (offset, _) if offset < MIN_LATER_FRAGMENT => Err(Reason::TinyFragment),
        _ => Ok(Piece::Later),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;

    fn v4(edit: impl Fn(&mut [u8; 40])) -> Result<Ip, Reason> {
        let mut packet = [0; 40];
        packet[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, proto::TCP]);
        packet[12..20].copy_from_slice(&[100, 64, 0, 1, 100, 64, 0, 2]);
        edit(&mut packet);
        Ip::parse(&Bytes(&packet))
    }

    fn v6(edit: impl Fn(&mut [u8; 80])) -> Result<Ip, Reason> {
        let mut packet = [0; 80];
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 40, proto::UDP, 64]);
        packet[24] = 0xfd;
        edit(&mut packet);
        Ip::parse(&Bytes(&packet))
    }

    #[test]
    fn options_move_the_transport_header() {
        assert_eq!(v4(|_| ()).unwrap().transport, 20);
        assert_eq!(v4(|p| p[0] = 0x47).unwrap().transport, 28);
        assert_eq!(v6(|_| ()).unwrap().transport, 40);
        assert_eq!(v6(|p| p[6] = proto::FRAGMENT).unwrap().transport, 48);
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        assert_eq!(v4(|p| p[0] = 0x44), Err(Reason::TooShort));
        assert_eq!(v4(|p| p[3] = 41), Err(Reason::TooShort));
        assert_eq!(v4(|p| p[3] = 19), Err(Reason::TooShort));
        assert_eq!(v6(|p| p[5] = 41), Err(Reason::TooShort));
        assert_eq!(v4(|p| p[0] = 0x55), Err(Reason::UnknownProtocol));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let mut packet = [0; 40];
        packet[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, proto::TCP]);
        for length in 0..40 {
            assert_eq!(Ip::parse(&Bytes(&packet[..length])), Err(Reason::TooShort), "{length} bytes");
        }
    }

    #[test]
    fn fragments_are_told_apart_in_both_families() {
        assert_eq!(v4(|p| p[6] = 0x20).unwrap().piece, Piece::First);
        assert_eq!(v4(|p| p[7] = 9), Err(Reason::TinyFragment));
        assert_eq!(v4(|p| p[7] = 10).unwrap().piece, Piece::Later);
        assert_eq!(v4(|p| p[6] = 0x40).unwrap().piece, Piece::Whole, "do not fragment");
        let fragment = |field: u16| {
            v6(move |p| {
                p[6] = proto::FRAGMENT;
                p[40] = proto::TCP;
                p[42..44].copy_from_slice(&field.to_be_bytes());
            })
        };
        assert_eq!(fragment(1).unwrap().piece, Piece::First);
        assert_eq!(fragment(9 << 3), Err(Reason::TinyFragment));
        assert_eq!(fragment(10 << 3 | 1).unwrap().piece, Piece::Later);
        assert_eq!(fragment(0).unwrap().protocol, proto::TCP);
    }

    #[test]
    fn special_receivers_are_recognized() {
        assert!(v4(|p| p[16] = 224).unwrap().is_multicast());
        assert!(!v4(|p| p[16] = 240).unwrap().is_multicast());
        assert!(v4(|p| p[16..18].copy_from_slice(&[169, 254])).unwrap().is_link_local());
        assert!(!v4(|p| p[16..20].copy_from_slice(&[169, 254, 169, 254])).unwrap().is_link_local());
        assert!(v6(|p| p[24] = 0xff).unwrap().is_multicast());
        assert!(v6(|p| p[24..26].copy_from_slice(&[0xfe, 0xbf])).unwrap().is_link_local());
        assert!(!v6(|p| p[24..26].copy_from_slice(&[0xfe, 0xc0])).unwrap().is_link_local());
    }
}
