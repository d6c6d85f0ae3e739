//! Nodes as the wire has them: one's self, and a peer as another node may see it.

use ipnet::IpNet;
use types::{CapabilityVersion, RegionId, StableNodeId, UserId};
use wire::control::{self, Hostinfo, Time, UserProfile};

use crate::model::{Node, User};

/// The pseudo user that owns all tagged nodes; above every number a user gets.
pub(crate) const TAGGED: UserId = UserId(1 << 40);

/// From this version on clients read the home region as a number (`tailcfg.CapabilityVersion` 111).
const HOME_DERP: CapabilityVersion = CapabilityVersion(111);

/// What a node is called on the wire and who it belongs to there.
pub(crate) struct Facts<'a> {
    /// The network's domain, without dots around it.
    pub(crate) domain: &'a str,
    /// The reader's version.
    pub(crate) reader: CapabilityVersion,
    /// Whether the node is connected.
    pub(crate) online: bool,
    /// Whether its key has expired.
    pub(crate) expired: bool,
    /// The routes the reader sends to it.
    pub(crate) routes: Vec<IpNet>,
    /// Those of them it is primary of.
    pub(crate) primary_routes: Vec<IpNet>,
}

/// The user a node belongs to on the wire.
pub(crate) fn owner(node: &Node) -> UserId {
    if node.tags.is_empty() { node.user } else { TAGGED }
}

/// A node as its reader sees itself.
pub(crate) fn itself(node: &Node, facts: Facts<'_>) -> control::Node {
    control::Node { machine: node.machine_key, hostinfo: Some(node.hostinfo.clone()), ..peer(node, facts) }
}

/// A node as a peer sees it.
pub(crate) fn peer(node: &Node, facts: Facts<'_>) -> control::Node {
    let addresses = node.ips().map(IpNet::from).to_vec();
    let home = node.home_region();
    let legacy = facts.reader < HOME_DERP && home != RegionId(0);
    control::Node {
        id: node.id,
        stable_id: StableNodeId(format!("n{}", node.id)),
        name: format!("{}.{}.", node.name, facts.domain),
        user: owner(node),
        key: node.node_key,
        key_expiry: node.expires.into(),
        disco_key: node.disco_key,
        allowed_ips: Some(addresses.iter().copied().chain(facts.routes).collect()),
        addresses,
        endpoints: node.endpoints.clone(),
        legacy_derp: if legacy { format!("127.3.3.40:{home}") } else { String::new() },
        home_derp: home,
        hostinfo: Some(public(&node.hostinfo)),
        created: node.created.into(),
        cap: node.cap,
        tags: node.tags.clone(),
        primary_routes: facts.primary_routes,
        last_seen: (!facts.online).then_some(node.last_seen).flatten().map(Time::from),
        online: Some(facts.online),
        machine_authorized: true,
        computed_name: node.name.clone(),
        expired: facts.expired,
        ..control::Node::default()
    }
}

/// What peers may know of a host: enough to name it and to reach its services.
pub(crate) fn public(hostinfo: &Hostinfo) -> Hostinfo {
    Hostinfo {
        os: hostinfo.os.clone(),
        hostname: hostinfo.hostname.clone(),
        services: hostinfo.services.clone(),
        shields_up: hostinfo.shields_up,
        routable_ips: hostinfo.routable_ips.clone(),
        ssh_host_keys: hostinfo.ssh_host_keys.clone(),
        peer_relay: hostinfo.peer_relay,
        app_connector: hostinfo.app_connector,
        location: hostinfo.location.clone(),
        ..Hostinfo::default()
    }
}

/// A user as nodes show it.
pub(crate) fn profile(id: UserId, user: Option<&User>) -> UserProfile {
    let name = match user {
        _ if id == TAGGED => "tagged-devices".to_owned(),
        Some(user) => user.name.clone(),
        None => format!("user-{id}"),
    };
    UserProfile { id, login_name: name.clone(), display_name: name, ..UserProfile::default() }
}
