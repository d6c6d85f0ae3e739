//! Netmap: the network as control last described it; deltas folded in (tailscale `control/controlclient/map.go`).
//!
//! The last good map is kept whatever comes: a first message without a node is refused, a peer that cannot be used is left
//! out alone. [`Netmap::to_map`] is the whole again, for the state file. Deliberately not here: what follows for the
//! kernel (`desired`) and for paths.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use types::{NodeId, NodePublic, UserId};
use wire::control::{
    DerpMap, DisplayMessage, DnsConfig, FilterRule, MapResponse, Node, PeerChange, Raw, Time, UserProfile,
};

/// What a message changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// More than somebody's presence, endpoints or home region: the kernel may have to follow.
    pub(crate) kernel: bool,
    /// Peers whose endpoints, keys or home may differ; they may also be gone.
    pub(crate) peers: BTreeSet<NodeId>,
    /// The DERP map differs.
    pub(crate) derp: bool,
    /// Control's health messages differ.
    pub(crate) health: bool,
    /// Anything at all.
    pub(crate) any: bool,
    /// What could not be used, in words.
    pub(crate) lost: Vec<String>,
}

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

    /// Folds one message in. `wall` is the time for "seen now".
    pub(crate) fn fold(&mut self, map: MapResponse, wall: SystemTime) -> Change {
        let mut change = Change { lost: map.lost().collect(), ..Change::default() };
        if map.keep_alive {
            return change;
        }
        if map.node.is_none() && (self.node.is_none() || self.opens_stream) {
            change.lost.push("the first map of a stream has no Node".into());
            return change;
        }
        change.any = true;
        let opens_stream = std::mem::take(&mut self.opens_stream);
        self.fold_node(map.node, &mut change);
        if opens_stream {
            self.filters.clear();
            self.health.clear();
            self.messages.clear();
            change.kernel = true;
        }
        if opens_stream || !map.peers.is_empty() {
            self.replace_peers(map.peers.items, &mut change);
        }
        self.fold_peers(map.peers_removed, map.peers_changed.items, &mut change);
        self.fold_presence(&map.peer_seen_change, &map.online_change, wall);
        for patch in map.peers_changed_patch {
            self.fold_patch(patch, &mut change);
        }
        self.users.extend(map.user_profiles.into_iter().map(|user| (user.id, user)));
        if let Some(derp) = map.derp_map {
            change.derp |= self.fold_derp(derp);
        }
        change.kernel |= self.fold_filters(map.packet_filter, map.packet_filters);
        change.health |= self.fold_health(map.health, map.display_messages) || opens_stream;
        self.dns = map.dns_config.or(self.dns.take());
        self.ssh_policy = map.ssh_policy.or(self.ssh_policy.take());
        if !map.domain.is_empty() {
            self.domain = map.domain;
        }
        change
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

    fn fold_node(&mut self, node: Option<Node>, change: &mut Change) {
        if let Some(node) = node {
            change.kernel |= self.node.as_ref() != Some(&node);
            self.node = Some(node);
        }
    }

    fn replace_peers(&mut self, peers: Vec<Node>, change: &mut Change) {
        let keep: BTreeSet<NodeId> = peers.iter().map(|peer| peer.id).collect();
        let gone = self.peers.keys().filter(|id| !keep.contains(id)).copied().collect();
        self.fold_peers(gone, peers, change);
    }

    fn fold_peers(&mut self, removed: Vec<NodeId>, changed: Vec<Node>, change: &mut Change) {
        for id in removed {
            if let Some(peer) = self.peers.remove(&id) {
                self.id_by_key.remove(&peer.key);
                change.peers.insert(id);
                change.kernel = true;
            }
        }
        for peer in changed {
            if let Err(why) = self.check(&peer) {
                change.lost.push(format!("peer {} ({}): {why}", peer.id, peer.name));
                continue;
            }
            let old = self.peers.get(&peer.id);
            if old == Some(&peer) {
                continue;
            }
            change.peers.insert(peer.id);
            change.kernel |= old.is_none_or(|old| concerns_kernel(old, &peer));
            self.put(peer);
        }
    }

    /// Why a peer cannot be one.
    fn check(&self, peer: &Node) -> Result<(), &'static str> {
        let is_self = |node: &Node| node.id == peer.id || node.key == peer.key;
        if peer.key.is_zero() {
            Err("it has no node key")
        } else if self.node.as_ref().is_some_and(is_self) {
            Err("it is this node itself")
        } else if self.id_by_key.get(&peer.key).is_some_and(|id| *id != peer.id) {
            Err("another peer has the same node key")
        } else {
            Ok(())
        }
    }

    fn put(&mut self, peer: Node) {
        if let Some(old) = self.peers.get(&peer.id) {
            self.id_by_key.remove(&old.key);
        }
        self.id_by_key.insert(peer.key, peer.id);
        self.peers.insert(peer.id, peer);
    }

    fn fold_presence(
        &mut self,
        seen: &BTreeMap<NodeId, bool>,
        online: &BTreeMap<NodeId, bool>,
        wall: SystemTime,
    ) {
        let seen_now = Timestamp::try_from(wall).ok().map(Time::from);
        for (id, seen) in seen {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.last_seen = seen.then_some(seen_now).flatten();
            }
        }
        for (id, online) in online {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.online = Some(*online);
            }
        }
    }

    fn fold_patch(&mut self, patch: PeerChange, change: &mut Change) {
        let Some(old) = self.peers.get(&patch.node_id) else { return };
        let new = patched(old.clone(), patch);
        self.fold_peers(Vec::new(), vec![new], change);
    }

    /// Whether the regions differ. A map without regions keeps the old ones, so does one without scores.
    fn fold_derp(&mut self, mut derp: DerpMap) -> bool {
        derp.regions.retain(|_, region| region.is_some());
        if derp.regions.is_empty() {
            derp.regions = std::mem::take(&mut self.derp.regions);
        }
        derp.home_params = derp.home_params.or(self.derp.home_params.take());
        let changed = self.derp != derp;
        self.derp = derp;
        changed
    }

    fn fold_filters(
        &mut self,
        base: Option<Vec<FilterRule>>,
        mut named: BTreeMap<String, Option<Vec<FilterRule>>>,
    ) -> bool {
        let before = self.filters.clone();
        if let Some(base) = base {
            self.filters.insert("base".into(), base);
        }
        if named.remove("*") == Some(None) {
            self.filters.clear();
        }
        patch(&mut self.filters, named);
        before != self.filters
    }

    fn fold_health(
        &mut self,
        health: Option<Vec<String>>,
        mut messages: BTreeMap<String, Option<DisplayMessage>>,
    ) -> bool {
        let changed = health.is_some() || !messages.is_empty();
        self.health = health.unwrap_or(std::mem::take(&mut self.health));
        if messages.remove("*") == Some(None) {
            self.messages.clear();
        }
        patch(&mut self.messages, messages);
        changed
    }
}

/// `None` deletes an entry, `Some` sets it.
fn patch<T>(map: &mut BTreeMap<String, T>, patch: BTreeMap<String, Option<T>>) {
    for (name, value) in patch {
        match value {
            Some(value) => drop(map.insert(name, value)),
            None => drop(map.remove(&name)),
        }
    }
}

/// A peer with a change applied; absent fields stay.
fn patched(mut peer: Node, patch: PeerChange) -> Node {
    if !patch.derp_region.is_zero() {
        peer.home_derp = patch.derp_region;
    }
    if patch.cap.0 != 0 {
        peer.cap = patch.cap;
    }
    if !patch.endpoints.is_empty() {
        peer.endpoints = patch.endpoints;
    }
    if !patch.key_signature.is_empty() {
        peer.key_signature = patch.key_signature;
    }
    peer.cap_map = patch.cap_map.unwrap_or(peer.cap_map);
    peer.key = patch.key.unwrap_or(peer.key);
    peer.disco_key = patch.disco_key.unwrap_or(peer.disco_key);
    peer.online = patch.online.or(peer.online);
    peer.last_seen = patch.last_seen.or(peer.last_seen);
    peer.key_expiry = patch.key_expiry.unwrap_or(peer.key_expiry);
    peer
}

/// Whether the difference is more than presence and reachability.
fn concerns_kernel(old: &Node, new: &Node) -> bool {
    old.key != new.key
        || old.allowed() != new.allowed()
        || old.addresses != new.addresses
        || old.cap_map != new.cap_map
        || old.key_expiry != new.key_expiry
        || old.expired != new.expired
        || old.is_jailed != new.is_jailed
        || old.is_wireguard_only != new.is_wireguard_only
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(netmap: &mut Netmap, json: &str) -> Change {
        let map = MapResponse::decode(json.as_bytes()).unwrap();
        netmap.fold(map, SystemTime::UNIX_EPOCH)
    }

    fn key(tag: u8) -> NodePublic {
        NodePublic::from_bytes([tag; 32])
    }

    fn node(id: u8) -> String {
        format!(r#"{{"ID":{id},"Key":"{}","Addresses":["100.64.0.{id}/32"]}}"#, key(id))
    }

    fn base() -> Netmap {
        let mut netmap = Netmap::default();
        let json =
            format!(r#"{{"Node":{},"Peers":[{},{}],"Domain":"example.com"}}"#, node(1), node(2), node(3));
        assert_eq!(fold(&mut netmap, &json).lost, [""; 0]);
        netmap
    }

    fn ids(netmap: &Netmap) -> Vec<i64> {
        netmap.peers().map(|peer| peer.id.0).collect()
    }

    #[test]
    fn a_first_message_without_a_node_is_refused() {
        let mut netmap = Netmap::default();
        assert_eq!(fold(&mut netmap, r#"{"Domain":"example.com"}"#).lost.len(), 1);
        assert!(netmap.to_map().is_none());
    }

    #[test]
    fn an_unusable_new_stream_keeps_the_old_map() {
        let mut netmap = base();
        netmap.open_stream();
        assert_eq!(fold(&mut netmap, r#"{"PeersRemoved":[2]}"#).lost.len(), 1);
        assert_eq!(ids(&netmap), [2, 3]);
    }

    #[test]
    fn one_bad_peer_loses_that_peer() {
        let mut netmap = base();
        let json =
            format!(r#"{{"Peers":[{{"ID":9,"Key":"nodekey:zz"}},{{"ID":8}},{},{}]}}"#, node(1), node(3));
        let change = fold(&mut netmap, &json);
        assert_eq!(change.lost.len(), 3, "{:?}", change.lost);
        assert_eq!(ids(&netmap), [3]);
    }

    #[test]
    fn deltas_touch_what_they_name() {
        let mut netmap = base();
        let change = fold(
            &mut netmap,
            r#"{"PeersRemoved":[2],"PeersChangedPatch":[{"NodeID":3,"DERPRegion":7,"Online":true},{"NodeID":99}]}"#,
        );
        assert_eq!(change.peers, [NodeId(2), NodeId(3)].into());
        assert!(change.kernel);
        let change = fold(&mut netmap, r#"{"PeersChangedPatch":[{"NodeID":3,"Endpoints":["192.0.2.1:5"]}]}"#);
        assert!(!change.kernel, "endpoints are no matter of the kernel's configuration");
        let peer = netmap.peer(&key(3)).unwrap();
        assert_eq!(peer.home_region().unwrap().0, 7);
        assert_eq!(peer.endpoints.len(), 1);
        assert_eq!(ids(&netmap), [3]);
    }

    #[test]
    fn an_empty_peer_list_replaces_nothing_but_a_new_stream_does() {
        let mut netmap = base();
        fold(&mut netmap, r#"{"Peers":[]}"#);
        assert_eq!(ids(&netmap), [2, 3]);
        netmap.open_stream();
        fold(&mut netmap, &format!(r#"{{"Node":{}}}"#, node(1)));
        assert_eq!(ids(&netmap), [0i64; 0]);
    }

    #[test]
    fn a_rotated_key_is_the_same_peer() {
        let mut netmap = base();
        let json = format!(r#"{{"PeersChangedPatch":[{{"NodeID":3,"Key":"{}"}}]}}"#, key(30));
        assert!(fold(&mut netmap, &json).kernel);
        assert!(netmap.peer(&key(3)).is_none());
        assert_eq!(netmap.peer(&key(30)).unwrap().id, NodeId(3));
    }

    #[test]
    fn named_filters_are_patched() {
        let mut netmap = base();
        let rules =
            |netmap: &Netmap| netmap.filter_rules().map(|rule| rule.src_ips.concat()).collect::<Vec<_>>();
        fold(&mut netmap, r#"{"PacketFilter":[{"SrcIPs":["b"]}],"PacketFilters":{"a":[{"SrcIPs":["a"]}]}}"#);
        assert_eq!(rules(&netmap), ["a", "b"]);
        fold(&mut netmap, r#"{"PacketFilters":{"a":null}}"#);
        assert_eq!(rules(&netmap), ["b"]);
        fold(&mut netmap, r#"{"PacketFilters":{"*":null,"c":[{"SrcIPs":["c"]}]}}"#);
        assert_eq!(rules(&netmap), ["c"]);
    }

    #[test]
    fn the_cached_map_restores_the_whole() {
        let mut netmap = base();
        fold(
            &mut netmap,
            r#"{"DERPMap":{"Regions":{"1":{"RegionID":1}}},"PacketFilter":[{"SrcIPs":["*"]}],"UserProfiles":[{"ID":5}]}"#,
        );
        let cached = netmap.to_map().unwrap();
        let mut restored = Netmap::default();
        restored.fold(cached.clone(), SystemTime::UNIX_EPOCH);
        assert_eq!(restored.to_map(), Some(cached));
    }
}
