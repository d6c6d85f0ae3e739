//! The change stream: what the kernel tells about links, addresses, routes, rules and nftables, as typed events.
//!
//! A watch is a multicast socket of its own, so that a storm of events never delays an answer. When the kernel had to
//! drop events the stream says [`Event::Lost`]: read everything anew. Deliberately not here: debouncing.

use std::collections::VecDeque;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use netlink_packet_route::RouteNetlinkMessage as Message;
use rtnetlink::MulticastGroup::{
    Ipv4Ifaddr, Ipv4Route, Ipv4Rule, Ipv6Ifaddr, Ipv6Route, Ipv6Rule, Link as Links,
};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::SocketAddr;

use crate::nft_watch::NftWatch;
use crate::{Address, Error, Link, Result, Route, Rule};

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
    /// Something of an nftables table of this name was removed, perhaps all of it.
    FirewallCut(String),
    /// Events were lost: read everything anew.
    Lost,
}

/// A subscription to every change of the namespace it was opened in.
pub struct Watch {
    messages: BoxStream<'static, (NetlinkMessage<Message>, SocketAddr)>,
    /// None where the kernel has no nftables.
    firewall: Option<NftWatch>,
    cut: VecDeque<String>,
}

impl Watch {
    /// Subscribes, in the network namespace of the calling thread and inside a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn open() -> Result<Self> {
        let groups = [Links, Ipv4Ifaddr, Ipv6Ifaddr, Ipv4Route, Ipv6Route, Ipv4Rule, Ipv6Rule];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|error| Error::os("open", "netlink change stream", &error))?;
        // The task ends when this receiver is dropped and the next event finds nobody.
        tokio::spawn(connection);
        Ok(Self { messages: messages.boxed(), firewall: NftWatch::open().ok(), cut: VecDeque::new() })
    }

    /// The next change; cancel-safe.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(table) = self.cut.pop_front() {
                return Ok(Event::FirewallCut(table));
            }
            let firewall = async {
                match &mut self.firewall {
                    Some(watch) => watch.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = self.messages.next() => {
                    let closed = || Error::Closed { action: "read", object: "netlink change stream".into() };
                    let (message, _) = message.ok_or_else(closed)?;
                    if let Some(event) = Event::from_payload(message.payload) {
                        return Ok(event);
                    }
                }
                tables = firewall => match tables? {
                    Some(tables) => self.cut.extend(tables),
                    None => return Ok(Event::Lost),
                },
            }
        }
    }
}

impl Event {
    fn from_payload(payload: NetlinkPayload<Message>) -> Option<Self> {
        let message = match payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => return Some(Self::Lost),
            _ => return None,
        };
        match message {
            Message::NewLink(link) => Some(Self::LinkChanged(Link::from_message(&link))),
            Message::DelLink(link) => Some(Self::LinkRemoved(Link::from_message(&link))),
            Message::NewAddress(address) => Address::from_message(&address).map(Self::AddressChanged),
            Message::DelAddress(address) => Address::from_message(&address).map(Self::AddressRemoved),
            Message::NewRoute(route) => Route::from_message(&route).map(Self::RouteChanged),
            Message::DelRoute(route) => Route::from_message(&route).map(Self::RouteRemoved),
            Message::NewRule(rule) => Rule::from_message(&rule).map(Self::RuleAdded),
            Message::DelRule(rule) => Rule::from_message(&rule).map(Self::RuleRemoved),
            _ => None,
        }
    }
}
