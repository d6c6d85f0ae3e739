//! The change stream: what the kernel tells about links, addresses, routes and rules, as typed events.
//!
//! A watch is a multicast socket of its own, so that a storm of events never delays an answer. When the kernel had to
//! drop events the stream says [`Event::Lost`]: read everything anew. Deliberately not here: debouncing.

use crate::{Address, Link, Result, Route, Rule};

/// One change. "Changed" stands for added or modified: the kernel does not say which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link was added or modified.
    LinkChanged(Link),
    /// A link is gone.
    LinkRemoved(Link),
    /// An address was added or modified.
    AddressChanged(Address),
    /// An address is gone.
    AddressRemoved(Address),
    /// A route was added or replaced.
    RouteChanged(Route),
    /// A route is gone. (IPv4 routes of a link that goes down vanish without an event.)
    RouteRemoved(Route),
    /// A rule was added.
    RuleAdded(Rule),
    /// A rule is gone.
    RuleRemoved(Rule),
    /// Events were lost: read everything anew.
    Lost,
}

/// A subscription to every change of the namespace it was opened in.
pub struct Watch {}

impl Watch {
    /// Subscribes, in the network namespace of the calling thread and inside a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn open() -> Result<Self> {
        Err(crate::Error::NoNft)
    }

    /// The next change; cancel-safe.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn next(&mut self) -> Result<Event> {
        Err(crate::Error::NoNft)
    }
}
