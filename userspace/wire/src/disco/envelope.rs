//! The outside of a DISCO packet: magic, sender and sealed message.

use types::DiscoPublic;

use super::{Error, Message};
use crate::nacl::{NONCE_LEN, SharedBox};

/// "TS" and a speech balloon in UTF-8: how a DISCO packet on the WireGuard port is told from WireGuard.
pub const MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];
/// Magic, the sender's key and the nonce.
pub const HEADER_LEN: usize = MAGIC.len() + 32 + NONCE_LEN;

/// Whether `packet` claims to be DISCO; nothing is verified.
pub fn looks_like_disco(packet: &[u8]) -> bool {
    packet.len() >= HEADER_LEN && packet.starts_with(&MAGIC)
}

/// Who claims to have sent `packet`; `None` when it does not look like DISCO.
pub fn sender(packet: &[u8]) -> Option<DiscoPublic> {
    if !looks_like_disco(packet) {
        return None;
    }
    packet[MAGIC.len()..].first_chunk().map(|key| DiscoPublic::from_bytes(*key))
}

/// A packet ready for the socket. `sender` is our own public key, `shared` belongs to our private and the peer's public
/// key, `nonce` is random.
pub fn seal(sender: &DiscoPublic, shared: &SharedBox, nonce: [u8; NONCE_LEN], message: &Message) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER_LEN + 128);
    packet.extend_from_slice(&MAGIC);
    packet.extend_from_slice(sender.as_bytes());
    shared.seal(nonce, &message.encode(), &mut packet);
    packet
}

/// The message of a packet whose [`sender`] is the peer of `shared`.
///
/// # Errors
/// When it is not DISCO, does not open or is malformed inside.
pub fn open(shared: &SharedBox, packet: &[u8]) -> Result<Message, Error> {
    if !looks_like_disco(packet) {
        return Err(Error::NotDisco);
    }
    let plain = shared.open(&packet[MAGIC.len() + 32..]).ok_or(Error::Sealed)?;
    Message::decode(&plain)
}
