//! Machines that wait for an administrator: in memory only, bounded in number and time.
//!
//! A machine that registers without a key is given a URL with its number here; `admin nodes approve` names the number.
//! After a restart of the server the machine asks again and gets another.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use types::{MachinePublic, NodePublic};
use wire::control::RegisterRequest;

/// How long a machine may wait for an administrator.
pub const LIFETIME: Duration = Duration::from_secs(3600);

/// Registrations need no authentication to come here, so their number is bounded; the oldest goes first.
const MOST: usize = 256;

/// A waiting machine.
#[derive(Clone)]
pub struct Pending {
    /// The machine.
    pub machine: MachinePublic,
    /// What it asked.
    pub request: RegisterRequest,
    /// When.
    pub since: Timestamp,
}

/// All of them, by the key in their URL.
#[derive(Default)]
pub struct Pendings {
    by_key: BTreeMap<String, Pending>,
}

impl Pendings {
    /// Lets a machine wait; asking again keeps its place. `random` makes the key of a new one.
    pub fn wait(&mut self, pending: Pending, random: [u8; 12]) -> String {
        self.expire(pending.since);
        let same = |other: &Pending| {
            other.machine == pending.machine && other.request.node_key == pending.request.node_key
        };
        if let Some((key, _)) = self.by_key.iter().find(|(_, other)| same(other)) {
            return key.clone();
        }
        if self.by_key.len() >= MOST {
            let oldest =
                self.by_key.iter().min_by_key(|(_, pending)| pending.since).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.by_key.remove(&key));
        }
        let key = hex::encode(random);
        self.by_key.insert(key.clone(), pending);
        key
    }

    /// The machine that waits under `key`.
    pub fn get(&self, key: &str) -> Option<&Pending> {
        self.by_key.get(key)
    }

    /// Whether this machine still waits under `key` with this node key.
    pub fn waits(&self, key: &str, machine: MachinePublic, node_key: NodePublic) -> bool {
        self.get(key)
            .is_some_and(|pending| pending.machine == machine && pending.request.node_key == node_key)
    }

    /// It is decided.
    pub fn remove(&mut self, key: &str) {
        self.by_key.remove(key);
    }

    /// All that wait, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Pending)> {
        self.by_key.iter().map(|(key, pending)| (key.as_str(), pending))
    }

    /// Forgets who has waited too long.
    pub fn expire(&mut self, now: Timestamp) {
        self.by_key.retain(|_, pending| pending.since + LIFETIME > now);
    }
}
