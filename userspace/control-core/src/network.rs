//! The network: the state, the policy resolved against it, who is connected, and what each stream has been told.
//!
//! Lives as long as the server. A change comes as committed records ([`Network::apply`]) or as a stream's begin or end;
//! both only note which nodes are touched. [`Network::flush`] then turns the notes into messages (`delta`), so that a
//! burst of changes is one message. Deliberately not here: the store, sockets, and the clock.

use std::collections::BTreeMap;
use std::time::Instant;

use ipnet::IpNet;
use jiff::Timestamp;
use types::{CapabilityVersion, MachinePublic, NodeId, NodePublic};
use wire::control::{DerpMap, Hostinfo, MapRequest, MapResponse};

use crate::delta::{Changes, View, Was};
use crate::liveness::{Due, Liveness, SessionId};
use crate::model::Node;
use crate::policy::{Compiled, Policy, Subject};
use crate::record::{Record, Records};
use crate::register::approve_routes;
use crate::registry::Registry;
use crate::routes::Primaries;

/// Both clocks: wall time for what is stored and shown, monotonic time for waiting.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Wall time.
    pub wall: Timestamp,
    /// Monotonic time.
    pub instant: Instant,
}

/// What every node is told alike.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Domain of the nodes' names, without dots around it.
    pub domain: String,
    /// The relays.
    pub derp_map: DerpMap,
}

/// From this version on a streaming request reports nothing (`tailcfg.CapabilityVersion` 68).
const READ_ONLY_STREAM: CapabilityVersion = CapabilityVersion(68);

/// A map stream's begin.
pub struct Connected {
    /// The stream.
    pub session: SessionId,
    /// Its first message.
    pub map: MapResponse,
    /// The node's earlier stream, which is to be ended.
    pub replaced: Option<SessionId>,
}

/// Why a map is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapRefusal {
    /// No node has this key: it never registered, or was deleted.
    #[error("node not found: register again")]
    Unknown,
    /// Another machine registered this key.
    #[error("this node key belongs to another machine")]
    OtherMachine,
}

/// The network.
pub struct Network {
    pub(crate) settings: Settings,
    pub(crate) registry: Registry,
    pub(crate) liveness: Liveness,
    pub(crate) primaries: Primaries,
    pub(crate) subjects: BTreeMap<NodeId, Subject>,
    pub(crate) compiled: Compiled,
    pub(crate) views: BTreeMap<SessionId, View>,
    pub(crate) changes: Changes,
    policy: Policy,
    /// The wall time up to which expiries have been noticed.
    clock: Timestamp,
    next_session: u64,
    /// How often nodes have been touched.
    touches: u64,
}

impl Network {
    /// The network a store had.
    pub fn new(records: Records, policy: Policy, settings: Settings, now: Now) -> Self {
        let mut network = Self {
            settings,
            registry: Registry::default(),
            liveness: Liveness::default(),
            primaries: Primaries::default(),
            subjects: BTreeMap::new(),
            compiled: Compiled::default(),
            views: BTreeMap::new(),
            changes: Changes::default(),
            policy,
            clock: now.wall,
            next_session: 1,
            touches: 0,
        };
        network.registry = Registry::new(records);
        let ids: Vec<_> = network.registry.nodes().map(|node| node.id).collect();
        for id in ids {
            network.follow(id, now);
        }
        network.update_primaries();
        network.compile();
        network.changes = Changes::default();
        network
    }

    /// Users, keys and nodes.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What every node is told alike.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a node counts as connected.
    pub fn online(&self, node: NodeId) -> bool {
        self.liveness.online(node)
    }

    /// How many nodes count as connected.
    pub fn online_count(&self) -> usize {
        self.liveness.count()
    }

    /// The prefixes that the network sends to `node`.
    pub fn primary_routes(&self, node: NodeId) -> &[IpNet] {
        self.primaries.of(node)
    }

    /// Whether a relay may admit the node with this key.
    pub fn admits(&self, key: &NodePublic) -> bool {
        self.registry.node_by_key(key).is_some_and(|node| !node.expired(self.clock))
    }

    /// The node that `key` names, when it is this machine's.
    ///
    /// # Errors
    /// When the key is unknown or another machine's.
    pub fn authenticate(&self, machine: MachinePublic, key: &NodePublic) -> Result<&Node, MapRefusal> {
        let node = self.registry.node_by_key(key).ok_or(MapRefusal::Unknown)?;
        if node.machine_key == machine { Ok(node) } else { Err(MapRefusal::OtherMachine) }
    }

    /// Takes in committed records.
    pub fn apply(&mut self, records: Vec<Record>, now: Now) {
        self.advance(now.wall);
        let mut nodes = Vec::new();
        for record in records {
            let node = match &record {
                Record::Node(node) => Some(node.id),
                Record::DeleteNode(id) => Some(*id),
                Record::User(_) | Record::Key(_) | Record::SpendKey { .. } => None,
            };
            nodes.extend(node);
            node.into_iter().for_each(|id| self.touch(id));
            self.registry.apply(record);
            node.into_iter().for_each(|id| self.follow(id, now));
        }
        if !nodes.is_empty() {
            self.update_primaries();
        }
    }

    /// Puts another policy in force; answers the records of routes that it approves.
    pub fn set_policy(&mut self, policy: Policy) -> Vec<Record> {
        self.policy = policy;
        self.changes.policy = true;
        self.changes.stale = true;
        let approved = |node: &Node| {
            let mut approved = node.clone();
            approve_routes(&self.policy, self.registry.user_name(node.user), &mut approved);
            (approved != *node).then(|| Record::Node(Box::new(approved)))
        };
        self.registry.nodes().filter_map(approved).collect()
    }

    /// Other relays; every node is told.
    pub fn set_derp_map(&mut self, map: DerpMap) {
        if self.settings.derp_map != map {
            self.settings.derp_map = map;
            self.changes.relays = true;
        }
    }

    /// What a node reports of itself, as the record that keeps it; nothing when it is not new.
    ///
    /// A streaming request of version 68 or later is read-only; it only fills what is not known yet.
    pub fn report(&self, node: &Node, request: &MapRequest) -> Option<Record> {
        let mut changed = node.clone();
        let read_only = request.read_only || (request.stream && request.version >= READ_ONLY_STREAM);
        changed.cap = request.version;
        if !request.disco_key.is_zero() {
            changed.disco_key = request.disco_key;
        }
        if !read_only || changed.endpoints.is_empty() {
            changed.endpoints.clone_from(&request.endpoints);
        }
        if let Some(hostinfo) = request.hostinfo.as_ref().filter(|_| !read_only) {
            if !changed.named_by_admin && changed.hostinfo.hostname != hostinfo.hostname {
                changed.name = self.registry.free_name(&hostinfo.hostname, Some(node.id));
            }
            let net_info = hostinfo.net_info.clone().or(changed.hostinfo.net_info);
            changed.hostinfo = Hostinfo { net_info, ..hostinfo.clone() };
            approve_routes(&self.policy, self.registry.user_name(node.user), &mut changed);
        }
        (changed != *node).then(|| Record::Node(Box::new(changed)))
    }

    /// A map stream begins; another of the same node ends with it. The answer to the stream is its full map.
    pub fn connect(&mut self, node: NodeId, cap: CapabilityVersion, now: Now) -> Option<Connected> {
        self.advance(now.wall);
        self.registry.node(node)?;
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.touch(node);
        let replaced = self.liveness.connect(node, session);
        replaced.and_then(|old| self.views.remove(&old));
        self.update_primaries();
        self.compile();
        let (view, map) = self.full_map(node, cap)?;
        self.views.insert(session, view);
        Some(Connected { session, map, replaced })
    }

    /// A map once, without a stream.
    pub fn snapshot(&mut self, node: NodeId, cap: CapabilityVersion, now: Now) -> Option<MapResponse> {
        self.advance(now.wall);
        self.compile();
        self.full_map(node, cap).map(|(_, map)| map)
    }

    /// A map stream has ended.
    pub fn disconnect(&mut self, session: SessionId, now: Now) {
        if let Some(view) = self.views.remove(&session) {
            self.liveness.disconnect(view.node, session, now.instant);
        }
    }

    /// Whether [`Network::flush`] may have something to tell.
    pub fn has_news(&self) -> bool {
        !self.changes.was.is_empty() || self.changes.policy
    }

    /// When [`Network::handle_timeout`] is next needed, on each clock.
    pub fn poll_timeout(&self) -> (Option<Instant>, Option<Timestamp>) {
        let expiries = self.registry.nodes().filter_map(|node| node.expires);
        (self.liveness.timeout(), expiries.filter(|at| *at > self.clock).min())
    }

    /// Notices who has gone and what has expired; answers the records to commit and apply.
    pub fn handle_timeout(&mut self, now: Now) -> Vec<Record> {
        self.advance(now.wall);
        let mut records = Vec::new();
        while let Some(due) = self.liveness.peek(now.instant) {
            let (Due::Offline(id) | Due::Delete(id)) = due;
            self.touch(id);
            self.liveness.forget(id);
            match (due, self.registry.node(id)) {
                (Due::Delete(_), Some(_)) => records.push(Record::DeleteNode(id)),
                (Due::Offline(_), Some(node)) => {
                    records.push(Record::Node(Box::new(Node { last_seen: Some(now.wall), ..node.clone() })));
                }
                (_, None) => {}
            }
        }
        records
    }

    /// The wall time the streams have been told of.
    pub(crate) fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Whether a node's key has expired, as far as the streams have been told.
    pub(crate) fn expired(&self, node: &Node) -> bool {
        node.expired(self.clock)
    }

    /// Resolves the policy again where the nodes it is about have changed.
    pub(crate) fn compile(&mut self) {
        if std::mem::take(&mut self.changes.stale) {
            let subjects: Vec<_> = self.subjects.values().cloned().collect();
            self.compiled = self.policy.compile(&subjects);
            self.changes.filters = true;
        }
    }

    /// How often nodes have been touched.
    pub(crate) fn touches(&self) -> u64 {
        self.touches
    }

    /// Notes what a node is, before it becomes something else.
    fn touch(&mut self, id: NodeId) {
        self.touches += 1;
        let touched = self.touches;
        if let Some(was) = self.changes.was.get_mut(&id) {
            was.touched = touched;
            return;
        }
        let node = self.registry.node(id).cloned();
        let expired = node.as_ref().is_some_and(|node| self.expired(node));
        self.changes.was.insert(id, Was { node, online: self.liveness.online(id), expired, touched });
    }

    /// Brings what is derived of a node in line with it.
    fn follow(&mut self, id: NodeId, now: Now) {
        let subject = self.registry.node(id).map(|node| subject(node, self.registry.user_name(node.user)));
        match self.registry.node(id) {
            Some(node) if node.ephemeral => self.liveness.doom(id, now.instant),
            Some(_) => {}
            None => self.liveness.forget(id),
        }
        if self.subjects.get(&id) == subject.as_ref() {
            return;
        }
        self.changes.stale = true;
        self.changes.moved.insert(id);
        match subject {
            Some(subject) => self.subjects.insert(id, subject),
            None => self.subjects.remove(&id),
        };
    }

    fn update_primaries(&mut self) {
        let online = |id| self.liveness.online(id);
        let offers = self.registry.nodes().filter(|node| !node.expired(self.clock));
        let offers =
            offers.flat_map(|node| node.subnet_routes().map(move |net| (node.id, online(node.id), net)));
        let changed = self.primaries.update(offers);
        for id in changed {
            self.touch(id);
        }
    }

    /// Moves the wall clock on and notes whose key expires by that.
    fn advance(&mut self, wall: Timestamp) {
        let newly = |node: &&Node| node.expired(wall) && !node.expired(self.clock);
        let expired: Vec<_> = self.registry.nodes().filter(newly).map(|node| node.id).collect();
        for id in &expired {
            self.touch(*id);
            self.changes.moved.insert(*id);
        }
        self.clock = wall.max(self.clock);
        if !expired.is_empty() {
            self.update_primaries();
        }
    }
}

fn subject(node: &Node, user: &str) -> Subject {
    Subject {
        id: node.id,
        user: user.to_owned(),
        tags: node.tags.clone(),
        addresses: node.ips().to_vec(),
        routes: node.subnet_routes().collect(),
        exit: node.is_exit(),
    }
}
