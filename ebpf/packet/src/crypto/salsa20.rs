//! Salsa20 and HSalsa20 (Bernstein, "Extending the Salsa20 nonce", 2011), one block at a time.

use super::Key;

/// "expand 32-byte k".
const SIGMA: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The key of the NaCl box between two parties, from their X25519 product (`crypto_box_beforenm`).
pub fn box_key(product: &[u8; 32]) -> Key {
    let mut key = [0; 8];
    hsalsa20(&mut key, &super::words(product), &[0; 4]);
    key
}

/// Derives a key from a key and the first 16 bytes of a 24-byte nonce.
#[inline(never)]
pub(super) const fn hsalsa20(derived: &mut Key, key: &Key, nonce: &[u32; 4]) {
    let x = rounds(input(key, *nonce));
    *derived = [x[0], x[5], x[10], x[15], x[6], x[7], x[8], x[9]];
}

/// A key stream under a nonce of 24 bytes, one block at a time. One place for all of it: each pointer less is eight bytes of
/// a program's stack less.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct XSalsa20 {
    /// Must never repeat under a key, when sealing.
    pub nonce: [u32; 6],
    key: Key,
    pub(super) block: [u32; 16],
}

impl XSalsa20 {
    /// Takes a key, with the nonce that is here already, and makes the first block.
    #[inline(always)]
    pub(super) const fn begin(&mut self, key: &Key) {
        let [first @ .., _, _] = &self.nonce;
        hsalsa20(&mut self.key, key, first);
        self.make(0);
    }

    /// Makes another block: two functions, or the compiler keeps what the second adds in the stack of the first, which has
    /// 512 bytes for a whole chain of calls.
    #[inline(always)]
    pub(super) const fn make(&mut self, counter: u32) {
        self.scramble(counter);
        self.add(counter);
    }

    #[inline(never)]
    const fn scramble(&mut self, counter: u32) {
        self.block = rounds(self.input(counter));
    }

    #[inline(never)]
    const fn add(&mut self, counter: u32) {
        let input = self.input(counter);
        let mut at = 0;
        while at < 16 {
            self.block[at] = self.block[at].wrapping_add(input[at]);
            at += 1;
        }
    }

    #[inline(always)]
    const fn input(&self, counter: u32) -> [u32; 16] {
        input(&self.key, [self.nonce[4], self.nonce[5], counter, 0])
    }
}

#[inline(always)]
const fn input(key: &Key, nonce: [u32; 4]) -> [u32; 16] {
    let [k0, k1, k2, k3, k4, k5, k6, k7] = *key;
    let [s0, s1, s2, s3] = SIGMA;
    [s0, k0, k1, k2, k3, s1, nonce[0], nonce[1], nonce[2], nonce[3], s2, k4, k5, k6, k7, s3]
}

/// Twenty rounds: ten times columns, then rows.
#[inline(always)]
const fn rounds(mut x: [u32; 16]) -> [u32; 16] {
    let mut round = 0;
    while round < 10 {
        quarter::<0, 4, 8, 12>(&mut x);
        quarter::<5, 9, 13, 1>(&mut x);
        quarter::<10, 14, 2, 6>(&mut x);
        quarter::<15, 3, 7, 11>(&mut x);
        quarter::<0, 1, 2, 3>(&mut x);
        quarter::<5, 6, 7, 4>(&mut x);
        quarter::<10, 11, 8, 9>(&mut x);
        quarter::<15, 12, 13, 14>(&mut x);
        round += 1;
    }
    x
}

#[inline(always)]
const fn quarter<const A: usize, const B: usize, const C: usize, const D: usize>(x: &mut [u32; 16]) {
    x[B] ^= x[A].wrapping_add(x[D]).rotate_left(7);
    x[C] ^= x[B].wrapping_add(x[A]).rotate_left(9);
    x[D] ^= x[C].wrapping_add(x[B]).rotate_left(13);
    x[A] ^= x[D].wrapping_add(x[C]).rotate_left(18);
}
