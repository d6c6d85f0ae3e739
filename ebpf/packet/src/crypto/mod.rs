//! The cryptography that the programs do themselves: NaCl boxes of DISCO, and the MAC of WireGuard's handshakes.
//!
//! Written for the verifier: state is arrays of words with constant indices, loops have constant bounds, nothing allocates,
//! nothing depends on secrets but values (no branch, no index). Checked against libsodium's vectors and against `crypto_box`
//! and `blake2`, and in the kernel by test-run. Deliberately not here: X25519, which userspace does once a key.

mod blake2s;
mod poly1305;
mod salsa20;
mod sealed;

#[cfg(test)]
mod tests;

pub use blake2s::{Hash, blake2s};
pub use salsa20::{XSalsa20, box_key};
pub use sealed::{PING_LEN, PONG_LEN, Sealed};

/// All words here are little endian, as Salsa20, Poly1305 and BLAKE2s read them; packet memory is copied without swapping.
const _: () = assert!(cfg!(target_endian = "little"), "packet words are taken for little endian");

/// A key of 32 bytes.
pub type Key = [u32; 8];

/// The words of 32 bytes.
pub const fn words(bytes: &[u8; 32]) -> Key {
    let mut words = [0; 8];
    let mut at = 0;
    while at < 8 {
        words[at] =
            u32::from_le_bytes([bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]]);
        at += 1;
    }
    words
}
