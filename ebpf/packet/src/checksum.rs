//! The Internet checksum (RFC 1071), and changing one without summing the packet again (RFC 1624).
//!
//! Sums are of 16-bit words in memory order; a ones' complement sum does not care about the byte order, as long as it is
//! the same all over.

/// The sum of words, to be folded.
#[inline(always)]
pub(crate) const fn sum<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at < N {
        sum += words[at] as u64;
        at += 1;
    }
    sum
}

/// A sum as 16 bits.
#[inline(always)]
pub(crate) const fn fold(sum: u64) -> u16 {
    // At most 2^33 - 2, then 3 * 2^16, then 2^16 + 1, then 2^16 - 1.
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The sum of two sums.
#[inline(always)]
pub(crate) const fn add(a: u16, b: u16) -> u16 {
    let sum = a as u32 + b as u32;
    (sum + (sum >> 16)) as u16
}

/// What turns a sum that has `old` in it into one that has `new` instead, both folded.
#[inline(always)]
pub(crate) const fn delta(old: u16, new: u16) -> u16 {
    add(new, !old)
}

/// The checksum of a packet whose sum changed by `delta` (RFC 1624, equation 3). What was wrong stays wrong.
#[inline(always)]
pub(crate) const fn update(checksum: u16, delta: u16) -> u16 {
    !add(!checksum, delta)
}

/// A UDP checksum as it is written: zero would say that there is none (RFC 768).
#[inline(always)]
pub(crate) const fn or_ones(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The words of a UDP pseudo header besides the addresses and the length (RFC 768, RFC 8200 section 8.1).
pub(crate) const UDP_PROTOCOL: u64 = u16::from_ne_bytes([0, crate::proto::UDP]) as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(words: &[u16]) -> u16 {
        words.iter().fold(0_u32, |sum, word| {
            let sum = sum + u32::from(*word);
            (sum & 0xffff) + (sum >> 16)
        }) as u16
    }

    fn noise(seed: &mut u64) -> u32 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed as u32
    }

    #[test]
    fn folding_is_ones_complement_addition() {
        let mut seed = 88_172_645_463_325_252;
        for _ in 0..1000 {
            let words: [u32; 14] = core::array::from_fn(|_| noise(&mut seed));
            let mut halves = [0; 28];
            for (at, word) in words.iter().enumerate() {
                (halves[2 * at], halves[2 * at + 1]) = (*word as u16, (*word >> 16) as u16);
            }
            assert_eq!(fold(sum(&words)), reference(&halves));
        }
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0), 0);
    }

    #[test]
    fn an_updated_checksum_is_that_of_the_changed_packet() {
        let mut seed = 1_181_783_497_276_652_981;
        for _ in 0..100_000 {
            let [kept, old, new]: [u16; 3] = core::array::from_fn(|_| noise(&mut seed) as u16);
            let before = !reference(&[kept, old]);
            let after = !reference(&[kept, new]);
            // Two zeros: they differ in writing only.
            let same = |a: u16, b: u16| a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0);
            assert!(same(update(before, delta(old, new)), after), "{kept:04x} {old:04x} {new:04x}");
        }
    }
}
