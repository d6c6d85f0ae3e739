//! The Geneve header peer relays put before each packet (RFC 8926 section 3.4; tailscale `net/packet/geneve.go`).
//!
//! Eight bytes, big endian: version (2 bits), option length (6), control bit, critical bit, reserved (6), protocol (16),
//! VNI (24), reserved (8). Options are not used, so a header with options is refused.

pub use types::Vni;

/// Length of the header without options.
pub const HEADER_LEN: usize = 8;

/// What follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A DISCO packet, 0x7A11.
    Disco,
    /// A WireGuard packet, 0x7A12.
    WireGuard,
}

impl Protocol {
    /// The EtherType that names it.
    pub const fn number(self) -> u16 {
        match self {
            Self::Disco => 0x7a11,
            Self::WireGuard => 0x7a12,
        }
    }
}

/// Why bytes are not such a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer than [`HEADER_LEN`] bytes.
    #[error("Geneve header is cut short")]
    Short,
    /// RFC 8926 asks to drop unknown versions.
    #[error("unknown Geneve version {0}")]
    Version(u8),
    /// No option is known here.
    #[error("Geneve options are not supported")]
    Options,
    /// Neither DISCO nor WireGuard.
    #[error("unknown Geneve protocol {0:#06x}")]
    Protocol(u16),
}

/// Whether `packet` claims to begin with such a header: neither WireGuard, DISCO nor STUN begins so.
pub fn looks_like_geneve(packet: &[u8]) -> bool {
    matches!(packet, [0, 0 | 0x80, 0x7a, 0x11 | 0x12, ..])
}

/// One header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Set on the handshake between client and relay, which the relay does not forward.
    pub control: bool,
    /// What follows.
    pub protocol: Protocol,
    /// Which pair of clients.
    pub vni: Vni,
}

impl Header {
    /// The eight bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let [p0, p1] = self.protocol.number().to_be_bytes();
        let [_, v0, v1, v2] = self.vni.get().to_be_bytes();
        [0, if self.control { 0x80 } else { 0 }, p0, p1, v0, v1, v2, 0]
    }

    /// A header and the packet after it.
    ///
    /// # Errors
    /// When it is short, of another version or protocol, or has options.
    pub fn decode(packet: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (header, payload) = packet.split_first_chunk::<HEADER_LEN>().ok_or(Error::Short)?;
        let [first, flags, p0, p1, v0, v1, v2, _] = *header;
        if first >> 6 != 0 {
            return Err(Error::Version(first >> 6));
        }
        if first != 0 {
            return Err(Error::Options);
        }
        let protocol = match u16::from_be_bytes([p0, p1]) {
            0x7a11 => Protocol::Disco,
            0x7a12 => Protocol::WireGuard,
            other => return Err(Error::Protocol(other)),
        };
        let vni = Vni::from_be_bytes([v0, v1, v2]);
        Ok((Self { control: flags & 0x80 != 0, protocol, vni }, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 8] = [0, 0x80, 0x7a, 0x11, 0xff, 0xff, 0xff, 0];

    #[test]
    fn header_matches_its_bytes_both_ways() {
        let header = Header { control: true, protocol: Protocol::Disco, vni: Vni::new(Vni::MAX).unwrap() };
        assert_eq!(header.encode(), BYTES);
        assert_eq!(Header::decode(&BYTES), Ok((header, &[][..])));
        let data = Header { control: false, protocol: Protocol::WireGuard, vni: Vni::new(0x010203).unwrap() };
        let packet = [&data.encode()[..], b"payload"].concat();
        assert_eq!(Header::decode(&packet), Ok((data, &b"payload"[..])));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for cut in 0..HEADER_LEN {
            assert_eq!(Header::decode(&BYTES[..cut]), Err(Error::Short));
        }
        let with = |index: usize, byte| {
            let mut bytes = BYTES;
            bytes[index] = byte;
            Header::decode(&bytes).map(|_| ())
        };
        assert_eq!(with(0, 0xc0), Err(Error::Version(3)));
        assert_eq!(with(0, 0x01), Err(Error::Options));
        assert_eq!(with(3, 0x13), Err(Error::Protocol(0x7a13)));
        assert_eq!(Vni::new(Vni::MAX + 1), None);
    }
}
