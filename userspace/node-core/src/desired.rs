//! Desired: the one description of what the kernel should be. `dataplane` compares it with what is there.
//!
//! A pure function of netmap, prefs and paths. Everything but endpoints is counted by `generation`; one endpoint's change
//! comes as [`crate::Event::SetEndpoint`], so that it never costs a look at the whole device. Deliberately not here: how
//! anything is applied, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;
use types::NodePublic;
use types::overlay::MTU;
use wire::control::Node;

use crate::detours::Detour;
use crate::filter::Filter;
use crate::input::Prefs;
use crate::netmap::Netmap;
use crate::{routes, rules};

/// What the kernel should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Grows whenever anything but an endpoint differs from before; 0 until the first dump of the device was seen.
    pub generation: u64,
    /// False: no device, no routes, no rules, no filter. Then everything else is empty.
    pub up: bool,
    /// Our own overlay addresses, /32 and /128.
    pub addresses: BTreeSet<IpNet>,
    /// The overlay device's MTU.
    pub mtu: u32,
    /// The WireGuard device's peers.
    pub peers: BTreeMap<NodePublic, DesiredPeer>,
    /// Endpoints of the peers above that stand for places on peer relays. Not counted by the generation: a change comes as
    /// [`crate::Event::DetoursChanged`], before any endpoint that needs it.
    pub relayed: BTreeSet<Detour>,
    /// What our own routing table (Tailscale's table 52) sends into the overlay device.
    pub routes: BTreeSet<IpNet>,
    /// What may come in.
    pub filter: Filter,
    /// Subnets we serve: packets are forwarded to them.
    pub served_routes: BTreeSet<IpNet>,
    /// Masquerade what goes to [`Self::served_routes`].
    pub snat_subnet_routes: bool,
}

/// One peer of the WireGuard device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredPeer {
    /// What it may send and what is sent to it.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Where the kernel should send: its trusted address, else its loopback address (DERP).
    pub endpoint: SocketAddr,
}

impl Desired {
    /// What follows from the netmap, for the peers to which `endpoint` gives one. The second value is what of the packet
    /// filter could not be understood.
    pub(crate) fn build(
        node: &Node,
        netmap: &Netmap,
        prefs: &Prefs,
        endpoint: impl Fn(&Node) -> Option<SocketAddr>,
    ) -> (Self, Vec<String>) {
        let peers: Vec<&Node> = netmap.peers().filter(|peer| endpoint(peer).is_some()).collect();
        let mut allowed = routes::allowed_ips(peers.iter().copied(), prefs.accept_routes);
        let mut lost = Vec::new();
        let served_routes: BTreeSet<IpNet> = served(prefs).collect();
        let addresses: BTreeSet<IpNet> = node.addresses.iter().copied().collect();
        let desired = Self {
            generation: 0,
            up: true,
            mtu: MTU,
            routes: routes::table(&allowed),
            filter: Filter {
                local: addresses.iter().chain(&served_routes).copied().collect(),
                rules: rules::resolve(netmap.filter_rules(), &peers, &mut lost),
                shields_up: prefs.shields_up,
            },
            peers: peers
                .iter()
                .filter_map(|peer| {
                    let allowed_ips = allowed.remove(&peer.id).unwrap_or_default();
                    Some((peer.key, DesiredPeer { allowed_ips, endpoint: endpoint(peer)? }))
                })
                .collect(),
            snat_subnet_routes: prefs.snat_subnet_routes && !served_routes.is_empty(),
            addresses,
            relayed: BTreeSet::new(),
            served_routes,
        };
        (desired, lost)
    }

    /// Whether anything but endpoints and generation differs.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let peers = |desired: &Self| desired.peers.len();
        let same_peers = peers(self) == peers(other)
            && self.peers.iter().zip(&other.peers).all(|((key, peer), (other_key, other))| {
                key == other_key && peer.allowed_ips == other.allowed_ips
            });
        !same_peers
            || self.up != other.up
            || self.mtu != other.mtu
            || self.addresses != other.addresses
            || self.routes != other.routes
            || self.filter != other.filter
            || self.served_routes != other.served_routes
            || self.snat_subnet_routes != other.snat_subnet_routes
    }
}

/// What the user offers. Control's approval is in the peers' allowed IPs and in the rules, as for tailscale
/// (`ipn/ipnlocal/local.go`, `updateFilterLocked`); our own node tells of it late with headscale, or never.
fn served(prefs: &Prefs) -> impl Iterator<Item = IpNet> {
    prefs.advertise_routes.iter().filter(|net| net.prefix_len() != 0).map(IpNet::trunc)
}
