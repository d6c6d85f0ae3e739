//! NaCl boxes (XSalsa20 and Poly1305 under a shared key) of the two sizes that the programs handle: a DISCO ping's and its
//! pong's.
//!
//! The key stream's first 32 bytes are Poly1305's key; the message begins behind them. A pong ends where the first block
//! of the stream does, a ping needs a second one.

use super::Key;
use super::poly1305::{tag_of_32, tag_of_46};
use super::salsa20::XSalsa20;

/// Bytes of the message in a ping's box.
pub const PING_LEN: usize = 46;
/// Bytes of the message in a pong's box.
pub const PONG_LEN: usize = 32;
/// The last word of a ping's message has two bytes; its other two are always zero here.
const PING_LAST: u32 = 0xffff;

/// A box, and what opening or sealing it needs besides the key. In a program it is in a map: the stack has not the room.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Sealed {
    /// Whose it is, as it says itself.
    pub sender: Key,
    /// The nonce, and the cipher.
    pub cipher: XSalsa20,
    /// Poly1305's.
    pub tag: [u32; 4],
    /// The message, open or sealed; zeros behind it.
    pub text: [u32; 12],
    right: [u32; 4],
}

impl Sealed {
    /// Opens a ping in place, if the tag is right; compared without a branch on how much of it is.
    #[inline(always)]
    pub const fn open_ping(&mut self, key: &Key) -> bool {
        self.cipher.begin(key);
        self.text[11] &= PING_LAST;
        tag_of_46(&mut self.right, &self.cipher.block, &self.text);
        let ([a, b, c, d], [e, f, g, h]) = (self.right, self.tag);
        if (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) != 0 {
            return false;
        }
        let mut at = 0;
        while at < 8 {
            self.text[at] ^= self.cipher.block[8 + at];
            at += 1;
        }
        self.cipher.make(1);
        while at < 12 {
            self.text[at] ^= self.cipher.block[at - 8];
            at += 1;
        }
        self.text[11] &= PING_LAST;
        true
    }

    /// Seals a pong in place.
    #[inline(always)]
    pub const fn seal_pong(&mut self, key: &Key) {
        self.cipher.begin(key);
        let mut at = 0;
        while at < 8 {
            self.text[at] ^= self.cipher.block[8 + at];
            at += 1;
        }
        let [text @ .., _, _, _, _] = &self.text;
        tag_of_32(&mut self.tag, &self.cipher.block, text);
    }
}
