//! The underlay: the machine's own side of the network, read by netlink.
//!
//! A snapshot is read at start and after every change the kernel tells of. It names the addresses that may be endpoints, the
//! default routes, and the devices at which DISCO may arrive and `steer` must wait. Deliberately not here: watching
//! (`event_loop` does, and waits a moment so that a storm of changes is one).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use dataplane::{Device, LanPlan};
use ipnet::{IpNet, Ipv4Net};
use netlink::{Address, Event, Handle, Kind, Link, Route, RouteKind};
use node_core::{Hop, Underlay, Uplink};

/// The kernel's main routing table.
const MAIN_TABLE: u32 = 254;

/// The metric of an IPv6 route that was given none (`IP6_RT_PRIO_USER`).
const DEFAULT_METRIC_V6: u32 = 1024;

/// One look at the underlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// For `node-core`.
    pub(crate) underlay: Underlay,
    /// Devices with addresses on which peers' packets may arrive, by index.
    pub(crate) devices: BTreeMap<u32, Device>,
    /// The router of the best IPv4 default route, and our address on the way there.
    pub(crate) router: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Those of them that have Ethernet headers: a gateway's LAN side.
    pub(crate) lans: BTreeMap<u32, Lan>,
}

impl Snapshot {
    /// By which devices and families strangers come in: those of default routes, else all.
    pub(crate) fn outside(&self) -> impl Iterator<Item = (String, bool)> + '_ {
        let is_default = |net: &IpNet| net.prefix_len() == 0;
        let defaults: BTreeSet<(u32, bool)> = self
            .underlay
            .routes
            .iter()
            .filter(|(net, _)| is_default(net))
            .flat_map(|(net, hops)| hops.iter().map(|hop| (hop.uplink.0, net.addr().is_ipv6())))
            .collect();
        let has_default = !defaults.is_empty();
        let all = self.devices.keys().map(|device| (*device, false)).filter(move |_| !has_default);
        let found = defaults.into_iter().chain(all);
        found.filter_map(|(device, ipv6)| Some((self.devices.get(&device)?.name.clone(), ipv6)))
    }
}

/// A device of a gateway's LAN side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lan {
    /// Its name.
    pub(crate) name: String,
    /// What flows are hidden behind there: its first addresses, as the kernel's masquerade chooses them.
    pub(crate) addresses: LanPlan,
}

/// Reads the underlay of this namespace, leaving out the overlay device `own`.
///
/// # Errors
/// When the kernel refuses a dump.
pub(crate) async fn read(handle: &Handle, own: &str) -> netlink::Result<Snapshot> {
    let links = handle.links().await?;
    let addresses = handle.addresses(None).await?;
    let routes = handle.routes(Some(MAIN_TABLE)).await?;
    Ok(snapshot(&links, &addresses, &routes, own))
}

fn snapshot(links: &[Link], addresses: &[Address], routes: &[Route], own: &str) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut plugged = BTreeSet::new();
    for Address { link, net } in addresses {
        let Some(link) = links.iter().find(|other| other.index == *link && is_underlay(other, own)) else {
            continue;
        };
        snapshot.devices.entry(link.index).or_insert_with(|| device(link, links));
        // The kernel keeps addresses and routes of a device whose cable is pulled.
        if link.carrier {
            plugged.insert(link.index);
            snapshot.underlay.addresses.push(*net);
        }
        if link.mac.is_some() {
            let lan = snapshot.lans.entry(link.index).or_default();
            lan.name.clone_from(&link.name);
            match net.addr() {
                IpAddr::V4(ip) => _ = lan.addresses.v4.get_or_insert(ip),
                IpAddr::V6(ip) if !ip.is_unicast_link_local() => _ = lan.addresses.v6.get_or_insert(ip),
                IpAddr::V6(_) => {}
            }
        }
    }
    snapshot.underlay.addresses.sort_unstable();
    for route in routes.iter().filter(|route| route.kind == RouteKind::Unicast) {
        let index = route.device.filter(|index| plugged.contains(index));
        let Some((index, device)) = index.and_then(|index| Some((index, snapshot.devices.get_mut(&index)?)))
        else {
            continue;
        };
        device.uplink |= route.gateway.is_some();
        let default_metric = if route.destination.addr().is_ipv4() { 0 } else { DEFAULT_METRIC_V6 };
        let metric = route.metric.unwrap_or(default_metric);
        let hop = Hop { metric, uplink: Uplink(index), gateway: route.gateway };
        snapshot.underlay.routes.entry(route.destination).or_default().insert(hop);
    }
    snapshot.router = router(&snapshot.underlay, addresses);
    snapshot
}

/// What steering depends on; routes are added as they are read.
fn device(link: &Link, links: &[Link]) -> Device {
    let is_vlan_on_it = |other: &Link| other.kind.is("vlan") && other.lower == Some(link.index);
    Device {
        name: link.name.clone(),
        veth: link.kind.is("veth"),
        vlans: links.iter().any(is_vlan_on_it),
        uplink: false,
        mtu: link.mtu,
        xdp: link.xdp,
    }
}

/// Whom to ask for a port mapping, and as whom.
fn router(underlay: &Underlay, addresses: &[Address]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let hops = underlay.routes.get(&IpNet::V4(Ipv4Net::default()))?;
    hops.iter().find_map(|hop| {
        let IpAddr::V4(gateway) = hop.gateway? else { return None };
        let on_link =
            |address: &&Address| address.link == hop.uplink.0 && address.net.contains(&IpAddr::V4(gateway));
        match addresses.iter().find(on_link)?.net.addr() {
            IpAddr::V4(local) => Some((gateway, local)),
            IpAddr::V6(_) => None,
        }
    })
}

/// A device that can carry encrypted packets: not loopback, not a tunnel (it would carry them into itself).
fn is_underlay(link: &Link, own: &str) -> bool {
    link.up && link.name != own && !matches!(link.kind, Kind::Loopback | Kind::Wireguard | Kind::Tun)
}

/// Whether `event` may change a [`Snapshot`]; our own device's events do not.
pub(crate) fn concerns(event: &Event, own_link: Option<u32>) -> bool {
    match event {
        Event::LinkChanged(link) | Event::LinkRemoved(link) => Some(link.index) != own_link,
        Event::AddressChanged(address) | Event::AddressRemoved(address) => Some(address.link) != own_link,
        Event::RouteChanged(route) | Event::RouteRemoved(route) => route.table == MAIN_TABLE,
        Event::RuleAdded(_) | Event::RuleRemoved(_) | Event::FirewallCut(_) => false,
        Event::Lost => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Kind, up: bool) -> Link {
        Link {
            index,
            name: name.into(),
            kind,
            mtu: 1500,
            up,
            carrier: up,
            mac: None,
            alias: None,
            master: None,
            lower: None,
            xdp: None,
        }
    }

    #[test]
    fn a_device_without_carrier_has_no_addresses_and_no_routes_but_is_still_watched() {
        let mut links = [link(2, "eth0", Kind::Physical, true), link(3, "eth1", Kind::Physical, true)];
        let net = |index: u32| format!("192.0.{index}.2/24").parse::<IpNet>().unwrap();
        let addresses = [2, 3].map(|link| Address { link, net: net(link) });
        let default = |device, metric| Route {
            metric: Some(metric),
            ..Route::to_device(254, "0.0.0.0/0".parse().unwrap(), device)
        };
        let routes = [default(2, 100), default(3, 200)];
        let hops = |links: &[Link]| {
            let snapshot = snapshot(links, &addresses, &routes, "underpass0");
            assert_eq!(snapshot.devices.len(), 2);
            let hops = &snapshot.underlay.routes[&"0.0.0.0/0".parse().unwrap()];
            hops.iter().map(|hop| (hop.uplink.0, hop.metric)).collect::<Vec<_>>()
        };
        assert_eq!(hops(&links), [(2, 100), (3, 200)]);
        links[0].carrier = false;
        assert_eq!(hops(&links), [(3, 200)]);
    }

    #[test]
    fn tunnels_loopback_and_devices_that_are_down_are_no_underlay() {
        let links = [
            link(1, "lo", Kind::Loopback, true),
            link(2, "eth0", Kind::Physical, true),
            link(3, "eth1", Kind::Physical, false),
            link(4, "underpass0", Kind::Wireguard, true),
            link(5, "veth0", Kind::Other("veth".into()), true),
            Link { lower: Some(2), ..link(6, "eth0.7", Kind::Other("vlan".into()), true) },
        ];
        let net = |index: u32| format!("192.0.2.{index}/24").parse::<IpNet>().unwrap();
        let addresses: Vec<_> = (1..=5).map(|link| Address { link, net: net(link) }).collect();
        let default = Route {
            gateway: Some([192, 0, 2, 254].into()),
            ..Route::to_device(254, "0.0.0.0/0".parse().unwrap(), 2)
        };
        let snapshot = snapshot(&links, &addresses, &[default], "underpass0");
        let eth0 = Device { name: "eth0".into(), vlans: true, uplink: true, mtu: 1500, ..Device::default() };
        let veth0 = Device { name: "veth0".into(), veth: true, mtu: 1500, ..Device::default() };
        assert_eq!(snapshot.devices, [(2, eth0), (5, veth0)].into());
        assert_eq!(snapshot.underlay.addresses, [net(2), net(5)]);
        let hop = Hop { metric: 0, uplink: Uplink(2), gateway: Some([192, 0, 2, 254].into()) };
        assert_eq!(snapshot.underlay.routes, [("0.0.0.0/0".parse().unwrap(), [hop].into())].into());
    }
}
