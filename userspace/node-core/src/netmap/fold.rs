//! Folding: one message of the map stream applied to the netmap. Absent means unchanged, everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use jiff::Timestamp;
use types::NodeId;
use wire::control::{DerpMap, DisplayMessage, FilterRule, MapResponse, Node, PeerChange, Time};

use super::{Netmap, is_reachable};

/// What a message changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// More than somebody's presence, or by which way: the kernel may have to follow.
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

impl Netmap {
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
        if base.is_none() && named.is_empty() {
            return false;
        }
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

/// Whether the difference is more than presence and where a peer is reached.
fn concerns_kernel(old: &Node, new: &Node) -> bool {
    old.key != new.key
        || is_reachable(old) != is_reachable(new)
        || old.allowed() != new.allowed()
        || old.addresses != new.addresses
        || old.cap_map != new.cap_map
        || old.key_expiry != new.key_expiry
        || old.expired != new.expired
        || old.is_jailed != new.is_jailed
        || old.is_wireguard_only != new.is_wireguard_only
}
