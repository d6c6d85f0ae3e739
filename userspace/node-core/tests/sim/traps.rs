//! Traps: what a trial of kernel WireGuard beside stock peers fell into, a test each.

use std::net::SocketAddr;
use std::time::Duration;

use types::NodeId;
use wire::control::{MapResponse, PeerChange};

use crate::nat::Kind;
use crate::world::World;

const TICK: Duration = Duration::from_millis(200);

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn direct_pair(seed: u64) -> World {
    let mut world = World::new(seed, &[Kind::PORT_RESTRICTED, Kind::None]);
    world.talk(0, 1, TICK, secs(10));
    assert!(world.is_direct(0, 1), "seed {seed}");
    world
}

/// Pongs alone do not make a path: with WireGuard dropped by a firewall that discovery is ahead of, traffic moves to DERP,
/// and the health check names the firewall.
#[test]
fn trap_discovery_is_ahead_of_the_firewall() {
    for dropping in [0, 1] {
        let mut world = World::new(7, &[Kind::PORT_RESTRICTED, Kind::None]);
        world.hosts[dropping].drops_wireguard = true;
        world.talk(0, 1, TICK, secs(45));
        let sent = world.talk(0, 1, TICK, secs(30));
        world.run_for(secs(1));
        assert_eq!(world.lost(&sent), 0, "host {dropping} drops");
        let warned = |world: &World| {
            let texts = world.hosts.iter().flat_map(|host| host.node.health());
            texts.into_iter().any(|warning| warning.text.contains("firewall"))
        };
        assert!(warned(&world), "host {dropping} drops");
        world.hosts[dropping].drops_wireguard = false;
        world.talk(0, 1, TICK, secs(400));
        assert!(world.is_direct(0, 1), "tried again after a while");
        assert!(!warned(&world));
    }
}

/// One packet by DERP turns the kernel's endpoint to loopback while a direct path is trusted; it is turned back.
#[test]
fn trap_one_derp_packet_moves_the_kernel() {
    let mut world = direct_pair(1);
    let loopback = world.loopback(0, 1);
    let key = world.hosts[1].key;
    world.send_by_derp(1, 0);
    assert!(
        world
            .run_until(secs(1), |world| world.hosts[0].kernel.peers[&key].endpoint == Some(loopback))
            .is_some()
    );
    let back = world.run_until(secs(1), |world| !world.rests_on_derp(0, 1));
    assert!(back.is_some(), "turned back without waiting for traffic");
}

/// A known path does not hurry the kernel: an idle peer rests on DERP, so that the first packet is on its way at once.
#[test]
fn trap_a_known_path_does_not_hurry_the_kernel() {
    for seed in 0..50 {
        let mut world = direct_pair(seed);
        world.run_for(secs(300));
        assert!(world.rests_on_derp(0, 1) && world.rests_on_derp(1, 0), "seed {seed}");
        for (id, from, to) in [(1_000_001, 0, 1), (1_000_002, 1, 0)] {
            world.send(from, to, id);
            let took = world.run_until(secs(10), |world| world.arrived.contains_key(&id)).unwrap();
            assert!(took < Duration::from_millis(500), "seed {seed}: {took:?}");
            world.run_for(secs(300));
        }
    }
}

/// Activity is growth: large counters in the first dump are history, and wake nobody.
#[test]
fn trap_first_counters_are_no_activity() {
    let mut world = direct_pair(3);
    world.run_for(secs(300));
    let cached = world.hosts[0].node.cached_map();
    world.kill(0);
    world.restart(0, cached);
    world.run_for(secs(5));
    let before = world.hosts[0].controller_sent;
    world.run_for(secs(60));
    assert_eq!(world.hosts[0].controller_sent, before, "an idle node is silent");
    let key = world.hosts[1].key;
    assert!(!world.hosts[0].node.peer_status(key, world.now).unwrap().active);
}

/// Peers without any address to try: the kernel has a loopback address to send to, so nothing is lost.
#[test]
fn trap_a_peer_without_any_endpoint() {
    let mut world = World::new(4, &[Kind::Blocked, Kind::Blocked]);
    world.run_for(secs(5));
    let nowhere = MapResponse {
        peers_changed: vec![wire::control::Node { endpoints: Vec::new(), ..world.wire_node(1) }].into(),
        ..MapResponse::default()
    };
    world.give_map(0, nowhere);
    let sent = world.talk(0, 1, TICK, secs(2));
    world.run_for(secs(1));
    assert_eq!(world.lost(&sent), 0);
}

/// A stock peer gives a silent address up after 5 to 8 s: with the cached map a ping is answered before control is.
#[test]
fn trap_pings_before_the_netmap() {
    let mut world = direct_pair(5);
    let cached = world.hosts[0].node.cached_map();
    world.kill(0);
    world.restart(0, cached);
    let id = world.ping(1, 0);
    world.run_for(Duration::from_millis(200));
    assert!(world.hosts[1].pings[&id].is_ok());
}

/// Endpoint lists go stale and grow: dead ones are pinged and never used.
#[test]
fn trap_stale_endpoints_in_the_map() {
    let mut world = World::new(6, &[Kind::PORT_RESTRICTED, Kind::None]);
    world.run_for(secs(1));
    let mut stale = world.wire_node(1);
    stale.endpoints.extend((1..40u16).map(|port| SocketAddr::from(([203, 0, 113, 99], port))));
    world.give_map(0, MapResponse { peers_changed: vec![stale].into(), ..MapResponse::default() });
    let sent = world.talk(0, 1, TICK, secs(10));
    world.run_for(secs(1));
    assert!(world.is_direct(0, 1));
    assert_eq!(world.lost(&sent), 0);
}

/// The kernel has no notion of key expiry: an expired peer is removed from it when its time comes, without a new map.
#[test]
fn trap_an_expired_peer_is_cut_off() {
    let mut world = direct_pair(8);
    let at = jiff::Timestamp::try_from(world.wall() + secs(30)).unwrap();
    let patch = PeerChange { node_id: NodeId(2), key_expiry: Some(at.into()), ..PeerChange::default() };
    world.give_map(0, MapResponse { peers_changed_patch: vec![patch].into(), ..MapResponse::default() });
    let key = world.hosts[1].key;
    world.run_for(secs(29));
    assert!(world.hosts[0].kernel.peers.contains_key(&key));
    world.run_for(secs(2));
    assert!(!world.hosts[0].kernel.peers.contains_key(&key));
    let sent = world.talk(1, 0, TICK, secs(5));
    assert_eq!(world.lost(&sent), sent.len(), "neither way");
}

/// A peer control removed is gone from the kernel, and its pings stay unanswered.
#[test]
fn trap_a_removed_peer_is_gone() {
    let mut world = direct_pair(9);
    world.give_map(0, MapResponse { peers_removed: vec![NodeId(2)], ..MapResponse::default() });
    assert!(world.hosts[0].kernel.peers.is_empty());
    let id = world.ping(1, 0);
    world.run_for(secs(6));
    assert!(world.hosts[1].pings[&id].is_err());
}
