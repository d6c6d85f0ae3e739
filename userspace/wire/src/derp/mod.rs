//! DERP: packets between node keys, relayed over a TLS stream (tailscale `derp/derp.go`, version 2).
//!
//! Login: the server sends [`Frame::ServerKey`], the client [`Frame::ClientInfo`], the server [`Frame::ServerInfo`]; then
//! frames flow. A frame is a type (1), the length of what follows (4, big endian) and a body, which may be longer than
//! known. Deliberately not here: queues, meshing and policy (relay-core).

mod decoder;
mod frame;
mod info;
mod rewrite;

pub use decoder::Decoder;
pub use frame::{Frame, GoneReason, PresentFlags};
pub use info::{ClientInfo, ServerInfo};
pub use rewrite::{KEYED_LEN, SEND_PACKET, header, packet, readdress};

/// "DERP" and a key in UTF-8: how a server's greeting begins.
pub const MAGIC: [u8; 8] = [0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91];
/// The protocol version spoken here: received packets carry their source.
pub const VERSION: u32 = 2;
/// The longest packet a frame may carry, without keys and header.
pub const MAX_PACKET: usize = 64 << 10;
/// Type and length.
pub const HEADER_LEN: usize = 5;
/// The longest body a client accepts.
pub const MAX_BODY_CLIENT: usize = 1 << 20;
/// The longest body a server accepts: a forwarded packet with both keys.
pub const MAX_BODY_SERVER: usize = MAX_PACKET + 64;
/// A server sends something at least this often, plus jitter; twice as long without a frame means it is gone.
pub const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(60);
/// Request header of a client that already knows the server's key and does not want the 101 answer.
pub const FAST_START_HEADER: &str = "Derp-Fast-Start";
/// Request header naming the node of the region the client would rather use.
pub const IDEAL_NODE_HEADER: &str = "Ideal-Node";

/// Why bytes are not DERP. After [`Error::Short`] the stream is still in step; after the others it is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A body without its fixed fields.
    #[error("DERP {0} frame is cut short")]
    Short(&'static str),
    /// The header announces more than this side accepts.
    #[error("DERP frame {kind:#04x} announces {length} bytes, at most {limit} are accepted")]
    TooLong {
        /// The frame's type.
        kind: u8,
        /// Announced.
        length: usize,
        /// Accepted.
        limit: usize,
    },
    /// The greeting does not start with [`MAGIC`]: no DERP server.
    #[error("the greeting is not a DERP server's")]
    Magic,
    /// The info box does not open: damaged, or the other side lied about its key.
    #[error("DERP info does not open with the other side's key")]
    Sealed,
    /// The info inside its box is not the JSON expected.
    #[error("DERP info is not valid: {0}")]
    Info(String),
}

#[cfg(test)]
mod tests;
