//! ts2021: Noise IK between a machine key and the server's key, carrying HTTP/2. Sans-IO, both roles.
//!
//! ```text
//! client                                        server
//! initiation  v v 1 l l  96 bytes       ->               in the upgrade request's header
//!                                       <-      response 2 l l  48 bytes, or error 3 l l text
//! records     4 l l ciphertext          <->     records
//!                                       <-      early payload: ff ff ff T S, length, JSON; may be left out
//! HTTP/2                                <->     HTTP/2
//! ```
//!
//! Lengths are 2 bytes, big-endian. `Noise_IK_25519_ChaChaPoly_BLAKE2s` is ts_noise's, the records are
//! ts_control_noise's; what they leave to their caller (framing, sizes, keys of low order) is checked here.
//! Ephemeral keys are drawn inside ts_noise. Source: tailscale `control/controlbase`, `control/ts2021`.

mod early;
mod handshake;
mod record;

pub use early::{EARLY_HEADER_LEN, EarlyError, early_len, encode_early, parse_early};
pub use handshake::{
    ClientHandshake, HandshakeError, INITIATION_LEN, RESPONSE_LEN, ServerHandshake, encode_error, reply_len,
};
pub use record::{MAX_PLAINTEXT, RecordError, Records};

/// What the upgrade is called, in HTTP's `Upgrade` header and as WebSocket subprotocol.
pub const UPGRADE: &str = "tailscale-control-protocol";
/// The header of the upgrade request that carries the initiation in base64.
pub const HANDSHAKE_HEADER: &str = "X-Tailscale-Handshake";
/// The path of the upgrade.
pub const PATH: &str = "/ts2021";

/// Length of a message's header: kind and length.
const HEADER_LEN: usize = 3;

/// The kinds of messages.
mod kind {
    pub(super) const INITIATION: u8 = 1;
    pub(super) const RESPONSE: u8 = 2;
    pub(super) const ERROR: u8 = 3;
    pub(super) const RECORD: u8 = 4;
}
