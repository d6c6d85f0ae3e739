//! Grants: what a node may ask of another, by the capabilities in control's packet filter.
//!
//! A rule gives its sources capabilities towards its destinations. Whose they are is told by the first address of a family
//! that both have (tailscale `wgengine/magicsock/magicsock.go`, `nodeHasCap`). Deliberately not here: what a capability
//! means to whoever is asked.

use std::net::IpAddr;

use wire::control::{FilterRule, Node};

use crate::rules;

/// Lets a peer ask us for places on our relay.
pub(crate) const RELAY: &str = "tailscale.com/cap/relay";
/// Marks a peer whose relay we may ask for places.
pub(crate) const RELAY_TARGET: &str = "tailscale.com/cap/relay-target";

/// Whether `from` has the capability towards `to`.
pub(crate) fn has<'a>(
    rules: impl Iterator<Item = &'a FilterRule>,
    from: &Node,
    to: &Node,
    capability: &str,
) -> bool {
    let Some((source, destination)) = pair(from, to).filter(|_| !from.unsigned_peer_api_only) else {
        return false;
    };
    rules.filter(|rule| !rule.cap_grant.is_empty() && is_source(rule, from, source)).any(|rule| {
        let mut grants =
            rule.cap_grant.iter().filter(|grant| grant.dsts.iter().any(|net| net.contains(&destination)));
        grants
            .any(|grant| grant.cap_map.contains(capability) || grant.caps.iter().any(|cap| cap == capability))
    })
}

/// The first addresses of one family that both have.
fn pair(from: &Node, to: &Node) -> Option<(IpAddr, IpAddr)> {
    let addresses = |node: &'_ Node| -> Vec<IpAddr> {
        node.addresses
            .iter()
            .filter(|net| net.prefix_len() == net.max_prefix_len())
            .map(ipnet::IpNet::addr)
            .collect()
    };
    let theirs = addresses(to);
    addresses(from).into_iter().find_map(|source| {
        let alike = theirs.iter().find(|addr| addr.is_ipv4() == source.is_ipv4());
        alike.map(|destination| (source, *destination))
    })
}

fn is_source(rule: &FilterRule, from: &Node, source: IpAddr) -> bool {
    rule.src_ips.iter().any(|text| match text.strip_prefix("cap:") {
        Some(cap) => from.has_cap(cap),
        None => rules::parse(text).is_ok_and(|nets| nets.iter().any(|net| net.contains(&source))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(addresses: &str) -> Node {
        serde_json::from_str(&format!(r#"{{"ID":1,"Addresses":[{addresses}]}}"#)).unwrap()
    }

    fn check(src: &str, dst: &str, from: &Node, wanted: bool) {
        let rule = format!(
            r#"{{"SrcIPs":[{src}],"CapGrant":[{{"Dsts":[{dst}],"CapMap":{{"{RELAY}":[{{}}],"{RELAY_TARGET}":null}}}}]}}"#
        );
        let rule: FilterRule = serde_json::from_str(&rule).unwrap();
        let to = node(r#""100.64.0.9/32","fd7a:115c:a1e0::9/128""#);
        for capability in [RELAY, RELAY_TARGET] {
            assert_eq!(has([&rule].into_iter(), from, &to, capability), wanted, "{src} {dst}");
        }
        assert!(!has([&rule].into_iter(), from, &to, "tailscale.com/cap/drive"));
    }

    #[test]
    fn a_capability_is_from_its_sources_towards_its_destinations() {
        let from = node(r#""100.64.0.1/32","fd7a:115c:a1e0::1/128""#);
        check(r#""100.64.0.1""#, r#""100.64.0.9/32""#, &from, true);
        check(r#""100.64.0.0-100.64.0.1""#, r#""100.64.0.8/31""#, &from, true);
        check(r#""*""#, r#""0.0.0.0/0""#, &from, true);
        check(r#""100.64.0.2""#, r#""100.64.0.9/32""#, &from, false);
        check(r#""100.64.0.1""#, r#""100.64.0.8/32""#, &from, false);
        check(r#""nonsense""#, r#""100.64.0.9/32""#, &from, false);
        check("", r#""100.64.0.9/32""#, &from, false);
    }

    #[test]
    fn the_first_family_in_common_decides_and_unsigned_peers_have_nothing() {
        let from = node(r#""100.64.0.1/32","fd7a:115c:a1e0::1/128""#);
        check(r#""fd7a:115c:a1e0::1""#, r#""fd7a:115c:a1e0::9/128""#, &from, false);
        let only_v6 = node(r#""fd7a:115c:a1e0::1/128""#);
        check(r#""fd7a:115c:a1e0::1""#, r#""fd7a:115c:a1e0::9/128""#, &only_v6, true);
        let unsigned = Node { unsigned_peer_api_only: true, ..from };
        check(r#""*""#, r#""0.0.0.0/0""#, &unsigned, false);
    }
}
