//! Observe: what the kernel is now, as far as we own it: device, peers, addresses, our table's routes, our rules.
//!
//! A snapshot of several dumps, taken when something is to be changed. Deliberately not here: what is in the
//! programs' maps, which only [`crate::Applier`] writes and remembers; a restarted controller does not know it and
//! installs its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;
use netlink::wireguard::{Device, Wireguard};
use netlink::{Handle, Rule, sysctl};
use node_core::filter::Filter;
use types::NodePublic;

use crate::reconcile::{PROTOCOL, Settings};

/// The kernel's side of everything in [`node_core::Desired`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The device's interface index.
    pub link: u32,
    /// Whether the device is up.
    pub up: bool,
    /// The device's MTU.
    pub mtu: u32,
    /// Whether the device may have IPv6 addresses.
    pub ipv6: bool,
    /// The device's addresses, without link-local ones, which are the kernel's.
    pub addresses: BTreeSet<IpNet>,
    /// The device's peers.
    pub peers: BTreeMap<NodePublic, ObservedPeer>,
    /// Where our routes in our table lead into the device.
    pub routes: BTreeSet<IpNet>,
    /// Our rules.
    pub rules: BTreeSet<Rule>,
    /// The filter that was last swapped in; `None` when unknown.
    pub filter: Option<Filter>,
    /// Whose addresses the programs were last told; `None` when unknown.
    pub owners: Option<BTreeMap<IpNet, u32>>,
}

/// One peer, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPeer {
    /// Where the kernel would send now.
    pub endpoint: Option<SocketAddr>,
    /// What it may send and what is sent to it.
    pub allowed_ips: BTreeSet<IpNet>,
}

/// Reads everything but the programs' maps.
///
/// # Errors
/// When the device is gone, or the kernel refuses a dump.
pub(crate) async fn observe(
    handle: &Handle,
    wireguard: &Wireguard,
    settings: &Settings,
) -> netlink::Result<Observed> {
    let name = wireguard.name();
    let link = handle.link(name).await?.ok_or_else(|| netlink::Error::NotWireguard(name.to_owned()))?;
    let addresses = handle.addresses(Some(link.index)).await?;
    let routes = handle.routes(Some(settings.table)).await?;
    let rules = handle.rules().await?;
    Ok(Observed {
        link: link.index,
        up: link.up,
        mtu: link.mtu,
        ipv6: has_ipv6(name),
        addresses: addresses
            .into_iter()
            .map(|address| address.net)
            .filter(|net| !is_link_local(net))
            .collect(),
        peers: peers(wireguard.device().await?),
        routes: routes
            .into_iter()
            .filter(|route| route.protocol == PROTOCOL && route.device == Some(link.index))
            .map(|route| route.destination)
            .collect(),
        rules: rules.into_iter().filter(|rule| rule.protocol == PROTOCOL).collect(),
        filter: None,
        owners: None,
    })
}

/// IPv6 is used only where the device's switch exists and is off, as Tailscale does: some machines boot without IPv6.
fn has_ipv6(device: &str) -> bool {
    sysctl::read(&format!("net.ipv6.conf.{device}.disable_ipv6")).is_ok_and(|value| value == "0")
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

fn peers(device: Device) -> BTreeMap<NodePublic, ObservedPeer> {
    let peer = |peer: netlink::wireguard::Peer| {
        let allowed_ips = peer.allowed_ips.into_iter().collect();
        (NodePublic::from_bytes(peer.key.0), ObservedPeer { endpoint: peer.endpoint, allowed_ips })
    };
    device.peers.into_iter().map(peer).collect()
}
