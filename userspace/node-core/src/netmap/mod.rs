//! Netmap: the network as control last described it; deltas folded in (tailscale `control/controlclient/map.go`).
//!
//! The last good map is kept whatever comes: a first message without a node is refused, a peer that cannot be used is left
//! out alone. [`Netmap::to_map`] is the whole again, for the state file. Deliberately not here: what follows for the
//! kernel (`desired`) and for paths.

mod fold;

use std::collections::BTreeMap;
use std::net::IpAddr;

use types::{NodeId, NodePublic, UserId};
use wire::control::{DerpMap, DisplayMessage, DnsConfig, FilterRule, MapResponse, Node, Raw, UserProfile};

/// The network.
#[derive(Default)]
pub(crate) struct Netmap {
    node: Option<Node>,
    peers: BTreeMap<NodeId, Node>,
    id_by_key: BTreeMap<NodePublic, NodeId>,
    users: BTreeMap<UserId, UserProfile>,
    derp: DerpMap,
    filters: BTreeMap<String, Vec<FilterRule>>,
    dns: Option<DnsConfig>,
    ssh_policy: Option<Raw>,
    domain: String,
    health: Vec<String>,
    messages: BTreeMap<String, DisplayMessage>,
    /// The next message opens a new stream and so describes everything.
    opens_stream: bool,
}

impl Netmap {
    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Node> {
        self.peers.values()
    }

    pub(crate) fn peer_by_id(&self, id: NodeId) -> Option<&Node> {
        self.peers.get(&id)
    }

    pub(crate) fn peer(&self, key: &NodePublic) -> Option<&Node> {
        self.peers.get(self.id_by_key.get(key)?)
    }

    pub(crate) fn user(&self, id: UserId) -> Option<&UserProfile> {
        self.users.get(&id)
    }

    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    pub(crate) fn dns(&self) -> Option<&DnsConfig> {
        self.dns.as_ref()
    }

    pub(crate) fn derp(&self) -> &DerpMap {
        &self.derp
    }

    /// All named parts of the packet filter, in the order of their names.
    pub(crate) fn filter_rules(&self) -> impl Iterator<Item = &FilterRule> {
        self.filters.values().flatten()
    }

    /// What control wants the user to know.
    pub(crate) fn messages(&self) -> impl Iterator<Item = String> {
        self.health.iter().cloned().chain(self.messages.values().map(
            |message| match message.title.as_str() {
                "" => message.text.clone(),
                title => format!("{title}: {}", message.text),
            },
        ))
    }

    /// The node that owns an overlay address, which may be ourselves.
    pub(crate) fn owner(&self, addr: IpAddr) -> Option<&Node> {
        let host = types::overlay::host(addr);
        self.node.iter().chain(self.peers.values()).find(|node| node.addresses.contains(&host))
    }

    pub(crate) fn open_stream(&mut self) {
        self.opens_stream = true;
    }

    /// The whole as one message, which folded into an empty netmap gives this one again.
    pub(crate) fn to_map(&self) -> Option<MapResponse> {
        Some(MapResponse {
            node: Some(self.node.clone()?),
            peers: self.peers.values().cloned().collect(),
            user_profiles: self.users.values().cloned().collect(),
            derp_map: Some(self.derp.clone()),
            packet_filters: self
                .filters
                .iter()
                .map(|(name, rules)| (name.clone(), Some(rules.clone())))
                .collect(),
            dns_config: self.dns.clone(),
            ssh_policy: self.ssh_policy.clone(),
            domain: self.domain.clone(),
            ..MapResponse::default()
        })
    }
}

/// Whether there is any way to a peer. headscale announces a node before it knows one.
pub(crate) fn is_reachable(peer: &Node) -> bool {
    !peer.disco_key.is_zero() || peer.home_region().is_some()
}

#[cfg(test)]
mod tests;
