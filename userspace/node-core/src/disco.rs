//! DISCO: our key, and the boxes shared with the keys we know.
//!
//! A box costs a scalar multiplication, so it is made once a key and kept as long as a peer has the key. Deliberately not
//! here: what a message means (`node`), and whose key it is (`peers`).

use std::collections::BTreeMap;

use types::{DiscoPrivate, DiscoPublic};
use wire::disco::{Message, open, seal};
use wire::nacl::SharedBox;

use crate::rng::Rng;

/// Seals and opens DISCO messages.
pub(crate) struct Disco {
    private: DiscoPrivate,
    public: DiscoPublic,
    box_by_key: BTreeMap<DiscoPublic, SharedBox>,
}

impl Disco {
    pub(crate) fn new(private: DiscoPrivate) -> Self {
        Self { public: private.public(), private, box_by_key: BTreeMap::new() }
    }

    /// Our own key.
    pub(crate) fn public(&self) -> DiscoPublic {
        self.public
    }

    /// A datagram for the peer with this key.
    pub(crate) fn seal(&mut self, to: DiscoPublic, message: &Message, rng: &mut Rng) -> Vec<u8> {
        let public = self.public;
        seal(&public, self.shared(to), rng.bytes(), message)
    }

    /// What `from` says; `None` when it does not open or is of a kind not known here, as newer peers may send.
    pub(crate) fn open(&mut self, from: DiscoPublic, datagram: &[u8]) -> Option<Message> {
        open(self.shared(from), datagram).ok()
    }

    pub(crate) fn forget(&mut self, key: &DiscoPublic) {
        self.box_by_key.remove(key);
    }

    fn shared(&mut self, key: DiscoPublic) -> &SharedBox {
        self.box_by_key.entry(key).or_insert_with(|| SharedBox::disco(&self.private, &key))
    }
}
