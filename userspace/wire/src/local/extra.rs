//! What only our node can tell: its kernel data plane and its paths. Tailscale's readers never see it or ignore it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use types::{NodePublic, RegionId};

use super::{PeerRelayReport, go};
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
    /// Whether forwarded packets take the programs' short way: `on` or `off`; empty while nothing is forwarded.
    pub fast_path: String,
    /// How packets are steered on the devices that peers' packets arrive at.
    pub devices: Vec<SteeredDevice>,
    /// Whether what cannot be valid is dropped ahead of WireGuard.
    pub shield: bool,
    /// Peers whose DISCO pings the kernel answers, also without us; on devices that are steered by `xdp`.
    pub answering: usize,
    /// Packets the programs dropped, by reason; zero counts are left out.
    pub drops: Vec<DropCount>,
    /// This node's peer relay, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_relay: Option<PeerRelayReport>,
}

/// One device of the underlay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SteeredDevice {
    /// Its name.
    pub name: String,
    /// `xdp`: ahead of the kernel's stack; `tc`: in it.
    pub steering: String,
    /// Why not `xdp`; empty where it is.
    pub why: String,
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

/// The answer to `underpass/netcheck`: what the node's own port sees, shaped as Tailscale's `netcheck.Report`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Netcheck {
    /// When it was measured.
    pub now: Time,
    /// A STUN round trip completed.
    #[serde(rename = "UDP")]
    pub udp: bool,
    /// One over IPv6.
    #[serde(rename = "IPv6")]
    pub ipv6: bool,
    /// One over IPv4.
    #[serde(rename = "IPv4")]
    pub ipv4: bool,
    /// There is an IPv6 address to send from.
    #[serde(rename = "IPv6CanSend")]
    pub ipv6_can_send: bool,
    /// There is an IPv4 address to send from.
    #[serde(rename = "IPv4CanSend")]
    pub ipv4_can_send: bool,
    /// The kernel has IPv6.
    #[serde(rename = "OSHasIPv6")]
    pub os_has_ipv6: bool,
    /// An ICMPv4 round trip completed; not tried while UDP works.
    #[serde(rename = "ICMPv4")]
    pub icmpv4: bool,
    /// Whether the NAT maps by destination; unknown with fewer than two answers.
    #[serde(rename = "MappingVariesByDestIP")]
    pub mapping_varies_by_dest_ip: Option<bool>,
    /// The router speaks UPnP; unknown while it was not asked.
    #[serde(rename = "UPnP")]
    pub upnp: Option<bool>,
    /// The router speaks NAT-PMP.
    #[serde(rename = "PMP")]
    pub pmp: Option<bool>,
    /// The router speaks PCP.
    #[serde(rename = "PCP")]
    pub pcp: Option<bool>,
    /// Where the router lets the outside in; Underpass only.
    pub port_mapped: Option<SocketAddr>,
    /// The home region, or 0.
    #[serde(rename = "PreferredDERP")]
    pub preferred_derp: RegionId,
    /// Best round trip by region, in nanoseconds.
    pub region_latency: BTreeMap<RegionId, i64>,
    /// The same over IPv4.
    #[serde(rename = "RegionV4Latency")]
    pub region_v4_latency: BTreeMap<RegionId, i64>,
    /// The same over IPv6.
    #[serde(rename = "RegionV6Latency")]
    pub region_v6_latency: BTreeMap<RegionId, i64>,
    /// How often each IPv4 mapping was seen.
    #[serde(rename = "GlobalV4Counters", with = "go::nil")]
    pub global_v4_counters: BTreeMap<SocketAddr, usize>,
    /// How often each IPv6 mapping was seen.
    #[serde(rename = "GlobalV6Counters", with = "go::nil")]
    pub global_v6_counters: BTreeMap<SocketAddr, usize>,
    /// Our public IPv4 address and port.
    #[serde(rename = "GlobalV4", with = "go::addr_port")]
    pub global_v4: Option<SocketAddr>,
    /// Our public IPv6 address and port.
    #[serde(rename = "GlobalV6", with = "go::addr_port")]
    pub global_v6: Option<SocketAddr>,
    /// A captive portal stands before the Internet; unknown where no server could be asked.
    pub captive_portal: Option<bool>,
    /// Which firewall this node drives; Underpass only.
    pub firewall_mode: String,
}

/// One peer in the answer to `underpass/paths`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerPaths {
    /// The peer.
    pub peer: NodePublic,
    /// Its name.
    pub name: String,
    /// Where WireGuard's packets go now: `ip:port`, `ip:port:vni:number` or `derp:<region>`.
    pub current: String,
    /// Where the kernel sends: as `current`, `lo` while that is DERP; empty while it has no such peer.
    pub kernel: String,
    /// Whether packets went to or came from it in the last 45 s; paths of others are not kept up.
    pub active: bool,
    /// Every path that is known, the one in use first.
    pub paths: Vec<PathReport>,
}

/// One path to a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PathReport {
    /// `ip:port`, `ip:port:vni:number` or `derp:<region>`.
    pub endpoint: String,
    /// The device by which it leaves, where several lead to the endpoint.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uplink: String,
    /// Who named the address: `netmap`, `call-me-maybe`, `ping`, `kernel`, `peer relay`; or how the region is known.
    pub sources: Vec<String>,
    /// Time since the last ping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinged_seconds_ago: Option<f64>,
    /// Time since the last pong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_seconds_ago: Option<f64>,
    /// Last round trip, if it ever answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_seconds: Option<f64>,
    /// How good it is, if it ever answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<PathScore>,
    /// Whether packets go this way.
    pub used: bool,
    /// Why they do or do not, for people.
    pub why: String,
}

/// How good a path is. The fields are compared in this order, and less is better.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PathScore {
    /// `lan`, `wan`, `relay` or `derp`.
    pub kind: String,
    /// The metric of the route by which it leaves, where several do.
    pub metric: u32,
    /// The last round trip, weighed by the kind of address.
    pub cost_seconds: f64,
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
