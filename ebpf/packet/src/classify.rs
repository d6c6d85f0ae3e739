//! What arrives on WireGuard's port: WireGuard itself, or DISCO and STUN for the controller.
//!
//! The rules are Tailscale's (`wgengine/magicsock/magicsock.go`, `packetLooksLike`): the first bytes of the kinds never
//! overlap. What is not certainly for the controller is left to WireGuard, which authenticates everything.

use crate::Frame;

/// Magic, sender's key and nonce: what every DISCO message begins with (`disco/disco.go`).
const DISCO_HEADER: usize = 6 + 32 + 24;
/// RFC 8489 section 5.
const STUN_HEADER: usize = 20;
const STUN_COOKIE: u32 = 0x2112_a442;
const STUN_BINDING_REQUEST: u32 = 0x0001;
const STUN_BINDING_SUCCESS: u32 = 0x0101;
const STUN_BINDING_ERROR: u32 = 0x0111;

/// First words of Geneve headers (RFC 8926, section 3.4): protocols, and the control bit.
const GENEVE_DISCO: u32 = 0x7a11;
const GENEVE_WIREGUARD: u32 = 0x7a12;
const GENEVE_CONTROL: u32 = 0x0080_0000;

/// What a datagram on WireGuard's port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A WireGuard message of this type, by the kernel's own rule of type and size (`drivers/net/wireguard/receive.c`).
    WireGuard(u8),
    /// A DISCO message, not encapsulated.
    Disco,
    /// A STUN binding response. Requests are nothing a node answers.
    Stun,
    /// What a peer relay sends: DISCO or WireGuard behind a Geneve header without options (`net/packet/geneve.go`).
    Geneve,
    /// A WireGuard type with a size that it cannot have: the kernel drops it.
    WrongSize,
    /// Nothing we know.
    Other,
}

/// Looks at the `len` bytes of UDP payload at `offset`.
#[inline(always)]
pub fn classify(frame: &impl Frame, offset: usize, len: usize) -> Class {
    if len < STUN_HEADER {
        return Class::Other;
    }
    let Some([first, second]) = frame.words::<2>(offset) else { return Class::Other };
    let (first, second) = (u32::from_be(first), u32::from_be(second));
    if first == 0x5453_f09f && second >> 16 == 0x92ac && len >= DISCO_HEADER {
        return Class::Disco;
    }
    if second == STUN_COOKIE && matches!(first >> 16, STUN_BINDING_SUCCESS | STUN_BINDING_ERROR) {
        return Class::Stun;
    }
    if first & !GENEVE_CONTROL == GENEVE_DISCO || first == GENEVE_WIREGUARD {
        return Class::Geneve;
    }
    match (first, len) {
        (0x0100_0000, 148) => Class::WireGuard(1),
        (0x0200_0000, 92) => Class::WireGuard(2),
        (0x0300_0000, 64) => Class::WireGuard(3),
        (0x0400_0000, 32..) => Class::WireGuard(4),
        (0x0100_0000 | 0x0200_0000 | 0x0300_0000 | 0x0400_0000, _) => Class::WrongSize,
        _ => Class::Other,
    }
}

/// Whether the `len` bytes of UDP payload at `offset` are a STUN binding request, as far as its header tells.
#[inline(always)]
pub fn is_stun_request(frame: &impl Frame, offset: usize, len: usize) -> bool {
    let Some([first, second]) = frame.words::<2>(offset) else { return false };
    len >= STUN_HEADER
        && u32::from_be(first) >> 16 == STUN_BINDING_REQUEST
        && u32::from_be(second) == STUN_COOKIE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;

    fn check(head: &[u8], len: usize, want: Class) {
        let mut payload = [0; 256];
        payload[..head.len()].copy_from_slice(head);
        assert_eq!(classify(&Bytes(&payload[..len]), 0, len), want, "{head:02x?}, {len} bytes");
    }

    const DISCO: &[u8] = &[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];

    #[test]
    fn wireguard_is_known_by_type_and_size() {
        check(&[1], 148, Class::WireGuard(1));
        check(&[1], 147, Class::WrongSize);
        check(&[2], 92, Class::WireGuard(2));
        check(&[3], 64, Class::WireGuard(3));
        check(&[4], 32, Class::WireGuard(4));
        check(&[4], 31, Class::WrongSize);
        check(&[4, 1], 64, Class::Other);
        check(&[5], 64, Class::Other);
    }

    #[test]
    fn disco_needs_its_whole_header() {
        check(DISCO, 62, Class::Disco);
        check(DISCO, 61, Class::Other);
        check(&DISCO[..5], 62, Class::Other);
    }

    #[test]
    fn a_stun_request_is_known_by_type_cookie_and_length() {
        let request = |kind, len| {
            let mut payload = [0; 20];
            payload[..8].copy_from_slice(&[0, kind, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
            is_stun_request(&Bytes(&payload[..len]), 0, len)
        };
        assert!(request(1, 20));
        assert!(!request(1, 19) && !request(1, 7) && !request(2, 20));
    }

    #[test]
    fn a_peer_relays_packets_are_known_by_their_header() {
        let header = |flags, protocol| [0, flags, 0x7a, protocol, 0, 0, 7, 0];
        check(&header(0, 0x11), 70, Class::Geneve);
        check(&header(0x80, 0x11), 70, Class::Geneve);
        check(&header(0, 0x12), 40, Class::Geneve);
        check(&header(0x80, 0x12), 40, Class::Other);
        check(&header(0x40, 0x11), 70, Class::Other);
        check(&header(0, 0x13), 70, Class::Other);
    }

    #[test]
    fn only_stun_responses_are_the_controllers() {
        check(&[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], 20, Class::Stun);
        check(&[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], 19, Class::Other);
        check(&[1, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42], 20, Class::Stun);
        check(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], 20, Class::Other);
        check(&[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x43], 20, Class::Other);
    }
}
