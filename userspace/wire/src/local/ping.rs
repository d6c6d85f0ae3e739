//! `ping`: what can be asked and what comes back (`tailcfg.PingType`, `ipnstate.PingResult`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use types::RegionId;

use super::go;

/// The layer a ping travels on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PingType {
    /// Under WireGuard: finds the path; no tunnel needed.
    Disco,
    /// Inside the tunnel, answered by the peer's node software.
    Tsmp,
    /// Inside the tunnel, answered by the peer's operating system.
    Icmp,
    /// An HTTP request to the peer's node software.
    PeerApi,
}

/// The text is none of `disco`, `TSMP`, `ICMP`, `peerapi`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown ping type {0:?}; use disco, TSMP, ICMP or peerapi")]
pub struct UnknownPingType(pub String);

impl fmt::Display for PingType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disco => "disco",
            Self::Tsmp => "TSMP",
            Self::Icmp => "ICMP",
            Self::PeerApi => "peerapi",
        })
    }
}

impl FromStr for PingType {
    type Err = UnknownPingType;
    fn from_str(text: &str) -> Result<Self, UnknownPingType> {
        [Self::Disco, Self::Tsmp, Self::Icmp, Self::PeerApi]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| UnknownPingType(text.to_owned()))
    }
}

/// One answer, or why there was none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PingResult {
    /// What was pinged.
    #[serde(rename = "IP")]
    pub ip: String,
    /// The address of the node that answers for it.
    #[serde(rename = "NodeIP")]
    pub node_ip: String,
    /// That node's name.
    pub node_name: String,
    /// Why it failed; empty for success.
    pub err: String,
    /// Round trip.
    pub latency_seconds: f64,
    /// `ip:port` when the direct path was used.
    pub endpoint: String,
    /// `ip:port:vni:n` when a peer relay was used.
    pub peer_relay: String,
    /// The DERP region that was used, or 0.
    #[serde(rename = "DERPRegionID")]
    pub derp_region_id: RegionId,
    /// Its short name.
    #[serde(rename = "DERPRegionCode")]
    pub derp_region_code: String,
    /// The peer's PeerAPI port, when a TSMP answer told it.
    #[serde(rename = "PeerAPIPort", skip_serializing_if = "go::is_zero")]
    pub peer_api_port: u16,
    /// The URL a `peerapi` ping asked.
    #[serde(rename = "PeerAPIURL", skip_serializing_if = "String::is_empty")]
    pub peer_api_url: String,
    /// The address is our own.
    #[serde(rename = "IsLocalIP", skip_serializing_if = "go::is_false")]
    pub is_local_ip: bool,
}
