//! The underlay: the machine's addresses and routes, and by which uplinks an address can be reached.
//!
//! Where one uplink leads to a remote, the kernel is left to its routes. Where several do (two default routes, a network
//! attached twice), each is a path of its own, and the routes' metrics say which the administrator prefers.
//! Deliberately not here: watching the kernel (the shell), pinning a peer's route to an uplink (`dataplane`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use types::Vni;
use types::overlay::host;

use crate::path::{Path, Uplink};
use crate::score::{Kind, Standing};

/// The machine's own side of the network, watched by netlink. Loopback and overlay devices may be left in: what cannot
/// be an endpoint is filtered here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Underlay {
    /// Addresses of every link that is up, each with its on-link prefix (host bits kept: `192.0.2.7/24`).
    pub addresses: Vec<IpNet>,
    /// By which ways datagrams to a prefix may leave, by every routing table but ours.
    pub routes: BTreeMap<IpNet, BTreeSet<Hop>>,
}

/// The first step of a datagram's way, the administrator's favourite first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The route's metric.
    pub metric: u32,
    /// The device.
    pub uplink: Uplink,
    /// The next router; `None` on the device's own network.
    pub gateway: Option<IpAddr>,
}

impl Underlay {
    /// Every path to `remote`, or through the place `vni` on the relay there, with what is known of it beforehand.
    pub(crate) fn paths_to(&self, remote: SocketAddr, vni: Option<Vni>) -> Vec<(Path, Standing)> {
        let kind = match vni {
            Some(_) => Kind::Relay,
            None if self.is_on_link(remote.ip()) => Kind::Lan,
            None => Kind::Wan,
        };
        let path = |uplink, metric| (Path { remote, vni, uplink }, Standing { kind, metric });
        match self.hops_to(remote.ip()).as_slice() {
            [] | [_] => vec![path(None, 0)],
            several => several.iter().map(|hop| path(Some(hop.uplink), hop.metric)).collect(),
        }
    }

    /// The first hop by `uplink` to `ip`.
    pub(crate) fn hop(&self, ip: IpAddr, uplink: Uplink) -> Option<Hop> {
        self.hops_to(ip).into_iter().find(|hop| hop.uplink == uplink)
    }

    /// The path as it is called here: an uplink is named only where there are several to the remote.
    pub(crate) fn canonical(&self, path: Path) -> Path {
        let known = self.hops_to(path.remote.ip());
        let is_named = known.len() > 1 && known.iter().any(|hop| Some(hop.uplink) == path.uplink);
        Path { uplink: path.uplink.filter(|_| is_named), ..path }
    }

    /// Whether `ip` is a neighbor on one of our own networks.
    pub(crate) fn is_on_link(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.contains(&ip))
    }

    /// Whether addresses outside of our own networks can be reached: IPv4, IPv6.
    pub(crate) fn has_default(&self) -> [bool; 2] {
        types::overlay::EXIT_ROUTES.map(|net| self.routes.contains_key(&net))
    }

    /// Whether datagrams can still leave by `uplink`.
    pub(crate) fn has_uplink(&self, uplink: Uplink) -> bool {
        self.routes.values().flatten().any(|hop| hop.uplink == uplink)
    }

    /// The first hops to `ip`, one an uplink, preferred first: those of the most specific prefix.
    fn hops_to(&self, ip: IpAddr) -> Vec<Hop> {
        let longest = host(ip);
        let prefixes = (0..=longest.prefix_len()).rev().filter_map(|length| IpNet::new(ip, length).ok());
        let hops = prefixes.filter_map(|net| self.routes.get(&net.trunc())).next();
        let mut uplinks = BTreeSet::new();
        hops.into_iter().flatten().filter(|hop| uplinks.insert(hop.uplink)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_wans() -> Underlay {
        let mut underlay = Underlay {
            addresses: vec!["192.0.2.7/24".parse().unwrap(), "198.51.100.7/24".parse().unwrap()],
            ..Underlay::default()
        };
        for (destination, uplink, metric) in [
            ("0.0.0.0/0", 3, 200),
            ("0.0.0.0/0", 2, 100),
            ("0.0.0.0/0", 2, 300),
            ("192.0.2.0/24", 2, 0),
            ("198.51.100.0/24", 3, 0),
            ("10.0.0.0/8", 4, 0),
        ] {
            let hop = Hop { metric, uplink: Uplink(uplink), gateway: None };
            underlay.routes.entry(destination.parse().unwrap()).or_default().insert(hop);
        }
        underlay
    }

    fn uplinks(underlay: &Underlay, remote: &str) -> Vec<Option<u32>> {
        let paths = underlay.paths_to(SocketAddr::new(remote.parse().unwrap(), 1), None);
        paths.into_iter().map(|(path, _)| path.uplink.map(|uplink| uplink.0)).collect()
    }

    #[test]
    fn two_default_routes_are_two_paths_the_preferred_first() {
        assert_eq!(uplinks(&two_wans(), "203.0.113.1"), [Some(2), Some(3)]);
    }

    #[test]
    fn where_one_uplink_leads_there_the_kernel_decides() {
        assert_eq!(uplinks(&two_wans(), "192.0.2.9"), [None], "a neighbor");
        assert_eq!(uplinks(&two_wans(), "10.1.2.3"), [None], "a more specific route");
        assert_eq!(uplinks(&two_wans(), "2001:db8::1"), [None], "no route at all");
    }

    #[test]
    fn neighbors_are_of_the_lan() {
        let kind = |remote: &str| two_wans().paths_to(remote.parse().unwrap(), None)[0].1.kind;
        assert_eq!(kind("192.0.2.9:1"), Kind::Lan);
        assert_eq!(kind("203.0.113.1:1"), Kind::Wan);
        let relayed = two_wans().paths_to("192.0.2.9:1".parse().unwrap(), Vni::new(7));
        assert_eq!(relayed[0].1.kind, Kind::Relay);
    }
}
