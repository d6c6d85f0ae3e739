//! The state in memory: a snapshot of what the store keeps, with the indices that requests need.
//!
//! It changes only by [`Registry::apply`], record by record, after the store has committed them.

use std::collections::{BTreeMap, HashMap};

use types::{MachinePublic, NodeId, NodePublic, UserId};

use crate::addresses::{Addresses, Pool};
use crate::model::{AuthKey, KeyId, Node, User};
use crate::names;
use crate::record::{Record, Records};

/// Users, keys and nodes.
#[derive(Default)]
pub struct Registry {
    users: BTreeMap<UserId, User>,
    keys: BTreeMap<KeyId, AuthKey>,
    nodes: BTreeMap<NodeId, Node>,
    by_node_key: HashMap<NodePublic, NodeId>,
    pool: Pool,
    /// Highest numbers ever given: users, keys, nodes.
    highest: [i64; 3],
}

impl Registry {
    /// The state a store had.
    pub fn new(records: Records) -> Self {
        let mut registry = Self { highest: records.highest, ..Self::default() };
        let users = records.users.into_iter().map(Record::User);
        let keys = records.keys.into_iter().map(Record::Key);
        let nodes = records.nodes.into_iter().map(|node| Record::Node(Box::new(node)));
        for record in users.chain(keys).chain(nodes) {
            registry.apply(record);
        }
        registry
    }

    /// Takes in one committed record.
    pub fn apply(&mut self, record: Record) {
        let [users, keys, nodes] = &mut self.highest;
        match record {
            Record::User(user) => {
                *users = user.id.0.max(*users);
                self.users.insert(user.id, user);
            }
            Record::Key(key) => {
                *keys = key.id.0.max(*keys);
                self.keys.insert(key.id, key);
            }
            Record::SpendKey { id, uses } => {
                if let Some(key) = self.keys.get_mut(&id) {
                    key.uses = uses + 1;
                }
            }
            Record::Node(node) => {
                *nodes = node.id.0.max(*nodes);
                self.forget(node.id);
                self.by_node_key.insert(node.node_key, node.id);
                self.pool.take(node.addresses);
                self.nodes.insert(node.id, *node);
            }
            Record::DeleteNode(id) => self.forget(id),
        }
    }

    fn forget(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.remove(&id) {
            self.by_node_key.remove(&node.node_key);
            self.pool.release(node.addresses);
        }
    }

    /// All users, by number.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// A user by number.
    pub fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(&id)
    }

    /// A user by name.
    pub fn user_named(&self, name: &str) -> Option<&User> {
        self.users.values().find(|user| user.name == name)
    }

    /// The name of a user, empty for one that is gone.
    pub fn user_name(&self, id: UserId) -> &str {
        self.user(id).map_or("", |user| &user.name)
    }

    /// All auth keys, by number.
    pub fn keys(&self) -> impl Iterator<Item = &AuthKey> {
        self.keys.values()
    }

    /// An auth key by number.
    pub fn key(&self, id: KeyId) -> Option<&AuthKey> {
        self.keys.get(&id)
    }

    /// All nodes, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A node by number.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The node that has this key now.
    pub fn node_by_key(&self, key: &NodePublic) -> Option<&Node> {
        self.by_node_key.get(key).and_then(|id| self.nodes.get(id))
    }

    /// The nodes of a machine: one a user, for machines that switch between users.
    pub fn nodes_of_machine(&self, machine: MachinePublic) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| node.machine_key == machine)
    }

    /// A node by what an administrator would call it: number, name or overlay address.
    pub fn find_node(&self, text: &str) -> Option<&Node> {
        if let Ok(number) = text.parse() {
            return self.node(NodeId(number));
        }
        if let Ok(addr) = text.parse() {
            return self.nodes.values().find(|node| node.ips().contains(&addr));
        }
        self.nodes.values().find(|node| node.name == text)
    }

    /// A name for a node that wishes for one; its own name is not in its way.
    pub fn free_name(&self, hostname: &str, own: Option<NodeId>) -> String {
        let others = |name: &str| self.nodes.values().any(|node| Some(node.id) != own && node.name == name);
        names::unique(&names::label(hostname), others)
    }

    /// Addresses for a new node; none when the range is full.
    pub fn free_addresses(&self) -> Option<Addresses> {
        self.pool.next()
    }

    /// The number of the next user.
    pub fn next_user(&self) -> UserId {
        UserId(self.highest[0] + 1)
    }

    /// The number of the next auth key.
    pub fn next_key(&self) -> KeyId {
        KeyId(self.highest[1] + 1)
    }

    /// The number of the next node.
    pub fn next_node(&self) -> NodeId {
        NodeId(self.highest[2] + 1)
    }
}
