//! Pairs: whoever can go direct does, whoever cannot is relayed, and nobody waits for the kernel's retry.

use std::time::Duration;

use crate::nat::{Dependence, Kind};
use crate::world::World;

const TICK: Duration = Duration::from_millis(200);

/// Every NAT there is by RFC 4787's two questions, none, and a firewall that lets no UDP pass.
fn kinds() -> Vec<Kind> {
    let nats = Dependence::ALL.map(|mapping| Dependence::ALL.map(|filtering| Kind::nat(mapping, filtering)));
    nats.into_iter().flatten().chain([Kind::None, Kind::Blocked]).collect()
}

/// What Tailscale reaches, as far as it is plain: a hard NAT opens a port nobody could know, so the other side must accept
/// it from anywhere. What of address-dependent NATs can be reached depends on who asks first, and is not promised.
fn can_go_direct(a: Kind, b: Kind) -> Option<bool> {
    const PLAIN: [Kind; 5] = [Kind::None, Kind::EASY, Kind::PORT_RESTRICTED, Kind::HARD, Kind::Blocked];
    let open = |kind| matches!(kind, Kind::None | Kind::EASY);
    match (a, b) {
        (Kind::Blocked, _) | (_, Kind::Blocked) => Some(false),
        _ if open(a) || open(b) => Some(true),
        (Kind::HARD, Kind::PORT_RESTRICTED | Kind::HARD) | (Kind::PORT_RESTRICTED, Kind::HARD) => Some(false),
        _ => (PLAIN.contains(&a) && PLAIN.contains(&b)).then_some(true),
    }
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn every_pair_of_a_thousand_networks_settles_and_loses_no_packet() {
    for seed in 0..1000 {
        let kinds = kinds();
        let kind = |shift: usize| kinds[seed as usize / shift % kinds.len()];
        let (a, b) = (kind(1), kind(kinds.len()));
        let mut world = World::new(seed, &[a, b]);
        world.run_for(secs(1 + seed % 60));
        let sent = world.talk(0, 1, TICK, secs(12));
        let direct = world.is_direct(0, 1);
        assert_eq!(direct, can_go_direct(a, b).unwrap_or(direct), "seed {seed}: {a:?} {b:?}");
        assert!(direct || world.both_relayed(0, 1), "seed {seed}: {a:?} {b:?}: different ideas");
        world.run_for(secs(1));
        // Two NATs that map by destination and let anybody in are reached by other ports than they use themselves.
        if can_go_direct(a, b).is_some() {
            assert!(world.is_one_path(0, 1), "seed {seed}: {a:?} {b:?}: {:?}", world.flows);
        }
        assert_eq!(world.lost(&sent), 0, "seed {seed}: {a:?} {b:?}");
        let touched = world.hosts.iter().map(|host| host.kernel.endpoints_set).max().unwrap();
        assert!(touched <= 4, "seed {seed}: {a:?} {b:?}: the two sides move each other, {touched} times");
    }
}

#[test]
fn the_first_packet_arrives_at_once_and_the_pair_is_direct_soon() {
    for seed in 0..100 {
        let mut world = World::new(seed, &[Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED]);
        world.run_for(secs(2));
        world.send(0, 1, 1_000_000);
        let took = world.run_until(secs(5), |world| world.arrived.contains_key(&1_000_000)).unwrap();
        assert!(took < Duration::from_millis(400), "seed {seed}: first packet after {took:?}");
        world.talk(0, 1, TICK, secs(1));
        assert!(world.is_direct(0, 1), "seed {seed}");
    }
}

#[test]
fn one_datagram_in_ten_lost_changes_nothing() {
    for seed in 0..100 {
        let mut world = World::new(seed, &[Kind::PORT_RESTRICTED, Kind::EASY]);
        world.loss = 10;
        world.talk(0, 1, TICK, secs(30));
        assert!(world.run_until(secs(10), |world| world.is_direct(0, 1)).is_some(), "seed {seed}");
    }
}

#[test]
fn blocked_in_the_middle_is_relayed_within_the_trust_and_direct_again_after() {
    for seed in 0..100 {
        let mut world = World::new(seed, &[Kind::PORT_RESTRICTED, Kind::None]);
        world.talk(0, 1, TICK, secs(10));
        assert!(world.is_direct(0, 1), "seed {seed}");
        world.nat_of(0).kind = Kind::Blocked;
        world.talk(0, 1, TICK, Duration::from_millis(6700));
        let relayed = world.talk(0, 1, TICK, secs(20));
        world.run_for(secs(1));
        assert_eq!(world.lost(&relayed), 0, "seed {seed}: relayed after the trust");
        world.nat_of(0).kind = Kind::PORT_RESTRICTED;
        world.talk(0, 1, TICK, secs(10));
        assert!(world.is_direct(0, 1), "seed {seed}: direct again");
    }
}

#[test]
fn an_active_pair_survives_a_new_mapping_of_its_nat() {
    for seed in 0..100 {
        let mut world = World::new(seed, &[Kind::PORT_RESTRICTED, Kind::None]);
        world.talk(0, 1, TICK, secs(10));
        world.nat_of(0).forget();
        let sent = world.talk(0, 1, TICK, secs(10));
        world.run_for(secs(1));
        assert!(
            world.lost(&sent) <= 1,
            "seed {seed}: the kernel follows the next packet, lost {}",
            world.lost(&sent)
        );
        assert!(world.is_direct(0, 1), "seed {seed}");
    }
}

#[test]
fn three_nodes_find_each_other() {
    for seed in 0..50 {
        let mut world = World::new(seed, &[Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED, Kind::None]);
        for (a, b) in [(0, 1), (1, 2), (0, 2)] {
            world.talk(a, b, TICK, secs(8));
            assert!(world.is_direct(a, b), "seed {seed}: {a} {b}");
        }
    }
}

#[test]
fn a_ping_tells_the_way() {
    let mut world = World::new(1, &[Kind::PORT_RESTRICTED, Kind::Blocked, Kind::None]);
    world.run_for(secs(5));
    let (by_derp, direct) = (world.ping(0, 1), world.ping(0, 2));
    world.run_for(secs(5));
    let via = |id| format!("{:?}", world.hosts[0].pings[&id].as_ref().unwrap().via);
    assert!(via(by_derp).starts_with("Derp"), "{}", via(by_derp));
    assert!(via(direct).starts_with("Udp"), "{}", via(direct));
}
