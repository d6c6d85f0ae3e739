//! Routes: which prefixes belong to a peer, and what our routing table sends into the overlay device
//! (tailscale `ipn/ipnlocal/local.go`, `wgengine/wgcfg/nmcfg`).
//!
//! Deliberately not here: rules, marks and where the table stands (`dataplane`).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use types::NodeId;
use types::overlay::{CGNAT, SERVICE_V4, SERVICE_V6, ULA, host};
use wire::control::Node;

/// Beyond this many peers one route for all of 100.64.0.0/10 replaces their /32s, as in Tailscale.
const MANY_PEERS: usize = 10_000;

/// What each peer may send and is sent, by id: its own addresses, and its subnets when routes are accepted. Default
/// routes are left out: no exit node is chosen. A prefix that two peers claim is the first one's, as WireGuard gives it
/// to one only.
pub(crate) fn allowed_ips<'a>(
    peers: impl Iterator<Item = &'a Node>,
    accept_routes: bool,
) -> BTreeMap<NodeId, BTreeSet<IpNet>> {
    let mut taken = BTreeSet::new();
    peers
        .map(|peer| {
            let may = |net: &&IpNet| peer.addresses.contains(net) || (accept_routes && net.prefix_len() != 0);
            let nets = peer.allowed().iter().filter(may).map(IpNet::trunc);
            (peer.id, nets.filter(|net| taken.insert(*net)).collect())
        })
        .collect()
}

/// The table's content for these allowed prefixes.
pub(crate) fn table(allowed: &BTreeMap<NodeId, BTreeSet<IpNet>>) -> BTreeSet<IpNet> {
    let many = allowed.len() > MANY_PEERS;
    let mut table: BTreeSet<IpNet> = allowed
        .values()
        .flatten()
        .map(|net| match net {
            IpNet::V4(v4) if many && CGNAT.contains(v4) => IpNet::V4(CGNAT),
            IpNet::V6(v6) if ULA.contains(v6) => IpNet::V6(ULA),
            other => *other,
        })
        .collect();
    // Always: an address of a peer not known yet must not leave by the underlay.
    table.extend([IpNet::V6(ULA), host(SERVICE_V4.into()), host(SERVICE_V6.into())]);
    table
}

/// The subnets that peers serve for us: no candidate address may lie in one, or a path would run through the overlay.
pub(crate) fn accepted(table: &BTreeSet<IpNet>) -> impl Iterator<Item = &IpNet> {
    table
        .iter()
        .filter(|net| net.max_prefix_len() != net.prefix_len() && !types::overlay::contains(net.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Vec<Node> {
        serde_json::from_str(
            r#"[{"ID":1,"Addresses":["100.64.0.1/32","fd7a:115c:a1e0::1/128"],
                 "AllowedIPs":["100.64.0.1/32","fd7a:115c:a1e0::1/128","10.1.0.0/24","0.0.0.0/0"]},
                {"ID":2,"Addresses":["100.64.0.2/32"],"AllowedIPs":["100.64.0.2/32","10.1.0.0/24"]}]"#,
        )
        .unwrap()
    }

    fn texts<'a>(nets: impl IntoIterator<Item = &'a IpNet>) -> Vec<String> {
        nets.into_iter().map(ToString::to_string).collect()
    }

    #[test]
    fn subnets_need_consent_and_default_routes_a_chosen_exit_node() {
        let refused = allowed_ips(peers().iter(), false);
        assert_eq!(texts(&refused[&NodeId(1)]), ["100.64.0.1/32", "fd7a:115c:a1e0::1/128"]);
        let accepted = allowed_ips(peers().iter(), true);
        assert_eq!(texts(&accepted[&NodeId(1)]), ["10.1.0.0/24", "100.64.0.1/32", "fd7a:115c:a1e0::1/128"]);
        assert_eq!(texts(&accepted[&NodeId(2)]), ["100.64.0.2/32"], "the first peer has the subnet");
    }

    #[test]
    fn the_table_is_that_of_tailscale() {
        let table = table(&allowed_ips(peers().iter(), true));
        let expected =
            ["10.1.0.0/24", "100.64.0.1/32", "100.64.0.2/32", "100.100.100.100/32", "fd7a:115c:a1e0::/48"];
        assert_eq!(texts(&table), [&expected[..], &["fd7a:115c:a1e0::53/128"]].concat());
        assert_eq!(texts(accepted(&table)), ["10.1.0.0/24"]);
    }

    #[test]
    fn very_many_peers_share_one_route() {
        let allowed = (0..=10_000u32)
            .map(|n| (NodeId(n.into()), [IpNet::V4(std::net::Ipv4Addr::from(0x6440_0000 + n).into())].into()))
            .collect();
        assert!(table(&allowed).contains(&IpNet::V4(CGNAT)));
        assert!(table(&allowed).len() < 10);
    }
}
