//! Routes, by table. Sets of any size go out pipelined: thousands of requests wait for their answers together.
//!
//! The kernel's identity of a route is (table, destination, metric) for IPv4 and, more loosely, the same with the device
//! for IPv6; `replace` follows it. Deliberately not here: multipath and MPLS next hops, which are listed without
//! gateway and device.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use crate::socket::{BATCH, Doing};
use crate::{Error, Handle, Result};

/// What the kernel does with a packet that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// Sends it to a gateway or device.
    Unicast,
    /// Delivers it to this host.
    Local,
    /// Drops it in silence.
    Blackhole,
    /// Drops it and answers "host unreachable".
    Unreachable,
    /// Drops it and answers "administratively prohibited".
    Prohibit,
    /// Ends the search in this table: the next rule decides.
    Throw,
    /// A kind this crate does not write (broadcast, multicast, ...), by its kernel number.
    Other(u8),
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Table number: 254 is main.
    pub table: u32,
    /// The prefix it matches; host bits zero.
    pub destination: IpNet,
    /// Its verdict.
    pub kind: RouteKind,
    /// Index of the output link.
    pub device: Option<u32>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Preferred source address of packets this host sends (`src` of `ip route`).
    pub source: Option<IpAddr>,
    /// Priority among equal prefixes, lower first; `None` is the family's default (0 for IPv4, 1024 for IPv6).
    pub metric: Option<u32>,
    /// Who installed it (`proto` of `ip route`): 2 kernel, 3 boot, 4 static, or a number of one's own.
    pub protocol: u8,
}

/// One step of [`Handle::change_routes`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteChange {
    /// Removes; absent already counts as done.
    Remove(Route),
    /// Adds, or replaces the route with the same table, destination and metric.
    Replace(Route),
}

impl Route {
    /// A plain route of `destination` through link `device` in `table`, protocol static.
    pub fn to_device(table: u32, destination: IpNet, device: u32) -> Self {
        Self { device: Some(device), ..Self::verdict(table, destination, RouteKind::Unicast) }
    }

    /// A route without output: blackhole, throw, unreachable, prohibit.
    pub fn verdict(table: u32, destination: IpNet, kind: RouteKind) -> Self {
        let destination = destination.trunc();
        Self {
            table,
            destination,
            kind,
            device: None,
            gateway: None,
            source: None,
            metric: None,
            protocol: 4,
        }
    }
}

impl Handle {
    /// Every route of both families in `table`, or of all tables; the IPv6 route cache is left out.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub async fn routes(&self, table: Option<u32>) -> Result<Vec<Route>> {
        let mut filter = RouteMessage::default();
        filter.attributes.extend(table.map(RouteAttribute::Table));
        let doing = Doing { action: "list", object: &"routes" };
        let answers = self.route.dump(Message::GetRoute(filter), doing).await?;
        let routes = answers.iter().filter_map(|answer| match answer {
            Message::NewRoute(message) => Route::from_message(message),
            _ => None,
        });
        Ok(routes.filter(|route| table.is_none_or(|table| table == route.table)).collect())
    }

    /// Adds a route.
    ///
    /// # Errors
    /// `is_taken` when the same table, destination and metric exist.
    pub async fn add_route(&self, route: &Route) -> Result<()> {
        let doing = Doing { action: "add", object: route };
        self.route.acknowledge(Message::NewRoute(route.to_message()), NLM_F_CREATE | NLM_F_EXCL, doing).await
    }

    /// Adds, or replaces the route with the same table, destination and metric.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        let doing = Doing { action: "replace", object: route };
        self.route
            .acknowledge(Message::NewRoute(route.to_message()), NLM_F_CREATE | NLM_F_REPLACE, doing)
            .await
    }

    /// Removes a route; whatever the value leaves `None` matches anything.
    ///
    /// # Errors
    /// `is_missing` when it is not there.
    pub async fn remove_route(&self, route: &Route) -> Result<()> {
        let doing = Doing { action: "remove", object: route };
        self.route.acknowledge(Message::DelRoute(route.to_message()), 0, doing).await
    }

    /// Applies many changes in their order, pipelined. Goes on after a failure, so that one bad route costs itself
    /// only, and returns each failed change with its error.
    pub async fn change_routes(&self, changes: Vec<RouteChange>) -> Vec<(RouteChange, Error)> {
        let mut failed = Vec::new();
        for batch in changes.chunks(BATCH) {
            let requests = batch.iter().map(RouteChange::to_request).collect();
            let Some(results) = self.route.acknowledge_all(requests).await else {
                failed.extend(batch.iter().map(|change| (change.clone(), change.closed())));
                continue;
            };
            for (change, result) in batch.iter().zip(results) {
                let Err(refusal) = result else { continue };
                let error = refusal.into_error(change.doing());
                let done = matches!(change, RouteChange::Remove(_)) && error.is_missing();
                if !done {
                    failed.push((change.clone(), error));
                }
            }
        }
        failed
    }
}

impl RouteChange {
    fn to_request(&self) -> (Message, u16) {
        match self {
            Self::Remove(route) => (Message::DelRoute(route.to_message()), 0),
            Self::Replace(route) => (Message::NewRoute(route.to_message()), NLM_F_CREATE | NLM_F_REPLACE),
        }
    }

    fn doing(&self) -> Doing<'_> {
        match self {
            Self::Remove(route) => Doing { action: "remove", object: route },
            Self::Replace(route) => Doing { action: "replace", object: route },
        }
    }

    fn closed(&self) -> Error {
        let doing = self.doing();
        Error::Closed { action: doing.action, object: doing.object.to_string() }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {} in table {}", self.destination, self.table)
    }
}

impl RouteKind {
    fn to_type(self) -> RouteType {
        match self {
            Self::Unicast => RouteType::Unicast,
            Self::Local => RouteType::Local,
            Self::Blackhole => RouteType::BlackHole,
            Self::Unreachable => RouteType::Unreachable,
            Self::Prohibit => RouteType::Prohibit,
            Self::Throw => RouteType::Throw,
            Self::Other(number) => RouteType::from(number),
        }
    }

    fn from_type(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::BlackHole => Self::Blackhole,
            RouteType::Unreachable => Self::Unreachable,
            RouteType::Prohibit => Self::Prohibit,
            RouteType::Throw => Self::Throw,
            other => Self::Other(other.into()),
        }
    }
}

impl Route {
    fn to_message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family =
            if self.destination.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        header.destination_prefix_length = self.destination.prefix_len();
        header.protocol = RouteProtocol::from(self.protocol);
        header.kind = self.kind.to_type();
        // A unicast route without a gateway leads to neighbors on the link itself (`ip route` does the same).
        let on_link =
            self.kind == RouteKind::Unicast && self.gateway.is_none() && self.destination.addr().is_ipv4();
        header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        attributes.push(RouteAttribute::Destination(self.destination.network().into()));
        attributes.extend(self.device.map(RouteAttribute::Oif));
        attributes.extend(self.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        attributes.extend(self.source.map(|source| RouteAttribute::PrefSource(source.into())));
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        message
    }

    /// `None` for what is no route of ours to see: cached IPv6 entries and other address families.
    pub(crate) fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let any: IpAddr = match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut destination = any;
        let everything = IpNet::new(any, 0).ok()?;
        let mut route = Self {
            table: header.table.into(),
            protocol: header.protocol.into(),
            ..Self::verdict(0, everything, RouteKind::from_type(header.kind))
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Oif(device) => route.device = Some(*device),
                RouteAttribute::Gateway(address) => route.gateway = ip(address),
                RouteAttribute::PrefSource(address) => route.source = ip(address),
                RouteAttribute::Priority(metric) => route.metric = Some(*metric),
                _ => {}
            }
        }
        route.destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
        Some(route)
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
