//! What the node knows of itself and its peers: the answer to `status` (`ipn/ipnstate/ipnstate.go`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::{NodeId, NodePublic, StableNodeId, UserId};

use super::extra::DataPlane;
use super::{State, go};
use crate::control::{CapMap, ClientVersion, DnsRecord, Location, Time, UserProfile};

/// The whole network as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Whether packets go through a network device (always, here).
    #[serde(rename = "TUN")]
    pub tun: bool,
    /// [`State`] as a word; empty on the wire is no state.
    #[serde(with = "state_name")]
    pub backend_state: State,
    /// Whether there is a node key.
    #[serde(skip_serializing_if = "go::is_false")]
    pub have_node_key: bool,
    /// Where a person approves this node, while that is waited for.
    #[serde(rename = "AuthURL")]
    pub auth_url: String,
    /// Our addresses.
    #[serde(rename = "TailscaleIPs", with = "go::nil")]
    pub tailscale_ips: Vec<IpAddr>,
    /// Ourselves. Always present in our answers: the stock `up` reads it without asking.
    #[serde(rename = "Self")]
    pub self_node: Option<PeerStatus>,
    /// The exit node in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_node_status: Option<ExitNodeStatus>,
    /// What is wrong, a sentence each.
    pub health: Vec<String>,
    /// Older name of [`TailnetStatus::magic_dns_suffix`].
    #[serde(rename = "MagicDNSSuffix")]
    pub magic_dns_suffix: String,
    /// The network; none while not connected to one.
    pub current_tailnet: Option<TailnetStatus>,
    /// Names the server would help to get certificates for.
    #[serde(with = "go::nil")]
    pub cert_domains: Vec<String>,
    /// Names the server adds to DNS.
    #[serde(with = "go::nil")]
    pub extra_records: Vec<DnsRecord>,
    /// The peers by key.
    #[serde(with = "go::nil")]
    pub peer: BTreeMap<NodePublic, PeerStatus>,
    /// The users that peers belong to.
    #[serde(with = "go::nil")]
    pub user: BTreeMap<UserId, UserProfile>,
    /// A newer version of the software, where known.
    pub client_version: Option<ClientVersion>,
    /// Our own addition, which Tailscale's readers ignore: what the kernel does for us.
    #[serde(rename = "Underpass", skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<DataPlane>,
}

/// The network a node is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TailnetStatus {
    /// Its name.
    pub name: String,
    /// The suffix of its nodes' names, without dots around it.
    #[serde(rename = "MagicDNSSuffix")]
    pub magic_dns_suffix: String,
    /// Whether the network answers those names.
    #[serde(rename = "MagicDNSEnabled")]
    pub magic_dns_enabled: bool,
}

/// The exit node in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExitNodeStatus {
    /// Which.
    #[serde(rename = "ID")]
    pub id: StableNodeId,
    /// Whether it is connected to control.
    pub online: bool,
    /// Its addresses.
    #[serde(rename = "TailscaleIPs", with = "go::nil")]
    pub tailscale_ips: Vec<IpNet>,
}

/// One node, ourselves or a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerStatus {
    /// Stable id.
    #[serde(rename = "ID")]
    pub id: StableNodeId,
    /// Number.
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    /// WireGuard key.
    pub public_key: NodePublic,
    /// What the machine calls itself.
    pub host_name: String,
    /// Full name, with a dot at its end.
    #[serde(rename = "DNSName")]
    pub dns_name: String,
    /// Operating system.
    #[serde(rename = "OS")]
    pub os: String,
    /// Owner.
    #[serde(rename = "UserID")]
    pub user_id: UserId,
    /// Who shared it, if not its owner.
    #[serde(rename = "AltSharerUserID", skip_serializing_if = "UserId::is_zero")]
    pub alt_sharer_user_id: UserId,
    /// Its overlay addresses.
    #[serde(rename = "TailscaleIPs", with = "go::nil")]
    pub tailscale_ips: Vec<IpAddr>,
    /// Everything routed to it.
    #[serde(rename = "AllowedIPs", skip_serializing_if = "Option::is_none")]
    pub allowed_ips: Option<Vec<IpNet>>,
    /// Its tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Subnet routes it currently serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_routes: Option<Vec<IpNet>>,
    /// Its underlay endpoints.
    #[serde(with = "go::nil")]
    pub addrs: Vec<String>,
    /// The direct endpoint in use; empty when relayed or idle.
    pub cur_addr: String,
    /// Short name of its home DERP region.
    pub relay: String,
    /// The peer relay in use, `ip:port:vni`.
    pub peer_relay: String,
    /// Bytes received from it.
    pub rx_bytes: i64,
    /// Bytes sent to it.
    pub tx_bytes: i64,
    /// When it registered.
    pub created: Time,
    /// When we last sent to it.
    pub last_write: Time,
    /// When control last saw it; only while offline.
    pub last_seen: Time,
    /// Last WireGuard handshake.
    pub last_handshake: Time,
    /// Connected to control.
    pub online: bool,
    /// It is our exit node.
    pub exit_node: bool,
    /// It may be an exit node.
    pub exit_node_option: bool,
    /// We sent to it in the last two minutes.
    pub active: bool,
    /// Its PeerAPI's URLs.
    #[serde(rename = "PeerAPIURL", with = "go::nil")]
    pub peer_api_url: Vec<String>,
    /// Whether it takes files, as Tailscale numbers the reasons.
    pub taildrop_target: u8,
    /// Why it takes none.
    pub no_file_sharing_reason: String,
    /// Its capabilities, older form.
    #[serde(with = "go::nil", skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Its capabilities and their values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_map: Option<CapMap>,
    /// Its SSH host keys.
    #[serde(rename = "sshHostKeys", with = "go::nil", skip_serializing_if = "Vec::is_empty")]
    pub ssh_host_keys: Vec<String>,
    /// It is here because its owner was given a share of us.
    #[serde(skip_serializing_if = "go::is_false")]
    pub sharee_node: bool,
    /// It is in the netmap.
    pub in_network_map: bool,
    /// We track its paths.
    pub in_magic_sock: bool,
    /// WireGuard knows it.
    pub in_engine: bool,
    /// Its key has expired.
    #[serde(skip_serializing_if = "go::is_false")]
    pub expired: bool,
    /// When its key expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_expiry: Option<Timestamp>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

mod state_name {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::State;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde's `with` asks for")]
    pub(super) fn serialize<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(state.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.is_empty() {
            return Ok(State::NoState);
        }
        State::from_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("{name:?} is not a backend state")))
    }
}
