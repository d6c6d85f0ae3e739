//! Uplinks: a gateway with two of them finds paths by both, prefers what the routes prefer, and moves every peer when a
//! cable is pulled, with and without DERP, which hangs when it uses the same cable.

use std::net::IpAddr;
use std::time::Duration;

use crate::nat::Kind;
use crate::world::World;

const TICK: Duration = Duration::from_millis(100);
/// A dead path is left in this time.
const LEFT: Duration = Duration::from_secs(2);
const GATEWAY: usize = 0;

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// A gateway with two lines and two peers with one each.
fn network(seed: u64) -> World {
    let lines = [Kind::None, Kind::PORT_RESTRICTED][seed as usize % 2];
    let peers = [Kind::PORT_RESTRICTED, Kind::EASY, Kind::None][seed as usize % 3];
    let mut world = World::wired(seed, &[lines, lines, peers, peers], &[vec![0, 1], vec![2], vec![3]]);
    for peer in [1, 2] {
        world.talk(GATEWAY, peer, TICK, secs(25));
        assert!(world.is_direct(GATEWAY, peer), "seed {seed}");
    }
    world.talk(GATEWAY, 1, TICK, secs(5));
    world
}

/// By which line of the gateway packets for `peer` leave.
fn leaves_by(world: &World, peer: usize) -> IpAddr {
    world.flows[&(GATEWAY, peer)].0.ip()
}

fn public(line: usize) -> IpAddr {
    IpAddr::from([203, 0, 113, line as u8 + 1])
}

#[test]
fn the_uplink_that_the_routes_prefer_is_used_while_it_works() {
    for seed in 0..60 {
        let world = network(seed);
        for peer in [1, 2] {
            assert_eq!(leaves_by(&world, peer), public(0), "seed {seed}");
            assert!(world.is_one_path(GATEWAY, peer), "seed {seed}: {:?}", world.flows);
        }
        let explanation = world.hosts[GATEWAY].node.explain(world.hosts[1].key, world.now).unwrap();
        let uplinks = explanation.ways.iter().filter(|way| way.answered.is_some()).count();
        assert!(uplinks >= 2, "seed {seed}: both uplinks have found it: {explanation:?}");
    }
}

#[test]
fn a_pulled_cable_moves_every_peer_in_two_seconds_both_ways() {
    for (seed, sees_it) in (0..120).map(|seed| (seed, seed % 2 == 0)) {
        let mut world = network(seed);
        let line = &mut world.hosts[GATEWAY].lines[0];
        (line.carrier, line.passes) = (!sees_it, [false; 2]);
        world.hosts[GATEWAY].derp_hangs = true;
        if sees_it {
            world.tell_underlay(GATEWAY);
        }
        for peer in [1, 2] {
            world.talk(GATEWAY, peer, TICK, LEFT);
            let sent = world.talk(GATEWAY, peer, TICK, secs(10));
            world.run_for(secs(1));
            assert_eq!(world.lost(&sent), 0, "seed {seed}: peer {peer}, carrier lost: {sees_it}");
            assert_eq!(leaves_by(&world, peer), public(1), "seed {seed}");
        }
    }
}

#[test]
fn a_cable_plugged_in_again_is_used_again() {
    for (seed, sees_it) in (0..60).map(|seed| (seed, seed % 2 == 0)) {
        let mut world = network(seed);
        let plug = |world: &mut World, plugged: bool| {
            let line = &mut world.hosts[GATEWAY].lines[0];
            (line.carrier, line.passes) = (plugged || !sees_it, [plugged; 2]);
            world.tell_underlay(GATEWAY);
        };
        plug(&mut world, false);
        world.talk(GATEWAY, 1, TICK, secs(20));
        plug(&mut world, true);
        let sent = world.talk(GATEWAY, 1, TICK, secs(70));
        world.run_for(secs(1));
        assert_eq!(world.lost(&sent), 0, "seed {seed}");
        assert_eq!(leaves_by(&world, 1), public(0), "seed {seed}, carrier lost: {sees_it}");
    }
}

/// The gateway answers only, so that its own counters grow while nothing of what it sends arrives.
#[test]
fn a_gateway_that_only_answers_notices_as_well() {
    for (seed, drops_disco) in (0..40).map(|seed| (seed, seed % 4 == 3)) {
        let mut world = network(seed);
        world.hosts[1].drops_disco = drops_disco;
        if !drops_disco {
            world.hosts[GATEWAY].lines[0].passes = [false; 2];
            world.hosts[GATEWAY].derp_hangs = true;
        }
        let mut answered = Vec::new();
        for id in 1..100 {
            let (question, answer) = (1_000_000 + id, 2_000_000 + id);
            world.send(1, GATEWAY, question);
            world.run_for(TICK);
            if world.arrived.contains_key(&question) {
                world.send(GATEWAY, 1, answer);
                answered.push(answer);
            }
        }
        world.run_for(secs(1));
        let lost = (1..100).count() - answered.iter().filter(|id| world.arrived.contains_key(id)).count();
        let limit = if drops_disco { 2 } else { 20 };
        assert!(
            lost <= limit,
            "seed {seed}: {lost} of 99 without an answer, ten a second; DISCO dead: {drops_disco}"
        );
    }
}
