//! Asking a router for a port: NAT-PMP (RFC 6886), PCP (RFC 6887) and UPnP's Internet gateway device.
//!
//! Bytes and texts only. Deliberately not here: sockets, whom to ask, when to renew (`node`), IPv6, which needs no mapping
//! but a pinhole.

pub mod nat_pmp;
pub mod pcp;
pub mod upnp;

use std::net::SocketAddrV4;
use std::time::Duration;

/// The router's UDP port of NAT-PMP and PCP.
pub const PORT: u16 = 5351;

/// What a router granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Where the outside reaches us.
    pub external: SocketAddrV4,
    /// For how long.
    pub lifetime: Duration,
}

/// Why bytes are not the answer that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an answer of this protocol, or to another question.
    #[error("not an answer to this question")]
    Foreign,
    /// The router speaks another version only.
    #[error("the router does not speak this version")]
    Version,
    /// The router says no.
    #[error("the router refuses: {0}")]
    Refused(String),
}
