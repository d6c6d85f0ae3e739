//! Maps and deltas as servers send them.

use std::time::SystemTime;

use types::{NodeId, NodePublic};
use wire::control::MapResponse;

use super::Netmap;
use super::fold::Change;

fn fold(netmap: &mut Netmap, json: &str) -> Change {
    let map = MapResponse::decode(json.as_bytes()).unwrap();
    netmap.fold(map, SystemTime::UNIX_EPOCH)
}

fn key(tag: u8) -> NodePublic {
    NodePublic::from_bytes([tag; 32])
}

fn node(id: u8) -> String {
    format!(r#"{{"ID":{id},"Key":"{}","Addresses":["100.64.0.{id}/32"]}}"#, key(id))
}

fn base() -> Netmap {
    let mut netmap = Netmap::default();
    let json = format!(r#"{{"Node":{},"Peers":[{},{}],"Domain":"example.com"}}"#, node(1), node(2), node(3));
    assert_eq!(fold(&mut netmap, &json).lost, [""; 0]);
    netmap
}

fn ids(netmap: &Netmap) -> Vec<i64> {
    netmap.peers().map(|peer| peer.id.0).collect()
}

#[test]
fn a_first_message_without_a_node_is_refused() {
    let mut netmap = Netmap::default();
    assert_eq!(fold(&mut netmap, r#"{"Domain":"example.com"}"#).lost.len(), 1);
    assert!(netmap.to_map().is_none());
}

#[test]
fn an_unusable_new_stream_keeps_the_old_map() {
    let mut netmap = base();
    netmap.open_stream();
    assert_eq!(fold(&mut netmap, r#"{"PeersRemoved":[2]}"#).lost.len(), 1);
    assert_eq!(ids(&netmap), [2, 3]);
}

#[test]
fn one_bad_peer_loses_that_peer() {
    let mut netmap = base();
    let json = format!(r#"{{"Peers":[{{"ID":9,"Key":"nodekey:zz"}},{{"ID":8}},{},{}]}}"#, node(1), node(3));
    let change = fold(&mut netmap, &json);
    assert_eq!(change.lost.len(), 3, "{:?}", change.lost);
    assert_eq!(ids(&netmap), [3]);
}

#[test]
fn deltas_touch_what_they_name() {
    let mut netmap = base();
    let change = fold(
        &mut netmap,
        r#"{"PeersRemoved":[2],"PeersChangedPatch":[{"NodeID":3,"DERPRegion":7,"Online":true},{"NodeID":99}]}"#,
    );
    assert_eq!(change.peers, [NodeId(2), NodeId(3)].into());
    assert!(change.kernel);
    let change = fold(&mut netmap, r#"{"PeersChangedPatch":[{"NodeID":3,"Endpoints":["192.0.2.1:5"]}]}"#);
    assert!(!change.kernel, "endpoints are no matter of the kernel's configuration");
    let peer = netmap.peer(&key(3)).unwrap();
    assert_eq!(peer.home_region().unwrap().0, 7);
    assert_eq!(peer.endpoints.len(), 1);
    assert_eq!(ids(&netmap), [3]);
}

/// As headscale announces a node that has only just registered.
#[test]
fn a_peer_that_becomes_reachable_concerns_the_kernel() {
    let mut netmap = base();
    let patches = [r#""DERPRegion":7"#.to_owned(), format!(r#""DiscoKey":"discokey:{}""#, "ab".repeat(32))];
    for (id, patch) in [2, 3].into_iter().zip(patches) {
        let json = format!(r#"{{"PeersChangedPatch":[{{"NodeID":{id},{patch}}}]}}"#);
        assert!(fold(&mut netmap, &json).kernel, "{patch}");
    }
    let again = r#"{"PeersChangedPatch":[{"NodeID":2,"DERPRegion":8}]}"#;
    assert!(!fold(&mut netmap, again).kernel, "it could be reached before");
}

#[test]
fn an_empty_peer_list_replaces_nothing_but_a_new_stream_does() {
    let mut netmap = base();
    fold(&mut netmap, r#"{"Peers":[]}"#);
    assert_eq!(ids(&netmap), [2, 3]);
    netmap.open_stream();
    fold(&mut netmap, &format!(r#"{{"Node":{}}}"#, node(1)));
    assert_eq!(ids(&netmap), [0i64; 0]);
}

#[test]
fn a_rotated_key_is_the_same_peer() {
    let mut netmap = base();
    let json = format!(r#"{{"PeersChangedPatch":[{{"NodeID":3,"Key":"{}"}}]}}"#, key(30));
    assert!(fold(&mut netmap, &json).kernel);
    assert!(netmap.peer(&key(3)).is_none());
    assert_eq!(netmap.peer(&key(30)).unwrap().id, NodeId(3));
}

#[test]
fn named_filters_are_patched() {
    let mut netmap = base();
    let rules = |netmap: &Netmap| netmap.filter_rules().map(|rule| rule.src_ips.concat()).collect::<Vec<_>>();
    fold(&mut netmap, r#"{"PacketFilter":[{"SrcIPs":["b"]}],"PacketFilters":{"a":[{"SrcIPs":["a"]}]}}"#);
    assert_eq!(rules(&netmap), ["a", "b"]);
    fold(&mut netmap, r#"{"PacketFilters":{"a":null}}"#);
    assert_eq!(rules(&netmap), ["b"]);
    fold(&mut netmap, r#"{"PacketFilters":{"*":null,"c":[{"SrcIPs":["c"]}]}}"#);
    assert_eq!(rules(&netmap), ["c"]);
}

#[test]
fn the_cached_map_restores_the_whole() {
    let mut netmap = base();
    fold(
        &mut netmap,
        r#"{"DERPMap":{"Regions":{"1":{"RegionID":1}}},"PacketFilter":[{"SrcIPs":["*"]}],"UserProfiles":[{"ID":5}]}"#,
    );
    let cached = netmap.to_map().unwrap();
    let mut restored = Netmap::default();
    restored.fold(cached.clone(), SystemTime::UNIX_EPOCH);
    assert_eq!(restored.to_map(), Some(cached));
}
