//! Peer relays: pairs that cannot go direct meet on one, keep going when it dies, and leave it when they can.

use std::time::Duration;

use node_core::Via;
use relay_core::{PeerRelay, RelayConfig};
use types::DiscoPrivate;
use wire::control::{FilterRule, MapResponse};

use crate::nat::Kind;
use crate::world::{World, overlay};

const TICK: Duration = Duration::from_millis(200);
const HARD_PAIR: [Kind; 2] = [Kind::HARD, Kind::PORT_RESTRICTED];

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Two hosts behind NATs that cannot go direct, then hosts that relay, if control grants it.
fn world(seed: u64, relays: usize, granted: bool) -> World {
    let nats: Vec<Kind> = HARD_PAIR.into_iter().chain((0..relays).map(|_| Kind::None)).collect();
    let mut world = World::new(seed, &nats);
    world.run_for(secs(1));
    for index in 2..nats.len() {
        start_relay(&mut world, index);
    }
    for index in 0..nats.len() {
        let map = MapResponse {
            packet_filter: Some(if granted { grants(index, nats.len()) } else { Vec::new() }),
            ..MapResponse::default()
        };
        world.give_map(index, map);
    }
    world
}

fn start_relay(world: &mut World, index: usize) {
    let mut relay =
        PeerRelay::new(RelayConfig::default(), DiscoPrivate::from_random([index as u8 + 201; 32]));
    relay.set_addresses(vec![world.hosts[index].relay_address()]);
    world.hosts[index].relay = Some(relay);
}

/// What the server tells `host` of the grant that everybody may relay by hosts 2 and more.
fn grants(host: usize, hosts: usize) -> Vec<FilterRule> {
    let rule = |source: usize, destination: usize, capability: &str| -> FilterRule {
        let (source, destination) = (overlay(source), overlay(destination));
        let text = format!(
            r#"{{"SrcIPs":["{source}"],"CapGrant":[{{"Dsts":["{destination}/32"],"CapMap":{{"{capability}":null}}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    let others = (0..hosts).filter(|other| *other != host);
    others
        .flat_map(|other| {
            let asks = (host >= 2).then(|| rule(other, host, "tailscale.com/cap/relay"));
            let asked = (other >= 2).then(|| rule(other, host, "tailscale.com/cap/relay-target"));
            asks.into_iter().chain(asked)
        })
        .collect()
}

fn is_relayed(world: &World) -> bool {
    let relayed = |a, b| matches!(world.via(a, b), Via::Udp(path) if !path.is_direct());
    relayed(0, 1) && relayed(1, 0)
}

#[test]
fn a_hard_pair_meets_on_a_relay_within_two_seconds_and_loses_no_packet() {
    for seed in 0..60 {
        let mut world = world(seed, 1 + seed as usize % 3, true);
        let sent = world.talk(0, 1, TICK, secs(2));
        assert!(is_relayed(&world), "seed {seed}: {:?}", world.via(0, 1));
        let more = world.talk(0, 1, TICK, secs(60));
        assert!(is_relayed(&world), "seed {seed}");
        world.run_for(secs(1));
        assert_eq!((world.lost(&sent), world.lost(&more)), (0, 0), "seed {seed}");
        let carried: usize = world.hosts[..2].iter().map(|host| host.relayed_sent).sum();
        assert!(carried > 500, "seed {seed}: {carried} of {} went by relay", sent.len() + more.len());
    }
}

#[test]
fn without_a_grant_nobody_relays() {
    let mut world = world(1, 1, false);
    world.talk(0, 1, TICK, secs(40));
    assert!(matches!(world.via(0, 1), Via::Derp(_)));
    let relay = world.hosts[2].relay.as_ref().unwrap();
    assert_eq!((relay.count(), relay.counters().refused), ((0, 0), 0));
}

#[test]
fn one_datagram_in_ten_lost_changes_nothing() {
    for seed in 0..40 {
        let mut world = world(seed, 1, true);
        world.loss = 10;
        world.talk(0, 1, TICK, secs(30));
        assert!(world.run_until(secs(10), is_relayed).is_some(), "seed {seed}");
    }
}

/// The other relays are bound and pinged all the time.
#[test]
fn a_dead_relay_is_left_for_the_next_one() {
    for seed in 0..40 {
        let mut world = world(seed, 3, true);
        world.talk(0, 1, TICK, secs(20));
        let Via::Udp(path) = world.via(0, 1) else { panic!("seed {seed}") };
        let used = (2..5).find(|index| world.hosts[*index].relay_address() == path.remote).unwrap();
        world.hosts[used].relay = None;
        world.talk(0, 1, TICK, secs(2));
        let sent = world.talk(0, 1, TICK, secs(60));
        let Via::Udp(path) = world.via(0, 1) else { panic!("seed {seed}") };
        assert_ne!(path.remote, world.hosts[used].relay_address(), "seed {seed}");
        world.run_for(secs(1));
        assert_eq!(world.lost(&sent), 0, "seed {seed}");
    }
}

#[test]
fn a_relay_that_forgot_everything_is_bound_anew() {
    for seed in 0..25 {
        let mut world = world(seed, 1, true);
        world.talk(0, 1, TICK, secs(20));
        start_relay(&mut world, 2);
        world.talk(0, 1, TICK, secs(20));
        assert!(world.run_until(secs(20), is_relayed).is_some(), "seed {seed}");
        let sent = world.talk(0, 1, TICK, secs(10));
        world.run_for(secs(1));
        assert_eq!(world.lost(&sent), 0, "seed {seed}");
    }
}

#[test]
fn a_new_mapping_of_the_nat_is_bound_anew() {
    for seed in 0..25 {
        let mut world = world(seed, 1, true);
        world.talk(0, 1, TICK, secs(20));
        world.nats[0].forget();
        world.talk(0, 1, TICK, secs(12));
        assert!(is_relayed(&world), "seed {seed}");
        let sent = world.talk(0, 1, TICK, secs(30));
        world.run_for(secs(1));
        assert_eq!(world.lost(&sent), 0, "seed {seed}");
    }
}

#[test]
fn a_direct_way_is_taken_when_there_is_one() {
    for seed in 0..25 {
        let mut world = world(seed, 1, true);
        world.talk(0, 1, TICK, secs(10));
        assert!(is_relayed(&world), "seed {seed}");
        world.nats[0].kind = Kind::EASY;
        world.nats[0].forget();
        world.talk(0, 1, TICK, secs(30));
        assert!(world.is_direct(0, 1), "seed {seed}");
    }
}

/// A session sleeps longer than the relay remembers it.
#[test]
fn after_a_long_silence_a_place_is_found_again() {
    let mut world = world(3, 1, true);
    world.talk(0, 1, TICK, secs(10));
    world.run_for(secs(600));
    let now = world.now;
    world.hosts[2].relay.as_mut().unwrap().handle_timeout(now);
    let sent = world.talk(0, 1, TICK, secs(5));
    assert!(is_relayed(&world));
    world.run_for(secs(1));
    assert_eq!(world.lost(&sent), 0);
}

/// The controller's end leaves the place to the next one, for the peer goes on pinging through it.
#[test]
fn a_restarted_controller_takes_its_place_again() {
    for seed in 0..25 {
        let mut world = world(seed, 1, true);
        world.talk(0, 1, TICK, secs(10));
        let mut map = world.full_map(0);
        map.packet_filter = Some(grants(0, 3));
        world.kill(0);
        world.restart(0, Some(map));
        world.talk(0, 1, TICK, secs(8));
        assert!(is_relayed(&world), "seed {seed}");
        let sent = world.talk(0, 1, TICK, secs(30));
        world.run_for(secs(1));
        assert_eq!(world.lost(&sent), 0, "seed {seed}");
    }
}
