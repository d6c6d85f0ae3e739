//! Reconcile: the pure difference between what the kernel should be and what it is, as steps in a safe order.
//!
//! The order is the order of [`Step`]'s variants: the filter stands before anything can come in, peers are there before
//! routes lead to them, and the new is added before the old goes. Endpoints are compared only where the kernel has none:
//! it keeps its peers' endpoints itself, and a better one comes as [`Step::endpoint`], one step that touches one peer.
//! Deliberately not here: reading the kernel (`observe`) and changing it (`apply`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;
use netlink::wireguard::{PeerChange, PublicKey};
use netlink::{Action, Address, Family, LinkChange, Mark, Route, RouteChange, Rule};
use node_core::Desired;
use node_core::filter::Filter;
use types::NodePublic;

use crate::observe::Observed;

/// Who installed our routes and rules (`proto` in `ip route`): what carries another number is never touched.
pub const PROTOCOL: u8 = 85;
/// The routing tables every Linux has (`rt_tables`).
const MAIN_TABLE: u32 = 254;
const DEFAULT_TABLE: u32 = 253;

/// What of the kernel's state is the daemon's choice rather than the netmap's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Our own routing table.
    pub table: u32,
    /// The table of routes to peers by one of several uplinks.
    pub underlay_table: u32,
    /// Priority of the first of Tailscale's rules; the others follow in steps of 20, which leaves an administrator room
    /// between. Ours for [`Self::underlay_table`] stands 10 before.
    pub rule_priority: u32,
    /// The mark of our own underlay packets: they never go into the tunnel.
    pub bypass: Mark,
}

/// One change of the kernel. The order of the variants is the order of application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Swaps the packet filter, atomically.
    Filter(Filter),
    /// Tells the programs whose an address is, so that each peer has its own share of the flow table.
    Owners(BTreeMap<IpNet, u32>),
    /// Changes peers, removals first.
    Peers(Vec<PeerChange>),
    /// Adds one of our addresses.
    AddAddress(Address),
    /// Brings the device up or changes its MTU.
    Link(LinkChange),
    /// Adds a rule.
    AddRule(Rule),
    /// Adds routes, then removes others.
    Routes(Vec<RouteChange>),
    /// Removes a rule.
    RemoveRule(Rule),
    /// Removes an address.
    RemoveAddress(Address),
}

impl Step {
    /// Moves one peer's endpoint.
    pub fn endpoint(peer: NodePublic, endpoint: SocketAddr) -> Self {
        Self::Peers(vec![PeerChange::Endpoint { key: PublicKey(*peer.as_bytes()), endpoint }])
    }
}

/// The steps from `observed` to `desired`; none when they agree.
pub fn reconcile(desired: &Desired, settings: &Settings, observed: &Observed) -> Vec<Step> {
    let families = Families { ipv6: observed.ipv6 };
    let mut steps = Vec::new();
    if observed.filter.as_ref() != Some(&desired.filter) {
        steps.push(Step::Filter(desired.filter.clone()));
    }
    let owners = owners(desired);
    if observed.owners.as_ref() != Some(&owners) {
        steps.push(Step::Owners(owners));
    }
    let peers = peer_changes(desired, observed);
    if !peers.is_empty() {
        steps.push(Step::Peers(peers));
    }
    let addresses = families.usable(&desired.addresses);
    let address = |net: &IpNet| Address { link: observed.link, net: *net };
    steps.extend(addresses.difference(&observed.addresses).map(|net| Step::AddAddress(address(net))));
    let change = LinkChange {
        up: (observed.up != desired.up).then_some(desired.up),
        mtu: (observed.mtu != desired.mtu).then_some(desired.mtu),
        alias: None,
    };
    if change != LinkChange::default() {
        steps.push(Step::Link(change));
    }
    let rules = if desired.up { families.rules(settings) } else { BTreeSet::new() };
    steps.extend(rules.difference(&observed.rules).cloned().map(Step::AddRule));
    let routes = route_changes(&families.usable(&desired.routes), settings.table, observed);
    if !routes.is_empty() {
        steps.push(Step::Routes(routes));
    }
    steps.extend(observed.rules.difference(&rules).cloned().map(Step::RemoveRule));
    steps.extend(observed.addresses.difference(&addresses).map(|net| Step::RemoveAddress(address(net))));
    steps
}

/// Which families this machine speaks.
struct Families {
    ipv6: bool,
}

impl Families {
    fn usable(&self, nets: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
        nets.iter().filter(|net| self.ipv6 || net.addr().is_ipv4()).copied().collect()
    }

    /// Tailscale's four rules a family: our own packets ask main and default and nothing else; all others ask our table. Before
    /// them stands one of ours: packets to peers leave by the uplink that was found to work.
    fn rules(&self, settings: &Settings) -> BTreeSet<Rule> {
        let families = if self.ipv6 { &[Family::V4, Family::V6][..] } else { &[Family::V4] };
        let ours = Some(settings.bypass);
        let actions = [
            (ours, Action::Table(MAIN_TABLE)),
            (ours, Action::Table(DEFAULT_TABLE)),
            (ours, Action::Unreachable),
            (None, Action::Table(settings.table)),
        ];
        let rule = |family: Family| {
            (settings.rule_priority..).step_by(20).zip(actions).map(move |(priority, (mark, action))| Rule {
                mark,
                action,
                protocol: PROTOCOL,
                ..Rule::lookup(family, priority, settings.table)
            })
        };
        let pinned = |family: Family| Rule {
            mark: ours,
            protocol: PROTOCOL,
            ..Rule::lookup(family, settings.rule_priority.saturating_sub(10), settings.underlay_table)
        };
        families.iter().copied().flat_map(|family| rule(family).chain([pinned(family)])).collect()
    }
}

fn peer_changes(desired: &Desired, observed: &Observed) -> Vec<PeerChange> {
    let removed = observed.peers.keys().filter(|key| !desired.peers.contains_key(key));
    let mut changes: Vec<_> = removed.map(|key| PeerChange::Remove { key: wireguard_key(key) }).collect();
    for (key, wanted) in &desired.peers {
        let key = (key, wireguard_key(key));
        let nets = || wanted.allowed_ips.iter().copied().collect();
        match observed.peers.get(key.0) {
            None => changes.push(PeerChange::Set {
                key: key.1,
                endpoint: Some(wanted.endpoint),
                allowed_ips: nets(),
                keepalive: 0,
            }),
            Some(peer) => {
                if peer.allowed_ips != wanted.allowed_ips {
                    changes.push(PeerChange::ReplaceAllowedIps { key: key.1, nets: nets() });
                }
                if peer.endpoint.is_none() {
                    changes.push(PeerChange::Endpoint { key: key.1, endpoint: wanted.endpoint });
                }
            }
        }
    }
    changes
}

/// Each prefix with a number that stays with its peer, whoever else comes and goes: it is made of the key.
fn owners(desired: &Desired) -> BTreeMap<IpNet, u32> {
    let number = |key: &NodePublic| {
        let [a, b, c, d, ..] = *key.as_bytes();
        u32::from_be_bytes([a, b, c, d])
    };
    let of_peer = |(key, peer): (&NodePublic, &node_core::DesiredPeer)| {
        let number = number(key);
        peer.allowed_ips.iter().map(move |net| (*net, number)).collect::<Vec<_>>()
    };
    desired.peers.iter().flat_map(of_peer).collect()
}

fn route_changes(wanted: &BTreeSet<IpNet>, table: u32, observed: &Observed) -> Vec<RouteChange> {
    let route = |net: &IpNet| Route { protocol: PROTOCOL, ..Route::to_device(table, *net, observed.link) };
    let added = wanted.difference(&observed.routes).map(|net| RouteChange::Replace(route(net)));
    let removed = observed.routes.difference(wanted).map(|net| RouteChange::Remove(route(net)));
    added.chain(removed).collect()
}

fn wireguard_key(key: &NodePublic) -> PublicKey {
    PublicKey(*key.as_bytes())
}

#[cfg(test)]
mod tests {
    use node_core::DesiredPeer;

    use super::*;
    use crate::observe::ObservedPeer;

    const SETTINGS: Settings = Settings {
        table: 52,
        underlay_table: 53,
        rule_priority: 5210,
        bypass: Mark { value: 0x80000, mask: 0xff_0000 },
    };

    fn key(tag: u8) -> NodePublic {
        NodePublic::from_bytes([tag; 32])
    }

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn desired(peers: &[(u8, &[&str])]) -> Desired {
        let endpoint = "198.51.100.1:41641".parse().unwrap();
        let peer = |(tag, allowed): &(u8, &[&str])| {
            (key(*tag), DesiredPeer { allowed_ips: nets(allowed), endpoint })
        };
        let peers: BTreeMap<_, _> = peers.iter().map(peer).collect();
        Desired {
            generation: 1,
            up: true,
            addresses: nets(&["100.64.0.1/32", "fd7a:115c:a1e0::1/128"]),
            mtu: 1280,
            routes: peers.values().flat_map(|peer| peer.allowed_ips.clone()).collect(),
            peers,
            filter: Filter { local: vec!["100.64.0.1/32".parse().unwrap()], ..Filter::default() },
            ..Desired::default()
        }
    }

    /// A kernel on which all steps were carried out, by a model that shares nothing with `apply`.
    fn carried_out(mut observed: Observed, steps: &[Step]) -> Observed {
        for step in steps {
            match step.clone() {
                Step::Filter(filter) => observed.filter = Some(filter),
                Step::Owners(owners) => observed.owners = Some(owners),
                Step::Peers(changes) => {
                    changes.into_iter().for_each(|change| change_peer(&mut observed, change));
                }
                Step::AddAddress(address) => assert!(observed.addresses.insert(address.net)),
                Step::RemoveAddress(address) => assert!(observed.addresses.remove(&address.net)),
                Step::Link(change) => {
                    observed.up = change.up.unwrap_or(observed.up);
                    observed.mtu = change.mtu.unwrap_or(observed.mtu);
                }
                Step::AddRule(rule) => assert!(observed.rules.insert(rule)),
                Step::RemoveRule(rule) => assert!(observed.rules.remove(&rule)),
                Step::Routes(changes) => changes.into_iter().for_each(|change| match change {
                    RouteChange::Replace(route) => assert!(observed.routes.insert(route.destination)),
                    RouteChange::Remove(route) => assert!(observed.routes.remove(&route.destination)),
                }),
            }
        }
        observed
    }

    fn change_peer(observed: &mut Observed, change: PeerChange) {
        match change {
            PeerChange::Remove { key } => {
                observed.peers.remove(&NodePublic::from_bytes(key.0)).expect("a peer that is there");
            }
            PeerChange::Set { key, endpoint, allowed_ips, .. } => {
                let allowed_ips = allowed_ips.into_iter().collect();
                observed.peers.insert(NodePublic::from_bytes(key.0), ObservedPeer { endpoint, allowed_ips });
            }
            PeerChange::ReplaceAllowedIps { key, nets } => {
                let peer = observed.peers.get_mut(&NodePublic::from_bytes(key.0)).unwrap();
                peer.allowed_ips = nets.into_iter().collect();
            }
            PeerChange::Endpoint { key, endpoint } => {
                observed.peers.get_mut(&NodePublic::from_bytes(key.0)).unwrap().endpoint = Some(endpoint);
            }
            other => panic!("reconcile never asks for {other:?}"),
        }
    }

    fn fresh() -> Observed {
        Observed { link: 7, mtu: 1420, ipv6: true, ..Observed::default() }
    }

    #[test]
    fn a_fresh_device_becomes_what_is_desired_and_then_nothing_is_left_to_do() {
        let desired = desired(&[(1, &["100.64.0.2/32"]), (2, &["100.64.0.3/32", "10.1.0.0/16"])]);
        let observed = carried_out(fresh(), &reconcile(&desired, &SETTINGS, &fresh()));
        assert_eq!(reconcile(&desired, &SETTINGS, &observed), []);
        assert_eq!(observed.rules.len(), 10);
    }

    #[test]
    fn the_filter_comes_before_peers_before_link_up_before_routes() {
        let steps = reconcile(&desired(&[(1, &["100.64.0.2/32"])]), &SETTINGS, &fresh());
        let position = |wanted: fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
        let filter = position(|step| matches!(step, Step::Filter(_)));
        let peers = position(|step| matches!(step, Step::Peers(_)));
        let up = position(|step| matches!(step, Step::Link(LinkChange { up: Some(true), .. })));
        let routes = position(|step| matches!(step, Step::Routes(_)));
        assert!(filter < peers && peers < up && up < routes);
    }

    #[test]
    fn a_change_of_one_peer_touches_that_peer_only() {
        let before = desired(&[(1, &["100.64.0.2/32"]), (2, &["100.64.0.3/32"])]);
        let observed = carried_out(fresh(), &reconcile(&before, &SETTINGS, &fresh()));
        let after = desired(&[(1, &["100.64.0.2/32"]), (2, &["100.64.0.3/32", "10.9.0.0/24"])]);
        let steps = reconcile(&after, &SETTINGS, &observed);
        let nets: Vec<IpNet> = vec!["10.9.0.0/24".parse().unwrap(), "100.64.0.3/32".parse().unwrap()];
        let route = Route { protocol: PROTOCOL, ..Route::to_device(52, nets[0], 7) };
        assert_eq!(
            steps,
            [
                Step::Owners(owners(&after)),
                Step::Peers(vec![PeerChange::ReplaceAllowedIps { key: PublicKey([2; 32]), nets }]),
                Step::Routes(vec![RouteChange::Replace(route)]),
            ]
        );
    }

    #[test]
    fn an_endpoint_the_kernel_has_is_left_alone_and_a_missing_one_is_set() {
        let desired = desired(&[(1, &["100.64.0.2/32"])]);
        let mut observed = carried_out(fresh(), &reconcile(&desired, &SETTINGS, &fresh()));
        let peer = observed.peers.get_mut(&key(1)).unwrap();
        peer.endpoint = Some("192.0.2.9:1".parse().unwrap());
        assert_eq!(reconcile(&desired, &SETTINGS, &observed), []);
        observed.peers.get_mut(&key(1)).unwrap().endpoint = None;
        let endpoint = "198.51.100.1:41641".parse().unwrap();
        assert_eq!(reconcile(&desired, &SETTINGS, &observed), [Step::endpoint(key(1), endpoint)]);
    }

    #[test]
    fn down_removes_peers_addresses_rules_and_routes() {
        let up = desired(&[(1, &["100.64.0.2/32"])]);
        let observed = carried_out(fresh(), &reconcile(&up, &SETTINGS, &fresh()));
        let down = Desired { mtu: 1280, ..Desired::default() };
        let observed = carried_out(observed.clone(), &reconcile(&down, &SETTINGS, &observed));
        let bare = Observed {
            link: 7,
            mtu: 1280,
            ipv6: true,
            filter: Some(Filter::default()),
            owners: Some(BTreeMap::new()),
            ..Observed::default()
        };
        assert_eq!(observed, bare);
    }

    #[test]
    fn without_ipv6_nothing_of_it_is_asked_for() {
        let desired = desired(&[(1, &["100.64.0.2/32", "fd7a:115c:a1e0::2/128"])]);
        let observed = Observed { ipv6: false, ..fresh() };
        let observed = carried_out(observed.clone(), &reconcile(&desired, &SETTINGS, &observed));
        assert_eq!(observed.addresses, nets(&["100.64.0.1/32"]));
        assert_eq!(observed.routes, nets(&["100.64.0.2/32"]));
        assert!(observed.rules.iter().all(|rule| rule.family == Family::V4));
    }
}
