//! The gateway's short way: what of the wanted state the programs can do, and what is left to the stack and netfilter.
//!
//! The slow way is complete without it. Where the programs translate, netfilter is told not to; they hide nothing that is
//! hidden already, so that both may do it for a moment. Deliberately not here: what is forwarded (`node-core`), packets
//! (`ebpf/programs`).

use std::collections::{BTreeMap, BTreeSet};

use dataplane::{Filtering, GatewayPlan, Programs};
use node_core::Desired;

use crate::kernel::{Plane, Report, trouble};
use crate::underlay::Lan;

/// What the programs are to do; nothing while nothing is forwarded or there is no LAN side.
pub(crate) fn plan(
    desired: &Desired,
    lans: &BTreeMap<u32, Lan>,
    tunnel: u32,
    flows: u32,
) -> Option<GatewayPlan> {
    if desired.served_routes.is_empty() || lans.is_empty() {
        return None;
    }
    let routes = desired.served_routes.iter().map(|net| (*net, desired.snat_subnet_routes));
    Some(GatewayPlan {
        tunnel,
        mtu: desired.mtu,
        filtering: Filtering::default(),
        places: flows,
        lans: lans.iter().map(|(index, lan)| (*index, lan.addresses)).collect(),
        routes: routes.collect(),
    })
}

/// Tells the programs. Without them the stack does it all, and the reports say why.
pub(crate) fn set(
    programs: &mut Programs,
    plan: Option<&GatewayPlan>,
    plane: &mut Plane,
    desired: &Desired,
) -> Vec<Report> {
    // As long as programs are being verified, what an earlier run has told goes on.
    let result = if programs.may_be_gateway() { programs.set_gateway(plan) } else { Ok(()) };
    plane.fast_path = match (programs.is_gateway(), &result) {
        (true, Ok(())) => "on",
        _ if desired.served_routes.is_empty() => "",
        _ => "off",
    };
    let mut reports = Vec::new();
    if result.is_err() && plan.is_some() {
        // Half a gateway is none.
        reports = trouble(programs.set_gateway(None));
    }
    reports.extend(trouble(result));
    reports
}

/// The devices where the programs translate, and netfilter need not.
pub(crate) fn devices(plane: &Plane, lans: &BTreeMap<u32, Lan>) -> BTreeSet<String> {
    match plane.fast_path {
        "on" => lans.values().map(|lan| lan.name.clone()).collect(),
        _ => BTreeSet::new(),
    }
}
