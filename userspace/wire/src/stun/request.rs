//! The binding request: 40 bytes, always in the same order, so that a server can answer it in the kernel.

use super::{Error, HEADER_LEN, MAGIC_COOKIE, TxId, attribute, looks_like_stun};

/// Header, SOFTWARE and FINGERPRINT.
pub const REQUEST_LEN: usize = HEADER_LEN + 12 + FINGERPRINT_LEN;

const BINDING_REQUEST: [u8; 2] = [0, 1];
/// What DERP servers recognize their clients by; eight bytes, so no padding.
const TAILNODE: &[u8; 8] = b"tailnode";
const FINGERPRINT_LEN: usize = 8;

/// A binding request. `tx_id` is random, for an answer is believed by it.
pub fn encode_request(tx_id: TxId) -> [u8; REQUEST_LEN] {
    let mut packet = [0; REQUEST_LEN];
    packet[..2].copy_from_slice(&BINDING_REQUEST);
    packet[2..4].copy_from_slice(&((REQUEST_LEN - HEADER_LEN) as u16).to_be_bytes());
    packet[4..8].copy_from_slice(&MAGIC_COOKIE);
    packet[8..20].copy_from_slice(&tx_id.0);
    packet[20..22].copy_from_slice(&attribute::SOFTWARE.to_be_bytes());
    packet[22..24].copy_from_slice(&(TAILNODE.len() as u16).to_be_bytes());
    packet[24..32].copy_from_slice(TAILNODE);
    packet[32..34].copy_from_slice(&attribute::FINGERPRINT.to_be_bytes());
    packet[34..36].copy_from_slice(&4u16.to_be_bytes());
    let fingerprint = fingerprint(&packet[..REQUEST_LEN - FINGERPRINT_LEN]);
    packet[36..].copy_from_slice(&fingerprint.to_be_bytes());
    packet
}

/// The transaction of a request from Tailscale's or our software.
///
/// # Errors
/// Everything else: a server here is no STUN server for the public.
pub fn decode_request(packet: &[u8]) -> Result<TxId, Error> {
    if !looks_like_stun(packet) {
        return Err(Error::NotStun);
    }
    if packet[..2] != BINDING_REQUEST {
        return Err(Error::NotRequest);
    }
    let (header, body) = packet.split_first_chunk::<HEADER_LEN>().ok_or(Error::NotStun)?;
    let attributes = attribute::iter(body).collect::<Result<Vec<_>, _>>()?;
    if !attributes.contains(&(attribute::SOFTWARE, &TAILNODE[..])) {
        return Err(Error::Software);
    }
    let covered = packet.len() - FINGERPRINT_LEN.min(packet.len());
    let expected = fingerprint(&packet[..covered]).to_be_bytes();
    if attributes.last() != Some(&(attribute::FINGERPRINT, &expected[..])) {
        return Err(Error::Fingerprint);
    }
    header[8..].first_chunk().map(|id| TxId(*id)).ok_or(Error::NotStun)
}

/// CRC-32 of ISO 3309 over everything before, exclusive-or "STUN" (RFC 5389 section 15.5).
fn fingerprint(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    !crc ^ u32::from_be_bytes(*b"STUN")
}
