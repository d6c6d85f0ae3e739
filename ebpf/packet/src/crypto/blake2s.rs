//! BLAKE2s (RFC 7693), as far as WireGuard's first MAC needs it.

use super::Key;

const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Bytes of one block.
const BLOCK: u32 = 64;

/// A hash under way. In a program it is in a map: the stack has not the room.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Hash {
    /// The state so far.
    pub state: [u32; 8],
    /// The next block of the message.
    pub block: [u32; 16],
}

impl Hash {
    /// With a 32-byte key and a 16-byte result, behind the key's block: the same for every message.
    pub const fn keyed(key: &Key) -> Self {
        let mut block = [0; 16];
        let mut at = 0;
        while at < 8 {
            block[at] = key[at];
            at += 1;
        }
        let mut state = IV;
        // Parameter block: 16 bytes out, 32 bytes of key, no tree.
        state[0] ^= 0x0101_0000 | 32 << 8 | 16;
        let mut hash = Self { state, block };
        compress(&mut hash.state, &hash.block, BLOCK, false);
        hash
    }

    /// Takes the block, which is not the last; `behind` counts the bytes up to its end, without the key's block.
    #[inline(always)]
    pub const fn take(&mut self, behind: u32) {
        compress(&mut self.state, &self.block, BLOCK + behind, false);
    }

    /// Takes the last block, filled up with zeros, and gives the first 16 bytes; `length` is the message's.
    #[inline(always)]
    pub const fn finish(&mut self, length: u32) -> [u32; 4] {
        compress(&mut self.state, &self.block, BLOCK + length, true);
        let [h0, h1, h2, h3, ..] = self.state;
        [h0, h1, h2, h3]
    }
}

/// BLAKE2s-256 without a key, of at most one block: what derives the key of the MAC from a public key.
pub fn blake2s(message: &[u8]) -> Key {
    let mut block = [0; 16];
    assert!(message.len() <= BLOCK as usize, "one block");
    for (word, bytes) in block.iter_mut().zip(message.chunks(4)) {
        let mut four = [0; 4];
        four[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_le_bytes(four);
    }
    let mut h = IV;
    h[0] ^= 0x0101_0000 | 32;
    compress(&mut h, &block, message.len() as u32, true);
    h
}

/// RFC 7693 section 3.2; messages here are far below 4 GiB, so the counter is one word. A function of its own in the
/// kernel, for it is long.
#[inline(never)]
const fn compress(h: &mut [u32; 8], m: &[u32; 16], count: u32, last: bool) {
    let mut v = [0; 16];
    let mut at = 0;
    while at < 8 {
        v[at] = h[at];
        v[at + 8] = IV[at];
        at += 1;
    }
    v[12] ^= count;
    if last {
        v[14] = !v[14];
    }
    // Ten rounds by hand: the order of the words is a constant in each, so no index is left at run time.
    round::<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(&mut v, m);
    round::<14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3>(&mut v, m);
    round::<11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4>(&mut v, m);
    round::<7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8>(&mut v, m);
    round::<9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13>(&mut v, m);
    round::<2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9>(&mut v, m);
    round::<12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11>(&mut v, m);
    round::<13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10>(&mut v, m);
    round::<6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5>(&mut v, m);
    round::<10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0>(&mut v, m);
    let mut at = 0;
    while at < 8 {
        h[at] ^= v[at] ^ v[at + 8];
        at += 1;
    }
}

/// One round: four columns, four diagonals, with the message words in this order.
#[inline(always)]
const fn round<
    const M0: usize,
    const M1: usize,
    const M2: usize,
    const M3: usize,
    const M4: usize,
    const M5: usize,
    const M6: usize,
    const M7: usize,
    const M8: usize,
    const M9: usize,
    const M10: usize,
    const M11: usize,
    const M12: usize,
    const M13: usize,
    const M14: usize,
    const M15: usize,
>(
    v: &mut [u32; 16],
    m: &[u32; 16],
) {
    mix::<0, 4, 8, 12>(v, m[M0], m[M1]);
    mix::<1, 5, 9, 13>(v, m[M2], m[M3]);
    mix::<2, 6, 10, 14>(v, m[M4], m[M5]);
    mix::<3, 7, 11, 15>(v, m[M6], m[M7]);
    mix::<0, 5, 10, 15>(v, m[M8], m[M9]);
    mix::<1, 6, 11, 12>(v, m[M10], m[M11]);
    mix::<2, 7, 8, 13>(v, m[M12], m[M13]);
    mix::<3, 4, 9, 14>(v, m[M14], m[M15]);
}

/// RFC 7693 section 3.1.
#[inline(always)]
const fn mix<const A: usize, const B: usize, const C: usize, const D: usize>(
    v: &mut [u32; 16],
    x: u32,
    y: u32,
) {
    v[A] = v[A].wrapping_add(v[B]).wrapping_add(x);
    v[D] = (v[D] ^ v[A]).rotate_right(16);
    v[C] = v[C].wrapping_add(v[D]);
    v[B] = (v[B] ^ v[C]).rotate_right(12);
    v[A] = v[A].wrapping_add(v[B]).wrapping_add(y);
    v[D] = (v[D] ^ v[A]).rotate_right(8);
    v[C] = v[C].wrapping_add(v[D]);
    v[B] = (v[B] ^ v[C]).rotate_right(7);
}
