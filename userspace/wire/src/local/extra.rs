//! What only our node can tell: its kernel data plane and its paths. Tailscale's readers never see it or ignore it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use types::{NodePublic, RegionId};

use super::go;
use crate::control::Time;

/// The kernel's side, in `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DataPlane {
    /// `kernel` or `embedded`; empty while there is no device.
    pub wireguard: String,
    /// Name of the WireGuard device.
    pub device: String,
    /// UDP port of WireGuard.
    pub port: u16,
    /// How the programs are attached: `tcx` or `clsact`; empty while they are not.
    pub attach: String,
    /// Packets the programs dropped, by reason; zero counts are left out.
    pub drops: Vec<DropCount>,
}

/// One drop counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DropCount {
    /// The reason's name.
    pub reason: String,
    /// Packets since the maps were made.
    pub packets: u64,
}

/// The answer to `underpass/netcheck`: what STUN over the WireGuard port tells, shaped as Tailscale's `netcheck.Report`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Netcheck {
    /// When it was measured.
    pub now: Time,
    /// A STUN round trip completed.
    #[serde(rename = "UDP")]
    pub udp: bool,
    /// One over IPv4.
    #[serde(rename = "IPv4")]
    pub ipv4: bool,
    /// One over IPv6.
    #[serde(rename = "IPv6")]
    pub ipv6: bool,
    /// Whether the NAT maps by destination; unknown with fewer than two answers.
    #[serde(rename = "MappingVariesByDestIP")]
    pub mapping_varies_by_dest_ip: Option<bool>,
    /// The home region, or 0.
    #[serde(rename = "PreferredDERP")]
    pub preferred_derp: RegionId,
    /// Best round trip by region, in nanoseconds.
    #[serde(with = "go::nil")]
    pub region_latency: BTreeMap<RegionId, i64>,
    /// Our public IPv4 address and port.
    #[serde(rename = "GlobalV4")]
    pub global_v4: Option<SocketAddr>,
    /// Our public IPv6 address and port.
    #[serde(rename = "GlobalV6")]
    pub global_v6: Option<SocketAddr>,
}

/// One peer in the answer to `underpass/paths`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerPaths {
    /// The peer.
    pub peer: NodePublic,
    /// Its name.
    pub name: String,
    /// Where WireGuard's packets go now: `ip:port` or `derp:<region>`.
    pub current: String,
    /// Every path that is known.
    pub paths: Vec<PathReport>,
}

/// One path to a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PathReport {
    /// `ip:port` or `derp:<region>`.
    pub endpoint: String,
    /// Where the address came from: `netmap`, `call-me-maybe`, `ping`, `derp`.
    pub source: String,
    /// Last round trip, if it ever answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_seconds: Option<f64>,
    /// Whether an answer is recent enough to send there.
    pub trusted: bool,
}

/// One line of the answer to `underpass/trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TraceLine {
    /// When userspace read it.
    pub time: Time,
    /// Program, verdict, reason, addresses, length.
    pub text: String,
}
