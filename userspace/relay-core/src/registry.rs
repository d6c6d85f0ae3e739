//! Who is connected: keys, their connections, homes, listeners, watchers, and where other servers' clients are.
//!
//! Asked and changed under one lock, when somebody comes, goes, or first talks to somebody; never for a packet.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use types::NodePublic;
use wire::derp::{Frame, GoneReason, PresentFlags};

use crate::client::{Client, Heard};
use crate::counters::Live;
use crate::mailbox::Mailbox;
use crate::{ConnectionId, Counters, DropReason};

/// Connections of one key. A client has one, two while it moves; more are a loop or an attack.
pub(crate) const MAX_CONNECTIONS_OF_A_KEY: usize = 8;
const DUPLICATE: &str = "two machines use the same node key; log one of them out and in again";

/// Names one connection to another server of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UplinkId(u64);

/// Where a destination's packets go.
#[derive(Clone)]
pub(crate) enum Route {
    /// To a client of this server.
    Local(Arc<Mailbox>),
    /// To the server that has it; as it was known in this epoch of the mesh.
    Mesh { mailbox: Arc<Mailbox>, epoch: u64 },
}

impl Route {
    pub(crate) fn is_valid(&self, mesh_epoch: u64) -> bool {
        match self {
            Self::Local(mailbox) => mailbox.is_active(),
            Self::Mesh { epoch, .. } => *epoch == mesh_epoch,
        }
    }
}

struct Connection {
    key: NodePublic,
    mailbox: Arc<Mailbox>,
    address: Option<SocketAddr>,
    flags: PresentFlags,
    home: bool,
    /// Keys whose packets it got: it is told when they go.
    sources: BTreeSet<NodePublic>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Registry {
    next_id: u64,
    connections: HashMap<ConnectionId, Connection>,
    clients: HashMap<NodePublic, Client>,
    /// Who got packets of a key.
    listeners_by_source: HashMap<NodePublic, BTreeSet<ConnectionId>>,
    /// Servers that want to know who comes and goes.
    watchers: BTreeSet<ConnectionId>,
    uplinks: HashMap<UplinkId, Arc<Mailbox>>,
    /// Which servers have a key, the first known first.
    uplinks_by_key: HashMap<NodePublic, Vec<UplinkId>>,
    pub(crate) counters: Counters,
}

impl Registry {
    /// Takes in a connection.
    pub(crate) fn admit(
        &mut self,
        key: NodePublic,
        address: Option<SocketAddr>,
        flags: PresentFlags,
        mailbox: Arc<Mailbox>,
    ) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let connection = Connection { key, mailbox, address, flags, home: false, sources: BTreeSet::new() };
        self.connections.insert(id, connection);
        self.counters.accepts += 1;
        self.counters.connections += 1;
        if let Some(client) = self.clients.get_mut(&key) {
            self.counters.duplicate_keys += u64::from(client.all().len() == 1);
            let before = client.active();
            client.add(id);
            let surplus = (client.all().len() > MAX_CONNECTIONS_OF_A_KEY).then(|| client.all()[0]);
            self.set_active(before, false);
            if let Some(surplus) = surplus.and_then(|id| self.connections.get(&id)) {
                surplus.mailbox.close();
            }
        } else {
            self.clients.insert(key, Client::new(id));
        }
        for watcher in &self.watchers {
            self.tell_present(*watcher, id);
        }
        id
    }

    /// Forgets a connection. When it was its key's last, everyone who got packets of that key is told.
    pub(crate) fn remove(&mut self, id: ConnectionId, live: &Live) {
        let Some(connection) = self.connections.remove(&id) else { return };
        connection.mailbox.set_active(false);
        self.counters.connections -= 1;
        self.counters.homes -= u64::from(connection.home);
        for (kind, count) in connection.mailbox.clear() {
            live.drop(DropReason::Disconnected, kind, count);
        }
        self.watchers.remove(&id);
        for source in &connection.sources {
            if let Some(listeners) = self.listeners_by_source.get_mut(source) {
                listeners.remove(&id);
                if listeners.is_empty() {
                    self.listeners_by_source.remove(source);
                }
            }
        }
        self.remove_from_client(id, connection.key);
    }

    fn remove_from_client(&mut self, id: ConnectionId, key: NodePublic) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let peace = client.remove(id);
        let (active, left) = (client.active(), client.all().len());
        self.set_active(active, true);
        match left {
            0 => {
                self.clients.remove(&key);
                for watcher in &self.watchers {
                    self.notify(*watcher, &Frame::PeerGone { peer: key, reason: GoneReason::Disconnected });
                }
                if !self.uplinks_by_key.contains_key(&key) {
                    self.gone_from_region(key);
                }
            }
            1 => {
                self.counters.duplicate_keys -= 1;
                if let Some(last) = active.filter(|_| peace) {
                    self.notify(last, &Frame::Health("".into()));
                }
            }
            _ => {}
        }
    }

    /// Tells whoever got packets of a key that it is at no server of the region any more.
    fn gone_from_region(&mut self, key: NodePublic) {
        for listener in self.listeners_by_source.remove(&key).unwrap_or_default() {
            if let Some(connection) = self.connections.get_mut(&listener) {
                connection.sources.remove(&key);
            }
            self.counters.gone_disconnected += 1;
            self.notify(listener, &Frame::PeerGone { peer: key, reason: GoneReason::Disconnected });
        }
    }

    /// Where packets of `source` for `to` go; ours before other servers'.
    pub(crate) fn route(&mut self, source: NodePublic, to: NodePublic, mesh_epoch: u64) -> Option<Route> {
        if let Some(mailbox) = self.local(source, to) {
            return Some(Route::Local(mailbox));
        }
        let first = self.uplinks_by_key.get(&to)?.first()?;
        Some(Route::Mesh { mailbox: self.uplinks.get(first)?.clone(), epoch: mesh_epoch })
    }

    /// Where packets of `source` for our own client `to` go. It will be told when `source` goes.
    pub(crate) fn local(&mut self, source: NodePublic, to: NodePublic) -> Option<Arc<Mailbox>> {
        let id = self.clients.get(&to)?.active()?;
        let connection = self.connections.get_mut(&id)?;
        if connection.sources.insert(source) {
            self.listeners_by_source.entry(source).or_default().insert(id);
        }
        Some(connection.mailbox.clone())
    }

    /// A connection that was not its key's active one spoke.
    pub(crate) fn heard(&mut self, id: ConnectionId, key: NodePublic) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let before = client.active();
        let heard = client.heard(id);
        let all = client.all().to_vec();
        if heard != Heard::Active {
            self.set_active(before, false);
            self.set_active(Some(id), true);
        }
        if heard == Heard::Fighting {
            all.into_iter().for_each(|id| self.notify(id, &Frame::Health(DUPLICATE.into())));
        }
    }

    /// Whether a client calls this server its home.
    pub(crate) fn set_home(&mut self, id: ConnectionId, home: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let before = u64::from(std::mem::replace(&mut connection.home, home));
        self.counters.homes = self.counters.homes + u64::from(home) - before;
    }

    /// A server of the region wants to know who is here, and who comes and goes.
    pub(crate) fn watch(&mut self, id: ConnectionId) {
        for active in self.clients.values().filter_map(Client::active) {
            self.tell_present(id, active);
        }
        self.watchers.insert(id);
    }

    fn tell_present(&self, watcher: ConnectionId, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let Connection { key, address, flags, .. } = connection;
        self.notify(watcher, &Frame::PeerPresent { peer: *key, address: *address, flags: *flags });
    }

    /// Has all connections of a key end.
    pub(crate) fn disconnect(&self, key: &NodePublic) {
        let ids = self.clients.get(key).map(Client::all).unwrap_or_default();
        ids.iter().filter_map(|id| self.connections.get(id)).for_each(|gone| gone.mailbox.close());
    }

    /// Tells every client that this server restarts.
    pub(crate) fn announce_restart(&self, reconnect_in: Duration, try_for: Duration) {
        let frame = Frame::Restarting { reconnect_in, try_for };
        self.connections.values().for_each(|connection| connection.mailbox.notify(&frame));
    }

    /// Takes in a connection to another server.
    pub(crate) fn add_uplink(&mut self, mailbox: Arc<Mailbox>) -> UplinkId {
        let id = UplinkId(self.next_id);
        self.next_id += 1;
        self.uplinks.insert(id, mailbox);
        id
    }

    /// Another server has this client.
    pub(crate) fn present_at(&mut self, uplink: UplinkId, key: NodePublic) {
        let uplinks = self.uplinks_by_key.entry(key).or_default();
        if !uplinks.contains(&uplink) {
            uplinks.push(uplink);
        }
    }

    /// Another server has lost this client.
    pub(crate) fn gone_at(&mut self, uplink: UplinkId, key: NodePublic) {
        let Some(uplinks) = self.uplinks_by_key.get_mut(&key) else { return };
        uplinks.retain(|other| *other != uplink);
        if uplinks.is_empty() {
            self.uplinks_by_key.remove(&key);
            if !self.clients.contains_key(&key) {
                self.gone_from_region(key);
            }
        }
    }

    /// Whether another server has this client.
    pub(crate) fn is_elsewhere(&self, key: &NodePublic) -> bool {
        self.uplinks_by_key.contains_key(key)
    }

    /// The connection to another server ended: its clients are out of reach.
    pub(crate) fn remove_uplink(&mut self, uplink: UplinkId) {
        self.uplinks.remove(&uplink);
        let at = |uplinks: &Vec<UplinkId>| uplinks.contains(&uplink);
        let keys: Vec<_> =
            self.uplinks_by_key.iter().filter(|(_, uplinks)| at(uplinks)).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.gone_at(uplink, key));
    }

    fn set_active(&self, id: Option<ConnectionId>, active: bool) {
        if let Some(connection) = id.and_then(|id| self.connections.get(&id)) {
            connection.mailbox.set_active(active);
        }
    }

    fn notify(&self, id: ConnectionId, frame: &Frame<'_>) {
        if let Some(connection) = self.connections.get(&id) {
            connection.mailbox.notify(frame);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.listeners_by_source.is_empty() && self.uplinks_by_key.is_empty()
    }
}
