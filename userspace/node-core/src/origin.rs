//! An origin: who named an address of a peer, and so for how long it is worth trying.
//!
//! Deliberately not here: whether the address works, which is known a path (`paths`).

use std::time::Instant;

use wire::disco::TxId;

use crate::paths::SESSION;

/// Who named an address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// Control's map.
    pub(crate) in_map: bool,
    /// The peer's last call-me-maybe.
    pub(crate) called: bool,
    /// A place on a peer relay that we share.
    pub(crate) relayed: bool,
    /// The last ping of the peer from there.
    pub(crate) pinged: Option<Instant>,
    pub(crate) ping: Option<TxId>,
    /// The kernel authenticated a packet from there.
    pub(crate) roamed: Option<Instant>,
}

impl Origin {
    /// Whether somebody still names it; what only was heard from is kept as long as a session.
    pub(crate) fn is_current(&self, now: Instant) -> bool {
        let recent = |at: Option<Instant>| at.is_some_and(|at| now < at + SESSION);
        self.in_map || self.called || self.relayed || recent(self.pinged) || recent(self.roamed)
    }

    /// Who named it, for people.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            (self.in_map, "netmap"),
            (self.called, "call-me-maybe"),
            (self.relayed, "peer relay"),
            (self.pinged.is_some(), "ping"),
            (self.roamed.is_some(), "kernel"),
        ]
        .into_iter()
        .filter_map(|(named, by)| named.then_some(by))
    }
}
