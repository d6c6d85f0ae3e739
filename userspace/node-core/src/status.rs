//! Status: what the local API shows of a peer's connection. What the netmap says of it (name, user, online, keys) is the
//! peer's [`wire::control::Node`] itself.

use std::net::SocketAddr;
use std::time::SystemTime;

use types::RegionId;

use crate::path::Path;

/// The connection to one peer, at one moment (`ipn/ipnstate`, `PeerStatus`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// The trusted path, while there is one: `CurAddr` when direct, else `PeerRelay`.
    pub current: Option<Path>,
    /// Its home region, the way when there is no direct one: `Relay`.
    pub relay: Option<RegionId>,
    /// Whether packets went to it in the last 45 s: `Active`.
    pub active: bool,
    /// When the last packet went to it: `LastWrite`.
    pub last_write: Option<SystemTime>,
    /// When the kernel last completed a handshake with it: `LastHandshake`.
    pub last_handshake: Option<SystemTime>,
    /// Bytes from it: `RxBytes`.
    pub rx_bytes: u64,
    /// Bytes to it: `TxBytes`.
    pub tx_bytes: u64,
    /// Its candidates, from map, pings and call-me-maybe: `Addrs`.
    pub candidates: Vec<SocketAddr>,
    /// Whether the WireGuard device has it: `InEngine`.
    pub in_engine: bool,
}
