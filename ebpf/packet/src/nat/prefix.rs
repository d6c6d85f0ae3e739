//! IPv6 prefix translation without state (RFC 6296): the checksums of all transports stay right by themselves.

use abi::Address;

use super::delta::Delta;

/// Two prefixes of one length, at most 48 bits; longer ones have no word left that nothing else uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Inside.
    pub inner: Address,
    /// Outside.
    pub outer: Address,
    /// Their length in bits, 1 to 48.
    pub bits: u32,
}

impl Prefixes {
    /// What an inner address is outside (RFC 6296 section 2.6); none if it is not inside, or has no counterpart (its
    /// subnet is 0xffff, section 3.1).
    #[inline(always)]
    pub const fn outward(&self, address: Address) -> Option<Address> {
        translate(address, self.inner, self.outer, self.bits)
    }

    /// The way back.
    #[inline(always)]
    pub const fn inward(&self, address: Address) -> Option<Address> {
        translate(address, self.outer, self.inner, self.bits)
    }
}

#[inline(always)]
const fn translate(address: Address, from: Address, to: Address, bits: u32) -> Option<Address> {
    if bits == 0 || bits > 48 {
        return None;
    }
    let (high, low) = masks(bits);
    // The 16 bits behind a /48 take up the difference; 0xffff is the ones' complement's other zero.
    let [_, _, s0, s1] = address[1].to_ne_bytes();
    let subnet = u16::from_ne_bytes([s0, s1]);
    if (address[0] ^ from[0]) & high != 0 || (address[1] ^ from[1]) & low != 0 || subnet == 0xffff {
        return None;
    }
    let first = (address[0] & !high) | (to[0] & high);
    let second = (address[1] & !low) | (to[1] & low);
    let change = Delta(0).swap(address[0], first).swap(address[1], second);
    let subnet = match change.apply(subnet) {
        0xffff => 0,
        subnet => subnet,
    };
    let ([a, b, _, _], [c, d]) = (second.to_ne_bytes(), subnet.to_ne_bytes());
    Some([first, u32::from_ne_bytes([a, b, c, d]), address[2], address[3]])
}

/// The bits of a prefix in an address's first two words.
#[inline(always)]
const fn masks(bits: u32) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = (u64::MAX << (64 - bits)).to_be_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(words: [u16; 8]) -> Address {
        let word = |at: usize| {
            let ([a, b], [c, d]) = (words[at].to_be_bytes(), words[at + 1].to_be_bytes());
            u32::from_ne_bytes([a, b, c, d])
        };
        [word(0), word(2), word(4), word(6)]
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6296 section 2.2.
        let prefixes = Prefixes {
            inner: address([0xfd01, 0x0203, 0x0405, 0, 0, 0, 0, 0]),
            outer: address([0x2001, 0x0db8, 0x0001, 0, 0, 0, 0, 0]),
            bits: 48,
        };
        let inner = address([0xfd01, 0x0203, 0x0405, 1, 0, 0, 0, 0x1234]);
        let outer = address([0x2001, 0x0db8, 0x0001, 0xd550, 0, 0, 0, 0x1234]);
        assert_eq!(prefixes.outward(inner), Some(outer));
        assert_eq!(prefixes.inward(outer), Some(inner));
        assert_eq!(prefixes.outward(address([0xfd01, 0x0203, 0x0406, 1, 0, 0, 0, 1])), None);
        assert_eq!(prefixes.outward(address([0xfd01, 0x0203, 0x0405, 0xffff, 0, 0, 0, 1])), None);
    }

    #[test]
    fn the_sum_stays_and_the_way_back_leads_back() {
        for bits in [1, 32, 40, 47, 48] {
            let prefixes = Prefixes {
                inner: address([0xfd01, 0xff03, 0xffff, 0, 0, 0, 0, 0]),
                outer: address([0x2a01, 0x0db8, 0x0001, 0, 0, 0, 0, 0]),
                bits,
            };
            for subnet in (0..0xffff).step_by(7) {
                let inner = address([0xfd01, 0xff03, 0xffff, subnet, 9, 8, 7, 6]);
                let outer = prefixes.outward(inner).unwrap();
                let change = Delta(0).swap_address(&inner, &outer);
                assert_eq!(change.apply(0x1234), 0x1234);
                assert_eq!(prefixes.inward(outer), Some(inner), "{bits} {subnet:x}");
            }
        }
    }
}
