//! STUN binding requests and responses, as much as finding the own address needs (RFC 5389; tailscale
//! `net/stun/stun.go`).
//!
//! Requests carry SOFTWARE "tailnode" and FINGERPRINT, which DERP servers ask for; responses are read tolerantly, for
//! public servers differ. Deliberately not here: retries and timing.

mod attribute;
mod request;
mod response;

pub use request::{REQUEST_LEN, decode_request, encode_request};
pub use response::{decode_response, encode_response};

const HEADER_LEN: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// A transaction's random name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub [u8; 12]);

/// Why a packet is not the STUN message asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No STUN header with the magic cookie.
    #[error("not a STUN packet")]
    NotStun,
    /// STUN, but not a binding request.
    #[error("not a STUN binding request")]
    NotRequest,
    /// STUN, but not a successful binding response.
    #[error("not a successful STUN binding response")]
    NotResponse,
    /// Attributes overrun the message, or the address is missing or malformed.
    #[error("STUN attributes are malformed")]
    Attributes,
    /// SOFTWARE is not "tailnode": a stranger, who gets no answer.
    #[error("STUN request of foreign software")]
    Software,
    /// The last attribute is not a FINGERPRINT with the right CRC.
    #[error("STUN request without a valid fingerprint")]
    Fingerprint,
}

/// Whether `packet` is STUN: two zero bits and the magic cookie, so that neither WireGuard nor DISCO is mistaken for it.
pub fn looks_like_stun(packet: &[u8]) -> bool {
    packet.len() >= HEADER_LEN && packet[0] & 0xc0 == 0 && packet[4..8] == MAGIC_COOKIE
}

/// The transaction of anything that looks like STUN.
pub fn tx_id(packet: &[u8]) -> Option<TxId> {
    if !looks_like_stun(packet) {
        return None;
    }
    packet[8..].first_chunk().map(|id| TxId(*id))
}

#[cfg(test)]
mod tests;
