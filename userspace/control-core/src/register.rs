//! Registration: what becomes of a `POST /machine/register`.
//!
//! A pure decision on the state: the answer, and the records it writes in one transaction, key use included. The rules,
//! in their order: a node key belongs to one machine; a logout needs nothing else; a key the server knows is always
//! fine and spends nothing; an auth key admits; a valid old key vouches for a new one; all others ask an administrator.

use ipnet::IpNet;
use jiff::Timestamp;
use types::overlay::EXIT_ROUTES;
use types::{DiscoPublic, MachinePublic, NodeId, UserId};
use wire::control::{Hostinfo, RegisterRequest};

use crate::auth_key::{self, KeyRefusal};
use crate::model::{AuthKey, KeyId, Node};
use crate::policy::Policy;
use crate::record::Record;
use crate::registry::Registry;

/// Why a registration is refused; the texts reach the user of the node as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request has no node key.
    #[error("the registration has no node key")]
    NoKey,
    /// Another machine registered the node key: somebody copied a state file, or worse.
    #[error("this node key belongs to another machine: delete the node's state and log in again")]
    OtherMachine,
    /// The auth key does not admit.
    #[error(transparent)]
    Key(#[from] KeyRefusal),
    /// Nobody may give the node the tags it asks for.
    #[error("requested tags {0} are invalid or not permitted: they need an owner in the policy's tagOwners")]
    Tags(String),
    /// 100.64.0.0/10 is full.
    #[error("the network has no address left: delete nodes that are gone")]
    NoAddress,
}

/// What becomes of a registration.
#[derive(Clone, PartialEq)]
pub enum Decision {
    /// The node is registered as it was; nothing is written.
    Known(NodeId),
    /// These records make it registered.
    Admit(NodeId, Vec<Record>),
    /// These records log it out.
    LogOut(NodeId, Vec<Record>),
    /// Its key has expired: it shall make a new one.
    Expired(NodeId),
    /// An administrator has to approve it.
    Ask,
}

/// Who asks: the machine whose Noise connection carries the request, and what it says.
pub struct Attempt<'a> {
    /// The Noise key of the connection.
    pub machine: MachinePublic,
    /// The request.
    pub request: &'a RegisterRequest,
    /// The time.
    pub now: Timestamp,
}

/// Decides on a registration.
///
/// # Errors
/// Why it is refused.
pub fn decide(registry: &Registry, policy: &Policy, attempt: &Attempt<'_>) -> Result<Decision, Refusal> {
    let Attempt { machine, request, now } = *attempt;
    if request.node_key.is_zero() {
        return Err(Refusal::NoKey);
    }
    let known = registry.node_by_key(&request.node_key);
    if known.is_some_and(|node| node.machine_key != machine) {
        return Err(Refusal::OtherMachine);
    }
    if request.expiry.get().is_some_and(|at| at <= now) {
        return Ok(known.map_or(Decision::Ask, |node| log_out(node, now)));
    }
    if let Some(node) = known.filter(|node| !node.expired(now)) {
        return Ok(Decision::Known(node.id));
    }
    if let Some(key) =
        request.auth.as_ref().map(|auth| auth.auth_key.0.as_str()).filter(|key| !key.is_empty())
    {
        let key = auth_key::check(registry, key, now)?;
        return admit(registry, policy, attempt, &Admission::by_key(key));
    }
    if let Some(node) = known {
        return Ok(Decision::Expired(node.id));
    }
    match registry.node_by_key(&request.old_node_key) {
        Some(old) if old.machine_key == machine && old.expires.is_none() => Ok(rotate(old, request)),
        _ => Ok(Decision::Ask),
    }
}

/// On what terms a node comes in.
pub struct Admission<'a> {
    user: UserId,
    tags: &'a [String],
    ephemeral: bool,
    key: Option<&'a AuthKey>,
}

impl<'a> Admission<'a> {
    /// By an auth key.
    fn by_key(key: &'a AuthKey) -> Self {
        Self { user: key.user, tags: &key.tags, ephemeral: key.ephemeral, key: Some(key) }
    }

    /// By an administrator's word, as a node of `user`.
    pub fn by_admin(user: UserId) -> Self {
        Self { user, tags: &[], ephemeral: false, key: None }
    }
}

/// Lets a machine in: as the node it already is for that user, or as a new one.
///
/// # Errors
/// When its tags are not permitted or no address is left.
pub fn admit(
    registry: &Registry,
    policy: &Policy,
    attempt: &Attempt<'_>,
    admission: &Admission<'_>,
) -> Result<Decision, Refusal> {
    let Attempt { machine, request, now } = *attempt;
    let hostinfo = request.hostinfo.clone().unwrap_or_default();
    let user_name = registry.user_name(admission.user);
    let tags = tags(policy, user_name, admission.tags, &hostinfo)?;
    let same = |node: &&Node| node.user == admission.user;
    let existing = registry.nodes_of_machine(machine).find(same);
    let mut node = match existing {
        Some(node) => node.clone(),
        None => new_node(registry, machine, admission.user, now)?,
    };
    if !node.named_by_admin && (existing.is_none() || node.hostinfo.hostname != hostinfo.hostname) {
        node.name = registry.free_name(&hostinfo.hostname, Some(node.id));
    }
    let asked = request.expiry.get().filter(|_| tags.is_empty());
    node.node_key = request.node_key;
    node.cap = request.version;
    node.expires = asked;
    node.ephemeral = admission.ephemeral || request.ephemeral;
    node.auth_key = admission.key.map(|key| key.id);
    node.tags = tags;
    node.hostinfo = Hostinfo { net_info: hostinfo.net_info.clone().or(node.hostinfo.net_info), ..hostinfo };
    approve_routes(policy, user_name, &mut node);
    let spend = |key: &AuthKey| Record::SpendKey { id: key.id, uses: key.uses };
    let id = node.id;
    let records = admission.key.map(spend).into_iter().chain([Record::Node(Box::new(node))]).collect();
    Ok(Decision::Admit(id, records))
}

/// Adds the routes that the policy lets the node serve without an administrator's word.
pub fn approve_routes(policy: &Policy, user: &str, node: &mut Node) {
    let allowed = |net: &IpNet| policy.approves(user, &node.tags, *net);
    let routes: Vec<_> = node.hostinfo.routable_ips.iter().copied().filter(allowed).collect();
    node.approved_routes = normal_routes(node.approved_routes.iter().copied().chain(routes));
}

/// Routes as they are kept: sorted, once each, and an exit node's in both families.
pub fn normal_routes(routes: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let mut routes: std::collections::BTreeSet<_> = routes.collect();
    if EXIT_ROUTES.iter().any(|net| routes.contains(net)) {
        routes.extend(EXIT_ROUTES);
    }
    routes.into_iter().collect()
}

/// The key's tags and those the node asks for, which the key must have or the user own.
fn tags(
    policy: &Policy,
    user: &str,
    granted: &[String],
    hostinfo: &Hostinfo,
) -> Result<Vec<String>, Refusal> {
    let asked = &hostinfo.request_tags;
    let refused: Vec<_> = asked
        .iter()
        .filter(|tag| !granted.contains(tag) && !policy.may_tag(user, tag))
        .map(String::as_str)
        .collect();
    if !refused.is_empty() {
        return Err(Refusal::Tags(refused.join(", ")));
    }
    let tags: std::collections::BTreeSet<_> = granted.iter().chain(asked).cloned().collect();
    Ok(tags.into_iter().collect())
}

fn new_node(
    registry: &Registry,
    machine_key: MachinePublic,
    user: UserId,
    now: Timestamp,
) -> Result<Node, Refusal> {
    Ok(Node {
        id: registry.next_node(),
        machine_key,
        node_key: types::NodePublic::default(),
        disco_key: DiscoPublic::default(),
        user,
        tags: Vec::new(),
        auth_key: None::<KeyId>,
        name: String::new(),
        named_by_admin: false,
        addresses: registry.free_addresses().ok_or(Refusal::NoAddress)?,
        hostinfo: Hostinfo::default(),
        endpoints: Vec::new(),
        cap: types::CapabilityVersion::default(),
        created: now,
        expires: None,
        last_seen: None,
        ephemeral: false,
        approved_routes: Vec::new(),
    })
}

/// A logout expires the key at once; an ephemeral node is gone with it.
fn log_out(node: &Node, now: Timestamp) -> Decision {
    let record = if node.ephemeral {
        Record::DeleteNode(node.id)
    } else {
        Record::Node(Box::new(Node { expires: Some(now), ..node.clone() }))
    };
    Decision::LogOut(node.id, vec![record])
}

/// A machine changes the node key of a node that never expires; one that does expire must log in, or its expiry would
/// mean nothing.
fn rotate(old: &Node, request: &RegisterRequest) -> Decision {
    let node = Node { node_key: request.node_key, cap: request.version, ..old.clone() };
    Decision::Admit(node.id, vec![Record::Node(Box::new(node))])
}
