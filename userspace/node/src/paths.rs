//! The answer to `debug paths`: the core's explanation in words and names. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dataplane::Device;
use node_core::{Kind, Node, Score, Slot, Uplink, Via, Way};
use types::NodePublic;
use wire::control::Node as WireNode;
use wire::local::{PathReport, PathScore, PeerPaths};

/// Every path to `peer`, or to every peer. `devices` has the uplinks' names.
pub(crate) fn report(
    node: &Node,
    peer: Option<NodePublic>,
    devices: &BTreeMap<u32, Device>,
    now: Instant,
) -> Vec<PeerPaths> {
    let asked = node.peers().filter(|node| peer.is_none_or(|key| key == node.key));
    asked.filter_map(|peer| peer_paths(node, peer, devices, now)).collect()
}

fn peer_paths(
    node: &Node,
    peer: &WireNode,
    devices: &BTreeMap<u32, Device>,
    now: Instant,
) -> Option<PeerPaths> {
    let explanation = node.explain(peer.key, now)?;
    let kernel = explanation.kernel.map(|endpoint| match Slot::from_ip(endpoint.ip()) {
        Some(_) => "lo".to_owned(),
        None => endpoint.to_string(),
    });
    let used = explanation.ways.iter().find(|way| way.verdict.is_used());
    Some(PeerPaths {
        peer: peer.key,
        name: peer.name.clone(),
        current: used.map(|way| text(way.via)).unwrap_or_default(),
        kernel: kernel.unwrap_or_default(),
        active: explanation.active,
        paths: explanation.ways.iter().map(|way| path_report(way, devices)).collect(),
    })
}

fn path_report(way: &Way, devices: &BTreeMap<u32, Device>) -> PathReport {
    let name =
        |Uplink(index)| devices.get(&index).map_or_else(|| format!("#{index}"), |device| device.name.clone());
    let uplink = if let Via::Udp(path) = way.via { path.uplink.map(name) } else { None };
    PathReport {
        endpoint: text(way.via),
        uplink: uplink.unwrap_or_default(),
        sources: way.sources.iter().map(|source| (*source).to_owned()).collect(),
        pinged_seconds_ago: way.pinged.map(|time| time.as_secs_f64()),
        answered_seconds_ago: way.answered.map(|time| time.as_secs_f64()),
        latency_seconds: way.latency.map(|time: Duration| time.as_secs_f64()),
        score: way.score.map(path_score),
        used: way.verdict.is_used(),
        why: way.verdict.to_string(),
    }
}

fn path_score(score: Score) -> PathScore {
    let kind = match score.kind {
        Kind::Lan => "lan",
        Kind::Wan => "wan",
        Kind::Relay => "relay",
        Kind::Derp => "derp",
    };
    PathScore { kind: kind.to_owned(), metric: score.metric, cost_seconds: score.cost.as_secs_f64() }
}

fn text(via: Via) -> String {
    match via {
        Via::Udp(path) => path.to_string(),
        Via::Derp(region) => format!("derp:{region}"),
    }
}
