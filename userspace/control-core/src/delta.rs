//! What each stream is told: a full map first, then only what has changed and only what concerns it.
//!
//! A stream's [`View`] remembers which peers it was told of, with what routes. [`Network::flush`] looks at the touched
//! nodes alone; at all nodes only where the policy, or the reader itself, is another. A peer's small changes go as a
//! patch, and a stream that nothing concerns gets no message. Peers are sorted by number, as clients demand.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use ipnet::IpNet;
use jiff::Timestamp;
use types::overlay::EXIT_ROUTES;
use types::{CapabilityVersion, NodeId, UserId};
use wire::control::{self, DebugSettings, DnsConfig, FilterRule, MapResponse, PeerChange};

use crate::liveness::SessionId;
use crate::model::Node;
use crate::netmap::{self, Facts};
use crate::network::{Network, Now};

/// From this version on filters have names (`tailcfg.CapabilityVersion` 81).
const NAMED_FILTERS: CapabilityVersion = CapabilityVersion(81);

/// What a stream has been told.
pub(crate) struct View {
    pub(crate) node: NodeId,
    cap: CapabilityVersion,
    /// The peers it knows, each with the fingerprint of the routes it was told.
    known: BTreeMap<NodeId, u64>,
    users: BTreeSet<UserId>,
    /// Fingerprint of the routes it was told that it serves itself.
    serves: u64,
    /// Fingerprint of its filter.
    filter: u64,
    /// It knows everything up to this touch.
    since: u64,
}

/// A touched node as it was when the streams were last told.
pub(crate) struct Was {
    pub(crate) node: Option<Node>,
    pub(crate) online: bool,
    pub(crate) expired: bool,
    /// The number of the last touch.
    pub(crate) touched: u64,
}

/// What has happened since.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) was: BTreeMap<NodeId, Was>,
    /// Nodes whose place in the policy, or whose right to see anybody, has changed.
    pub(crate) moved: BTreeSet<NodeId>,
    /// The policy is another.
    pub(crate) policy: bool,
    /// The relays are others.
    pub(crate) relays: bool,
    /// The policy has to be resolved again.
    pub(crate) stale: bool,
    /// It has been resolved again, so filters may differ.
    pub(crate) filters: bool,
}

/// What a stream gets.
#[derive(Debug)]
pub enum Tell {
    /// A message.
    Delta(Box<MapResponse>),
    /// The last message: the node is no more, and its stream ends.
    End(Box<MapResponse>),
}

/// How a peer differs from what it was, for any reader.
enum Difference {
    None,
    Patch(Box<PeerChange>),
    Whole,
}

impl Network {
    /// Turns all changes since the last call into messages, at most one a stream.
    pub fn flush(&mut self, now: Now) -> Vec<(SessionId, Tell)> {
        self.compile();
        let changes = std::mem::take(&mut self.changes);
        if changes.was.is_empty() && !changes.policy && !changes.relays {
            return Vec::new();
        }
        let differences: BTreeMap<_, _> =
            changes.was.iter().map(|(id, was)| (*id, self.difference(*id, was))).collect();
        let mut views = std::mem::take(&mut self.views);
        let mut told = Vec::new();
        for (session, view) in &mut views {
            if self.registry.node(view.node).is_none() {
                told.push((*session, Tell::End(Box::new(farewell(&changes, view.node, now.wall)))));
            } else if let Some(mut message) = self.message(view, &changes, &differences) {
                message.control_time = Some(now.wall.into());
                told.push((*session, Tell::Delta(Box::new(message))));
            }
        }
        views.retain(|_, view| self.registry.node(view.node).is_some());
        self.views = views;
        told
    }

    /// A node's whole map, and the memory of having told it.
    pub(crate) fn full_map(&self, id: NodeId, cap: CapabilityVersion) -> Option<(View, MapResponse)> {
        let node = self.registry.node(id)?;
        let (known, users) = Default::default();
        let serves = self.fingerprint_of_served(node);
        let mut view = View { node: id, cap, known, users, serves, filter: 0, since: self.touches() };
        let mut map = MapResponse {
            node: Some(self.itself(node, cap)),
            derp_map: Some(self.settings.derp_map.clone()),
            domain: self.settings.domain.clone(),
            dns_config: Some(DnsConfig::default()),
            collect_services: Some(false),
            debug: Some(DebugSettings { disable_log_tail: true, ..DebugSettings::default() }),
            control_time: Some(self.clock().into()),
            ..MapResponse::default()
        };
        self.tell_filter(&mut view, &mut map);
        self.tell_user(&mut view, &mut map, node);
        for peer in self.registry.nodes() {
            if let Some(routes) = self.routes_shown(id, peer) {
                view.known.insert(peer.id, fingerprint(&routes));
                self.tell_user(&mut view, &mut map, peer);
                map.peers.push(self.peer(peer, cap, routes));
            }
        }
        Some((view, map))
    }

    /// What concerns one stream, if anything does.
    fn message(
        &self,
        view: &mut View,
        changes: &Changes,
        differences: &BTreeMap<NodeId, Difference>,
    ) -> Option<MapResponse> {
        let mut map = MapResponse::default();
        let reader = self.registry.node(view.node)?;
        let since = view.since;
        let difference = |id: NodeId| {
            let news = changes.was.get(&id).is_some_and(|was| was.touched > since);
            differences.get(&id).filter(|_| news).unwrap_or(&Difference::None)
        };
        let serves = self.fingerprint_of_served(reader);
        let other_routes = std::mem::replace(&mut view.serves, serves) != serves;
        if other_routes || concerns_itself(difference(view.node)) {
            map.node = Some(self.itself(reader, view.cap));
            self.tell_user(view, &mut map, reader);
        }
        if changes.filters {
            self.tell_filter(view, &mut map);
        }
        if changes.relays {
            map.derp_map = Some(self.settings.derp_map.clone());
        }
        let everybody = changes.policy || changes.moved.contains(&view.node);
        let candidates: BTreeSet<NodeId> = if everybody {
            self.registry.nodes().map(|node| node.id).chain(view.known.keys().copied()).collect()
        } else {
            changes.was.keys().copied().collect()
        };
        for id in candidates {
            self.tell_peer(view, &mut map, id, difference(id));
        }
        (map != MapResponse::default()).then_some(map)
    }

    fn tell_peer(&self, view: &mut View, map: &mut MapResponse, id: NodeId, difference: &Difference) {
        let peer = self.registry.node(id);
        let shown = peer.and_then(|peer| Some((peer, self.routes_shown(view.node, peer)?)));
        let Some((peer, routes)) = shown else {
            if view.known.remove(&id).is_some() {
                map.peers_removed.push(id);
            }
            return;
        };
        let same_routes = view.known.insert(id, fingerprint(&routes)) == Some(fingerprint(&routes));
        match difference {
            Difference::None if same_routes => {}
            Difference::Patch(patch) if same_routes => map.peers_changed_patch.push(PeerChange::clone(patch)),
            _ => {
                self.tell_user(view, map, peer);
                map.peers_changed.push(self.peer(peer, view.cap, routes));
            }
        }
    }

    fn tell_user(&self, view: &mut View, map: &mut MapResponse, node: &Node) {
        let id = netmap::owner(node);
        if view.users.insert(id) {
            map.user_profiles.push(netmap::profile(id, self.registry.user(id)));
        }
    }

    /// The reader's filter, unless it has it already.
    fn tell_filter(&self, view: &mut View, map: &mut MapResponse) {
        let filter =
            self.subjects.get(&view.node).map(|subject| self.compiled.filter(subject)).unwrap_or_default();
        let fingerprint = filter_fingerprint(&filter);
        if view.filter == fingerprint {
            return;
        }
        view.filter = fingerprint;
        if view.cap >= NAMED_FILTERS {
            map.packet_filters.insert("base".to_owned(), Some(filter));
        } else {
            map.packet_filter = Some(filter);
        }
    }

    /// The routes of `peer` that the reader may know, or nothing when it may not know the peer.
    fn routes_shown(&self, reader: NodeId, peer: &Node) -> Option<Vec<IpNet>> {
        let expired = self.registry.node(reader).is_none_or(|node| self.expired(node));
        if expired || reader == peer.id || !self.compiled.sees(reader, peer.id) {
            return None;
        }
        let needed = |net: &IpNet| self.compiled.needs_route(reader, *net);
        Some(self.routes_served(peer).filter(needed).collect())
    }

    /// The subnets a node is primary of, and the exit routes.
    fn routes_served(&self, node: &Node) -> impl Iterator<Item = IpNet> {
        let exit = node.is_exit();
        self.primaries.of(node.id).iter().copied().chain(EXIT_ROUTES.into_iter().filter(move |_| exit))
    }

    fn fingerprint_of_served(&self, node: &Node) -> u64 {
        fingerprint(&self.routes_served(node).collect::<Vec<_>>())
    }

    fn peer(&self, node: &Node, reader: CapabilityVersion, routes: Vec<IpNet>) -> control::Node {
        netmap::peer(node, self.facts(node, reader, routes))
    }

    fn itself(&self, node: &Node, reader: CapabilityVersion) -> control::Node {
        netmap::itself(node, self.facts(node, reader, self.routes_served(node).collect()))
    }

    fn facts(&self, node: &Node, reader: CapabilityVersion, routes: Vec<IpNet>) -> Facts<'_> {
        let primary_routes = routes.iter().copied().filter(|net| !EXIT_ROUTES.contains(net)).collect();
        Facts {
            domain: &self.settings.domain,
            reader,
            online: self.liveness.online(node.id),
            expired: self.expired(node),
            routes,
            primary_routes,
        }
    }

    /// Compares a node as peers saw it with what they would see now; routes are each reader's own matter.
    fn difference(&self, id: NodeId, was: &Was) -> Difference {
        let (Some(old), Some(new)) = (&was.node, self.registry.node(id)) else { return Difference::Whole };
        let facts = |node| self.facts(node, CapabilityVersion::CURRENT, Vec::new());
        let before = netmap::peer(old, Facts { online: was.online, expired: was.expired, ..facts(old) });
        difference(before, &netmap::peer(new, facts(new)))
    }
}

/// A patch where a patch can say it all.
fn difference(mut before: control::Node, after: &control::Node) -> Difference {
    if before == *after {
        return Difference::None;
    }
    let mut patch = PeerChange { node_id: after.id, ..PeerChange::default() };
    if before.key != after.key {
        before.key = after.key;
        patch.key = Some(after.key);
    }
    if before.disco_key != after.disco_key && !after.disco_key.is_zero() {
        before.disco_key = after.disco_key;
        patch.disco_key = Some(after.disco_key);
    }
    if before.endpoints != after.endpoints && !after.endpoints.is_empty() {
        before.endpoints.clone_from(&after.endpoints);
        patch.endpoints.clone_from(&after.endpoints);
    }
    if before.home_derp != after.home_derp && !after.home_derp.is_zero() {
        before.home_derp = after.home_derp;
        patch.derp_region = after.home_derp;
    }
    if before.cap != after.cap {
        before.cap = after.cap;
        patch.cap = after.cap;
    }
    if before.key_expiry != after.key_expiry {
        before.key_expiry = after.key_expiry;
        patch.key_expiry = Some(after.key_expiry);
    }
    if (before.online, before.last_seen) != (after.online, after.last_seen) {
        (before.online, before.last_seen) = (after.online, after.last_seen);
        (patch.online, patch.last_seen) = (after.online, after.last_seen);
    }
    if before == *after { Difference::Patch(Box::new(patch)) } else { Difference::Whole }
}

/// Whether a node is told of a difference of its own: not of where it is, which it said itself.
fn concerns_itself(difference: &Difference) -> bool {
    match difference {
        Difference::None => false,
        Difference::Patch(patch) => patch.key.is_some() || patch.key_expiry.is_some(),
        Difference::Whole => true,
    }
}

/// The last message of a node that was deleted: its key is over.
fn farewell(changes: &Changes, id: NodeId, wall: Timestamp) -> MapResponse {
    let old = changes.was.get(&id).and_then(|was| was.node.as_ref());
    let node = old.map(|node| {
        let facts = Facts {
            domain: "",
            reader: node.cap,
            online: false,
            expired: true,
            routes: Vec::new(),
            primary_routes: Vec::new(),
        };
        control::Node { key_expiry: wall.into(), ..netmap::itself(node, facts) }
    });
    MapResponse { node, control_time: Some(wall.into()), ..MapResponse::default() }
}

fn fingerprint(routes: &[IpNet]) -> u64 {
    let mut hasher = DefaultHasher::new();
    routes.hash(&mut hasher);
    hasher.finish()
}

/// Never 0, which stands for "told nothing yet".
fn filter_fingerprint(filter: &[FilterRule]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for rule in filter {
        rule.src_ips.hash(&mut hasher);
        rule.ip_proto.hash(&mut hasher);
        for port in &rule.dst_ports {
            (&port.ip, port.ports.first, port.ports.last).hash(&mut hasher);
        }
    }
    hasher.finish().max(1)
}
