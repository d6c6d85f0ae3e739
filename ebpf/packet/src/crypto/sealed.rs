//! NaCl boxes (XSalsa20 and Poly1305 under a shared key) of the two sizes that the programs handle: a DISCO ping's and its
//! pong's.
//!
//! The key stream's first 32 bytes are Poly1305's key; the message begins behind them. A pong ends where the first block
//! of the stream does, a ping needs a second one.

use super::{Key, poly1305::Poly1305, salsa20::hsalsa20, salsa20::salsa20};

/// Bytes of the message in a ping's box.
pub const PING_LEN: usize = 46;
/// Bytes of the message in a pong's box.
pub const PONG_LEN: usize = 32;
/// The last word of a ping's message has two bytes; its other two are always zero here.
const PING_LAST: u32 = 0xffff;

/// Opens a ping's box in place, if the tag is right; compared without a branch on how much of it is.
#[inline(always)]
pub fn open_ping(key: &Key, nonce: &[u32; 6], tag: &[u32; 4], text: &mut [u32; 12]) -> bool {
    let key = subkey(key, nonce);
    let first = salsa20(&key, &[nonce[4], nonce[5]], 0);
    text[11] &= PING_LAST;
    let mut poly = Poly1305::new(&mac_key(&first));
    poly.block([text[0], text[1], text[2], text[3]]);
    poly.block([text[4], text[5], text[6], text[7]]);
    poly.last([text[8], text[9], text[10], text[11] | 1 << 16]);
    let right = poly.tag();
    let wrong = (right[0] ^ tag[0]) | (right[1] ^ tag[1]) | (right[2] ^ tag[2]) | (right[3] ^ tag[3]);
    if wrong != 0 {
        return false;
    }
    let second = salsa20(&key, &[nonce[4], nonce[5]], 1);
    let mut at = 0;
    while at < 8 {
        text[at] ^= first[8 + at];
        at += 1;
    }
    while at < 12 {
        text[at] ^= second[at - 8];
        at += 1;
    }
    text[11] &= PING_LAST;
    true
}

/// Seals a pong's message in place and gives the tag. `nonce` must never repeat under `key`.
#[inline(always)]
pub fn seal_pong(key: &Key, nonce: &[u32; 6], text: &mut [u32; 8]) -> [u32; 4] {
    let key = subkey(key, nonce);
    let stream = salsa20(&key, &[nonce[4], nonce[5]], 0);
    let mut at = 0;
    while at < 8 {
        text[at] ^= stream[8 + at];
        at += 1;
    }
    let mut poly = Poly1305::new(&mac_key(&stream));
    poly.block([text[0], text[1], text[2], text[3]]);
    poly.block([text[4], text[5], text[6], text[7]]);
    poly.tag()
}

#[inline(always)]
fn subkey(key: &Key, nonce: &[u32; 6]) -> Key {
    hsalsa20(key, &[nonce[0], nonce[1], nonce[2], nonce[3]])
}

#[inline(always)]
fn mac_key(block: &[u32; 16]) -> Key {
    let [k0, k1, k2, k3, k4, k5, k6, k7, ..] = *block;
    [k0, k1, k2, k3, k4, k5, k6, k7]
}
