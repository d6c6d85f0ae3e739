//! Who is connected: the one owner of that question.
//!
//! A node is online while it has a map stream, and for a grace after the stream broke, so that a reconnect is no news
//! to anybody. An ephemeral node is deleted when it has been offline for long enough; the count starts anew with every
//! start of the server, never before a node could have come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use types::NodeId;

/// How long a broken stream may take to come back unnoticed.
pub const OFFLINE_GRACE: Duration = Duration::from_secs(10);

/// How long an ephemeral node may be offline.
pub const EPHEMERAL_GRACE: Duration = Duration::from_secs(30 * 60);

/// One map stream; never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

#[derive(Clone, Copy, Debug)]
enum State {
    Connected(SessionId),
    /// Still online; offline at the instant.
    Leaving(Instant),
    /// Offline; to be deleted at the instant.
    Doomed(Instant),
}

/// What a node's time has come for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is offline from now on.
    Offline(NodeId),
    /// It is ephemeral and has been offline for too long.
    Delete(NodeId),
}

/// The state of every node that has one; all others are offline.
#[derive(Debug, Default)]
pub struct Liveness {
    by_node: BTreeMap<NodeId, State>,
}

impl Liveness {
    /// Whether a node counts as connected.
    pub fn online(&self, node: NodeId) -> bool {
        matches!(self.by_node.get(&node), Some(State::Connected(_) | State::Leaving(_)))
    }

    /// How many nodes count as connected.
    pub fn count(&self) -> usize {
        self.by_node.values().filter(|state| !matches!(state, State::Doomed(_))).count()
    }

    /// A node's stream begins; answers the stream it replaces.
    pub fn connect(&mut self, node: NodeId, session: SessionId) -> Option<SessionId> {
        match self.by_node.insert(node, State::Connected(session)) {
            Some(State::Connected(old)) => Some(old),
            _ => None,
        }
    }

    /// A stream broke; nothing when another has replaced it.
    pub fn disconnect(&mut self, node: NodeId, session: SessionId, now: Instant) {
        if let Some(state @ State::Connected(_)) = self.by_node.get_mut(&node)
            && matches!(state, State::Connected(current) if *current == session)
        {
            *state = State::Leaving(now + OFFLINE_GRACE);
        }
    }

    /// An offline node is ephemeral: it is deleted unless it connects.
    pub fn doom(&mut self, node: NodeId, now: Instant) {
        if !self.online(node) {
            self.by_node.insert(node, State::Doomed(now + EPHEMERAL_GRACE));
        }
    }

    /// The node is offline, or deleted.
    pub fn forget(&mut self, node: NodeId) {
        self.by_node.remove(&node);
    }

    /// When [`Liveness::peek`] next has something.
    pub fn timeout(&self) -> Option<Instant> {
        let at = |state: &State| match state {
            State::Connected(_) => None,
            State::Leaving(at) | State::Doomed(at) => Some(*at),
        };
        self.by_node.values().filter_map(at).min()
    }

    /// A node whose time has come; it stays so until [`Liveness::forget`].
    pub fn peek(&self, now: Instant) -> Option<Due> {
        let due = |(node, state): (&NodeId, &State)| match state {
            State::Leaving(at) if *at <= now => Some(Due::Offline(*node)),
            State::Doomed(at) if *at <= now => Some(Due::Delete(*node)),
            _ => None,
        };
        self.by_node.iter().find_map(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    #[test]
    fn a_reconnect_within_the_grace_is_no_news() {
        let (mut liveness, start) = (Liveness::default(), Instant::now());
        assert_eq!(liveness.connect(NODE, SessionId(1)), None);
        liveness.disconnect(NODE, SessionId(1), start);
        assert!(liveness.online(NODE));
        assert_eq!(liveness.peek(start + OFFLINE_GRACE - Duration::from_millis(1)), None);
        liveness.connect(NODE, SessionId(2));
        assert_eq!((liveness.timeout(), liveness.peek(start + OFFLINE_GRACE)), (None, None));
        liveness.disconnect(NODE, SessionId(2), start);
        assert_eq!(liveness.peek(start + OFFLINE_GRACE), Some(Due::Offline(NODE)));
        liveness.forget(NODE);
        assert!(!liveness.online(NODE));
    }

    #[test]
    fn the_end_of_a_replaced_stream_is_no_news() {
        let (mut liveness, start) = (Liveness::default(), Instant::now());
        liveness.connect(NODE, SessionId(1));
        assert_eq!(liveness.connect(NODE, SessionId(2)), Some(SessionId(1)));
        liveness.disconnect(NODE, SessionId(1), start);
        assert_eq!(liveness.timeout(), None);
        assert!(liveness.online(NODE));
    }

    #[test]
    fn an_ephemeral_node_goes_only_after_its_grace() {
        let (mut liveness, start) = (Liveness::default(), Instant::now());
        liveness.doom(NODE, start);
        assert_eq!(liveness.peek(start + EPHEMERAL_GRACE - Duration::from_secs(1)), None);
        assert_eq!(liveness.peek(start + EPHEMERAL_GRACE), Some(Due::Delete(NODE)));
        liveness.doom(NODE, start);
        liveness.connect(NODE, SessionId(1));
        liveness.doom(NODE, start);
        assert_eq!(liveness.peek(start + EPHEMERAL_GRACE), None);
    }
}
