//! What WireGuard moves, in the bus's `Engine` message (`ipn/backend.go`, `ipn/ipnstate`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::NodePublic;

use super::go;
use crate::control::Time;

/// Sums over all peers, and each live peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EngineStatus {
    /// Bytes received through the tunnel.
    #[serde(rename = "RBytes")]
    pub rx_bytes: i64,
    /// Bytes sent through the tunnel.
    #[serde(rename = "WBytes")]
    pub tx_bytes: i64,
    /// Peers with a recent handshake.
    pub num_live: usize,
    /// Open DERP connections.
    #[serde(rename = "LiveDERPs")]
    pub live_derps: usize,
    /// The live peers by key.
    #[serde(with = "go::nil")]
    pub live_peers: BTreeMap<NodePublic, PeerStatusLite>,
}

/// One peer's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerStatusLite {
    /// The peer.
    pub node_key: NodePublic,
    /// Bytes sent to it.
    pub tx_bytes: i64,
    /// Bytes received from it.
    pub rx_bytes: i64,
    /// Its last handshake with us.
    pub last_handshake: Time,
}
