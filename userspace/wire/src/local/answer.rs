//! The smaller requests and answers (`client/tailscale/apitype`, `ipn/prefs.go`, `types/netmap`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use types::{MachinePublic, NodePublic, StableNodeId, UserId};

use super::{Prefs, go};
use crate::control::{CapMap, DerpMap, DnsConfig, FilterRule, Node, Time, UserProfile};

/// The body of `start`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Options {
    /// The frontend's log id; unused.
    #[serde(rename = "FrontendLogID")]
    pub frontend_log_id: String,
    /// Replaces all prefs but what registration left.
    pub update_prefs: Option<Prefs>,
    /// A node auth key. Secret.
    pub auth_key: String,
}

/// Without the auth key.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("update_prefs", &self.update_prefs)
            .field("has_auth_key", &!self.auth_key.is_empty())
            .finish_non_exhaustive()
    }
}

/// The answer to `check-prefs`; an empty error is consent. Refused edits carry the same body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CheckPrefsResponse {
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// The answer to `whois`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WhoIsResponse {
    /// The node that has the address.
    pub node: Node,
    /// Its owner.
    pub user_profile: UserProfile,
    /// What its packets are granted here.
    pub cap_map: Option<CapMap>,
}

/// One login on this machine; we have exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LoginProfile {
    /// Four hex digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// What a person sees.
    pub name: String,
    /// The network it belongs to.
    pub network_profile: NetworkProfile,
    /// Where its state is kept.
    pub key: String,
    /// Its user.
    pub user_profile: UserProfile,
    /// Its node.
    #[serde(rename = "NodeID")]
    pub node_id: StableNodeId,
    /// Windows only.
    #[serde(rename = "LocalUserID")]
    pub local_user_id: String,
    /// Its coordination server.
    #[serde(rename = "ControlURL")]
    pub control_url: String,
    /// When it was made.
    #[serde(skip_serializing_if = "go::is_never")]
    pub created: Time,
}

/// What a profile remembers of its network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkProfile {
    /// Suffix of its names.
    #[serde(rename = "MagicDNSName")]
    pub magic_dns_name: String,
    /// Its domain.
    pub domain_name: String,
    /// Its display name.
    pub display_name: String,
}

/// The netmap as debugging clients see it (`types/netmap`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkMap {
    /// Ourselves.
    pub self_node: Option<Node>,
    /// Our node key.
    pub node_key: NodePublic,
    /// Our machine key.
    pub machine_key: MachinePublic,
    /// The peers, by id.
    #[serde(with = "go::nil")]
    pub peers: Vec<Node>,
    /// DNS settings.
    #[serde(rename = "DNS")]
    pub dns: DnsConfig,
    /// The packet filter as control sent it.
    #[serde(with = "go::nil")]
    pub packet_filter_rules: Vec<FilterRule>,
    /// The DERP map.
    #[serde(rename = "DERPMap")]
    pub derp_map: Option<DerpMap>,
    /// The network's name.
    pub domain: String,
    /// The users that peers belong to.
    #[serde(with = "go::nil")]
    pub user_profiles: BTreeMap<UserId, UserProfile>,
}

/// The answer to `reload-config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReloadConfigResponse {
    /// Whether a file was read.
    pub reloaded: bool,
    /// Why not.
    pub err: String,
}

/// The answer to `check-ip-forwarding` and `check-udp-gro-forwarding`; empty is fine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WarningResponse {
    /// What to change on the machine.
    pub warning: String,
}

/// The answer to `suggest-exit-node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExitNodeSuggestion {
    /// Which; empty for none.
    #[serde(rename = "ID")]
    pub id: StableNodeId,
    /// Its name.
    pub name: String,
}

/// Go's `empty.Message`: its presence is the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}
