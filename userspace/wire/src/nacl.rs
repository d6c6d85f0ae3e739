//! NaCl boxes (X25519, XSalsa20, Poly1305) as DISCO and DERP use them.
//!
//! A [`SharedBox`] holds the key derived once for a pair; callers keep one a peer, because deriving it costs a scalar
//! multiplication and sealing does not. Nonces are arguments. Deliberately not here: framing (see `disco`, `derp`).

use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use types::{DiscoPrivate, DiscoPublic, NodePrivate, NodePublic};

/// Length of a box's nonce.
pub const NONCE_LEN: usize = 24;
/// What sealing adds to a message: the Poly1305 tag, in front of the ciphertext.
pub const TAG_LEN: usize = 16;

/// Seals and opens messages between one private and one public key. Secret, so no `Debug`.
pub struct SharedBox(SalsaBox);

impl SharedBox {
    /// Between two DISCO keys.
    pub fn disco(ours: &DiscoPrivate, theirs: &DiscoPublic) -> Self {
        Self::derive(ours.secret_bytes(), theirs.as_bytes())
    }

    /// Between two node keys: a DERP client's and its server's.
    pub fn node(ours: &NodePrivate, theirs: &NodePublic) -> Self {
        Self::derive(ours.secret_bytes(), theirs.as_bytes())
    }

    fn derive(ours: &[u8; 32], theirs: &[u8; 32]) -> Self {
        Self(SalsaBox::new(&PublicKey::from(*theirs), &SecretKey::from(*ours)))
    }

    /// Appends nonce and box of `plain` to `out`: what Go's `SealTo` returns. `nonce` must never repeat for this pair.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], plain: &[u8], out: &mut Vec<u8>) {
        let sealed =
            self.0.encrypt(&nonce.into(), plain).expect("a message in memory is below the cipher's limit");
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
    }

    /// The message inside nonce and box; `None` when it is short, forged or for somebody else.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        self.0.decrypt(&(*nonce).into(), sealed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pair_opens_what_the_pair_sealed() {
        let (a, b, c) = (DiscoPrivate::from_random([1; 32]), DiscoPrivate::from_random([2; 32]), [3; 32]);
        let mut sealed = Vec::new();
        SharedBox::disco(&a, &b.public()).seal([9; NONCE_LEN], b"hello", &mut sealed);
        assert_eq!(sealed.len(), NONCE_LEN + TAG_LEN + 5);
        assert_eq!(SharedBox::disco(&b, &a.public()).open(&sealed).as_deref(), Some(&b"hello"[..]));
        let stranger = DiscoPrivate::from_random(c);
        assert_eq!(SharedBox::disco(&stranger, &a.public()).open(&sealed), None);
        for cut in 0..sealed.len() {
            assert_eq!(SharedBox::disco(&b, &a.public()).open(&sealed[..cut]), None);
        }
    }
}
