//! Answers of the local API about nodes: netmap and paths in, `ipnstate` structs out. Pure.
//!
//! Deliberately not here: the node's own state (`event_loop`), HTTP (`local_api`).

use std::time::Instant;

use ipnet::IpNet;
use jiff::Timestamp;
use node_core::Node;
use types::RegionId;
use wire::control::{DerpMap, Node as WireNode, Time};
use wire::local::{
    EngineStatus, NetworkMap, PeerStatus, PeerStatusLite, Status, TailnetStatus, WhoIsResponse,
};

use crate::local_api::Whom;

/// Fills in what the netmap tells: ourselves, the network, and with `peers` everybody else.
pub(crate) fn fill(status: &mut Status, node: &Node, peers: bool, now: Instant) {
    let Some(own) = node.self_node() else { return };
    let derp = node.derp_map();
    let mut own_status = from_netmap(own);
    own_status.online = status.self_node.as_ref().is_some_and(|own| own.online);
    own_status.addrs = node.endpoints().iter().map(|endpoint| endpoint.addr.to_string()).collect();
    own_status.relay = node.home().map(|home| region_code(derp, home)).unwrap_or_default();
    own_status.in_engine = true;
    own_status.cap_map = Some(own.cap_map.clone());
    status.tailscale_ips.clone_from(&own_status.tailscale_ips);
    status.self_node = Some(own_status);
    status.magic_dns_suffix = suffix(own);
    status.current_tailnet = Some(TailnetStatus {
        name: node.domain().to_owned(),
        magic_dns_suffix: suffix(own),
        magic_dns_enabled: node.dns().is_some_and(|dns| dns.proxied),
    });
    if !peers {
        return;
    }
    for peer in node.peers() {
        let mut peer_status = from_netmap(peer);
        add_connection(&mut peer_status, node, peer, derp, now);
        status.peer.insert(peer.key, peer_status);
    }
    let owners = node.peers().chain([own]).filter_map(|node_of| node.user(node_of.user));
    status.user = owners.map(|user| (user.id, user.clone())).collect();
}

/// How many subnets of ours control approved, as far as it told.
pub(crate) fn approved_routes(node: &Node) -> usize {
    let Some(own) = node.self_node() else { return 0 };
    let is_subnet = |net: &&IpNet| net.prefix_len() != 0 && !own.addresses.contains(net);
    own.allowed().iter().filter(is_subnet).count()
}

/// What the netmap knows of a node.
pub(crate) fn from_netmap(node: &WireNode) -> PeerStatus {
    let hostinfo = node.hostinfo.as_ref();
    PeerStatus {
        id: node.stable_id.clone(),
        node_id: node.id,
        public_key: node.key,
        host_name: hostinfo.map(|info| info.hostname.clone()).unwrap_or_default(),
        dns_name: node.name.clone(),
        os: hostinfo.map(|info| info.os.clone()).unwrap_or_default(),
        user_id: node.user,
        tailscale_ips: node.addresses.iter().map(IpNet::addr).collect(),
        allowed_ips: Some(node.allowed().to_vec()),
        tags: (!node.tags.is_empty()).then(|| node.tags.clone()),
        primary_routes: (!node.primary_routes.is_empty()).then(|| node.primary_routes.clone()),
        created: node.created,
        last_seen: node.last_seen.filter(|_| node.online != Some(true)).unwrap_or_default(),
        online: node.online == Some(true),
        exit_node_option: types::overlay::EXIT_ROUTES.iter().all(|route| node.allowed().contains(route)),
        capabilities: node.capabilities.clone(),
        ssh_host_keys: hostinfo.map(|info| info.ssh_host_keys.clone()).unwrap_or_default(),
        in_network_map: true,
        in_magic_sock: true,
        expired: node.expired,
        key_expiry: node.key_expiry.get(),
        location: hostinfo.and_then(|info| info.location.clone()),
        ..PeerStatus::default()
    }
}

fn add_connection(status: &mut PeerStatus, node: &Node, peer: &WireNode, derp: &DerpMap, now: Instant) {
    let Some(connection) = node.peer_status(peer.key, now) else { return };
    status.addrs = connection.candidates.iter().map(ToString::to_string).collect();
    if let Some(path) = connection.current {
        *(if path.is_direct() { &mut status.cur_addr } else { &mut status.peer_relay }) = path.to_string();
    }
    status.relay = connection.relay.map(|region| region_code(derp, region)).unwrap_or_default();
    status.rx_bytes = connection.rx_bytes.cast_signed();
    status.tx_bytes = connection.tx_bytes.cast_signed();
    status.last_write = time(connection.last_write);
    status.last_handshake = time(connection.last_handshake);
    status.active = connection.active;
    status.in_engine = connection.in_engine;
}

/// The counters of the bus's `Engine` message.
pub(crate) fn engine(node: &Node, live_derps: usize, now: Instant) -> EngineStatus {
    let mut engine = EngineStatus { live_derps, ..EngineStatus::default() };
    for peer in node.peers() {
        let Some(connection) = node.peer_status(peer.key, now) else { continue };
        engine.rx_bytes += connection.rx_bytes.cast_signed();
        engine.tx_bytes += connection.tx_bytes.cast_signed();
        if connection.active {
            let lite = PeerStatusLite {
                node_key: peer.key,
                tx_bytes: connection.tx_bytes.cast_signed(),
                rx_bytes: connection.rx_bytes.cast_signed(),
                last_handshake: time(connection.last_handshake),
            };
            engine.live_peers.insert(peer.key, lite);
        }
    }
    engine.num_live = engine.live_peers.len();
    engine
}

/// Who has an address or key, or serves the route an address lies in.
pub(crate) fn whois(node: &Node, whom: Whom) -> Option<WhoIsResponse> {
    let found = match whom {
        Whom::Key(key) => node.self_node().into_iter().chain(node.peers()).find(|node| node.key == key)?,
        Whom::Addr(addr) => node.whois(addr)?.node,
    };
    let user_profile = node.user(found.user).cloned().unwrap_or_default();
    Some(WhoIsResponse { node: found.clone(), user_profile, cap_map: Some(found.cap_map.clone()) })
}

/// The netmap for debugging clients.
pub(crate) fn network_map(node: &Node, machine_key: types::MachinePublic) -> Option<NetworkMap> {
    let map = node.cached_map()?;
    let own = node.self_node()?;
    let base = map.packet_filters.get("base").cloned().flatten();
    Some(NetworkMap {
        node_key: own.key,
        self_node: Some(own.clone()),
        machine_key,
        peers: node.peers().cloned().collect(),
        dns: map.dns_config.unwrap_or_default(),
        packet_filter_rules: base.unwrap_or_default(),
        derp_map: map.derp_map,
        domain: map.domain,
        user_profiles: map.user_profiles.iter().map(|user| (user.id, user.clone())).collect(),
    })
}

/// The short name of a region, empty when there is none.
pub(crate) fn region_code(map: &DerpMap, region: RegionId) -> String {
    let found = map.regions.get(&region).and_then(Option::as_ref);
    found.map(|region| region.region_code.clone()).unwrap_or_default()
}

fn suffix(own: &WireNode) -> String {
    own.name.trim_end_matches('.').split_once('.').map(|(_, suffix)| suffix.to_owned()).unwrap_or_default()
}

fn time(at: Option<std::time::SystemTime>) -> Time {
    Time::from(at.and_then(|at| Timestamp::try_from(at).ok()))
}
