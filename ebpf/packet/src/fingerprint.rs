//! The fingerprint of a binding request: CRC-32 of ISO 3309 over all before it, exclusive-or "STUN" (RFC 5389 section 15.5).
//!
//! Of the 32 bytes only the twelve of the transaction differ from request to request, and a CRC is linear: what each half
//! byte of the transaction contributes is precomputed, and the contributions are added.

/// CRC-32, reflected.
const POLYNOMIAL: u32 = 0xedb8_8320;
/// A request's constant bytes, with a transaction of zeros.
const ZERO: [u8; 32] = *b"\x00\x01\x00\x14\x21\x12\xa4\x42\0\0\0\0\0\0\0\0\0\0\0\0\x80\x22\x00\x08tailnode";
/// Where the transaction begins.
const ID: usize = 8;

/// The fingerprint of the request whose transaction has `ZERO`'s bytes.
const BASE: u32 = !crc(u32::MAX, &ZERO) ^ u32::from_be_bytes(*b"STUN");

/// What each value of each half byte adds; a byte's low half comes first.
static PARTS: [[u32; 16]; 24] = parts();

/// The fingerprint of a request with this transaction (words in memory order).
#[inline(always)]
pub(crate) fn of_request(id: &[u32; 3]) -> u32 {
    let mut value = BASE;
    let mut word = 0;
    while word < 3 {
        let mut bits = u32::from_le(id[word]);
        let mut part = 0;
        while part < 8 {
            value ^= PARTS[8 * word + part][(bits & 15) as usize];
            bits >>= 4;
            part += 1;
        }
        word += 1;
    }
    value
}

const fn parts() -> [[u32; 16]; 24] {
    let mut parts = [[0; 16]; 24];
    let mut part = 0;
    while part < 24 {
        let mut value = 0;
        while value < 16 {
            let mut bytes = [0; 32];
            bytes[ID + part / 2] = (value as u8) << (4 * (part % 2));
            // From zero and without the final complement, the sum of no bits is zero.
            parts[part][value] = crc(0, &bytes);
            value += 1;
        }
        part += 1;
    }
    parts
}

const fn crc(mut crc: u32, bytes: &[u8; 32]) -> u32 {
    let mut at = 0;
    while at < 32 {
        crc ^= bytes[at] as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
            bit += 1;
        }
        at += 1;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_the_parts_is_the_crc_of_the_whole() {
        let mut seed = 88_172_645_463_325_252_u64;
        for _ in 0..1000 {
            let id: [u32; 3] = core::array::from_fn(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 32) as u32
            });
            let mut request = ZERO;
            for (four, word) in request[ID..20].chunks_exact_mut(4).zip(id) {
                four.copy_from_slice(&word.to_ne_bytes());
            }
            let whole = !crc(u32::MAX, &request) ^ u32::from_be_bytes(*b"STUN");
            assert_eq!(of_request(&id), whole);
        }
    }
}
