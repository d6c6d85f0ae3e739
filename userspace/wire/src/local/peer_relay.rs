//! This node's peer relay: its sessions as Tailscale shows them (`net/udprelay/status`), and what else is known of it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::go;

/// The answer to `debug-peer-relay-sessions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerRelaySessions {
    /// The port asked for, 0 for any; absent: no relay runs.
    #[serde(rename = "UDPPort")]
    pub udp_port: Option<u16>,
    /// Every session, by VNI.
    #[serde(with = "go::nil")]
    pub sessions: Vec<PeerRelaySession>,
}

/// One pair of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerRelaySession {
    /// The session's number.
    #[serde(rename = "VNI")]
    pub vni: u32,
    /// One of the two.
    pub client1: PeerRelayClient,
    /// The other.
    pub client2: PeerRelayClient,
}

/// A client of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerRelayClient {
    /// Its address; empty until it has bound one.
    pub endpoint: String,
    /// The beginning of its DISCO key.
    pub short_disco: String,
    /// Packets it has sent through the relay.
    pub packets_tx: u64,
    /// Their bytes.
    pub bytes_tx: u64,
}

/// The relay in `status`; our own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerRelayReport {
    /// The UDP port it listens on.
    pub port: u16,
    /// Where it says it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// Who forwards: `xdp` or `userspace`.
    pub forwarding: String,
    /// Sessions that wait for a client to bind.
    pub connecting: usize,
    /// Sessions that forward.
    pub open: usize,
    /// Every session, by VNI.
    pub sessions: Vec<PeerRelaySession>,
}
