//! Capabilities given by grants: what a node is told of those it can be asked for, and of those it has itself.
//!
//! A capability is told to the destinations, who answer requests by it. Two have a companion, told to the sources in
//! return, which says who will answer (tailscale `tailcfg/peercap`): that is how a node learns of relays.

use std::net::IpAddr;

use ipnet::IpNet;
use wire::control::{CapGrant, CapMap, FilterRule};

use super::Subject;
use super::compile::{Resolved, Target};
use super::ip_set::IpSet;

/// Capabilities and what their holders are told of those who granted them.
const COMPANIONS: [(&str, &str); 2] = [
    ("tailscale.com/cap/drive", "tailscale.com/cap/drive-sharer"),
    ("tailscale.com/cap/relay", "tailscale.com/cap/relay-target"),
];

/// The capabilities below tailscale.com that a file may grant; the rest is the server's own business.
const GRANTABLE: [&str; 6] = ["drive", "relay", "webui", "kubernetes", "tsidp", "secrets"];

/// Whether a file may grant `name`.
///
/// # Errors
/// In words, why not.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.contains("://") || !name.contains('/') {
        return Err(format!("capability name {name:?} must have the form {{domain}}/{{path}}"));
    }
    let own = name.strip_prefix("tailscale.com/").map(|rest| rest.strip_prefix("cap/").unwrap_or(rest));
    match own {
        Some(own) if !GRANTABLE.contains(&own) => Err(format!(
            "capability name {name:?} must not be in the tailscale.com domain, but for {}",
            GRANTABLE.map(|name| format!("cap/{name}")).join(", ")
        )),
        _ => Ok(()),
    }
}

/// What `subject` is told of a rule that gives capabilities.
pub(super) fn rules(rule: &Resolved, capabilities: &CapMap, subject: &Subject) -> Vec<FilterRule> {
    let mut rules = Vec::new();
    let asked: Vec<_> = rule.targets.iter().flat_map(|(target, _)| destinations(target, subject)).collect();
    rules.extend(grant(&rule.from, asked, capabilities.clone()));
    let held = addresses_in(&rule.from, subject);
    for (_, companion) in COMPANIONS.iter().filter(|(name, _)| capabilities.contains(name)) {
        rules.extend(grant(&rule.to, held.clone(), CapMap::from_iter([*companion])));
    }
    rules
}

fn grant(from: &IpSet, dsts: Vec<IpNet>, cap_map: CapMap) -> Option<FilterRule> {
    if from.is_empty() || dsts.is_empty() {
        return None;
    }
    let cap_grant = vec![CapGrant { dsts, cap_map, ..CapGrant::default() }];
    Some(FilterRule { src_ips: from.texts().collect(), cap_grant, ..FilterRule::default() })
}

/// What of a target the subject is, or leads to.
fn destinations(target: &Target, subject: &Subject) -> Vec<IpNet> {
    match target {
        Target::Anything => subject.addresses.iter().map(|addr| IpNet::from(*addr)).collect(),
        Target::Internet => Vec::new(),
        Target::Nets(set) => {
            let ours = |(first, last): &(IpAddr, IpAddr)| {
                let mut range = IpSet::default();
                range.insert_range(*first, *last);
                subject.is_in(&range)
            };
            set.ranges().filter(ours).flat_map(|(first, last)| prefixes(first, last)).collect()
        }
        Target::Devices(ids) if ids.contains(&subject.id) => {
            subject.addresses.iter().map(|addr| IpNet::from(*addr)).collect()
        }
        Target::Devices(_) => Vec::new(),
    }
}

fn addresses_in(set: &IpSet, subject: &Subject) -> Vec<IpNet> {
    subject.addresses.iter().filter(|addr| set.contains(**addr)).map(|addr| IpNet::from(*addr)).collect()
}

/// A range as prefixes, the fewest there are.
fn prefixes(first: IpAddr, last: IpAddr) -> Vec<IpNet> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
        }
        _ => Vec::new(),
    }
}
