//! One key's connections. Usually there is one; a client that changes networks has two for a while, a cloned key for
//! ever. The connection heard last gets the packets (tailscale `derpserver`, `lastWriterIsActive`).

use crate::ConnectionId;

/// So often may the active connection change before it is a fight: fewer happen when an old stream's last bytes arrive
/// after the new stream's first.
const TAKEOVERS_OF_A_FIGHT: u32 = 4;

/// What a frame changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The active connection spoke.
    Active,
    /// Another connection spoke and is active now.
    TookOver,
    /// And so often that two machines must be using this key; said once.
    Fighting,
}

/// The connections of one key, the active one last.
#[derive(Debug)]
pub(crate) struct Client {
    by_recency: Vec<ConnectionId>,
    takeovers: u32,
}

impl Client {
    pub(crate) fn new(first: ConnectionId) -> Self {
        Self { by_recency: vec![first], takeovers: 0 }
    }

    /// A new connection is the active one.
    pub(crate) fn add(&mut self, id: ConnectionId) {
        self.by_recency.push(id);
    }

    /// A frame came from `id`.
    pub(crate) fn heard(&mut self, id: ConnectionId) -> Heard {
        if self.by_recency.last() == Some(&id) {
            return Heard::Active;
        }
        self.by_recency.retain(|other| *other != id);
        self.by_recency.push(id);
        self.takeovers = self.takeovers.saturating_add(1);
        if self.takeovers == TAKEOVERS_OF_A_FIGHT { Heard::Fighting } else { Heard::TookOver }
    }

    /// Forgets `id`; true when the one connection left should hear that a fight is over.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> bool {
        self.by_recency.retain(|other| *other != id);
        let fought = self.takeovers >= TAKEOVERS_OF_A_FIGHT;
        if self.by_recency.len() > 1 {
            return false;
        }
        self.takeovers = 0;
        fought
    }

    /// Where packets for this key go.
    pub(crate) fn active(&self) -> Option<ConnectionId> {
        self.by_recency.last().copied()
    }

    pub(crate) fn all(&self) -> &[ConnectionId] {
        &self.by_recency
    }
}
