//! Failover: a dead path is left within two seconds, a living one is not left, and no switch loses more than it must.

use std::time::Duration;

use crate::nat::Kind;
use crate::world::World;

const TICK: Duration = Duration::from_millis(100);
/// A dead path is left in this time.
const LEFT: Duration = Duration::from_secs(2);

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn direct_pair(seed: u64) -> World {
    let mut world = World::new(seed, &[Kind::PORT_RESTRICTED, Kind::None]);
    world.talk(0, 1, TICK, secs(10));
    assert!(world.is_direct(0, 1), "seed {seed}");
    world
}

/// Both ways; out of host 0 only; into host 0 only.
const FAULTS: [[bool; 2]; 3] = [[false, false], [false, true], [true, false]];

#[test]
fn a_dead_path_is_left_in_two_seconds_whichever_direction_died() {
    for (seed, passes) in (0..300).map(|seed| (seed, FAULTS[seed as usize % 3])) {
        let mut world = direct_pair(seed);
        world.run_for(Duration::from_millis(seed * 7 % 1000));
        world.hosts[0].lines[0].passes = passes;
        world.talk(0, 1, TICK, LEFT);
        let relayed = world.talk(0, 1, TICK, secs(20));
        world.run_for(secs(1));
        assert_eq!(world.lost(&relayed), 0, "seed {seed}: {passes:?}");
        world.hosts[0].lines[0].passes = [true; 2];
        let again = world.talk(0, 1, TICK, secs(10));
        world.run_for(secs(1));
        assert!(world.is_direct(0, 1), "seed {seed}: direct again");
        assert_eq!(world.lost(&again), 0, "seed {seed}: on the way back");
    }
}

#[test]
fn one_way_traffic_is_no_alarm() {
    for (seed, from, to) in (0..50).flat_map(|seed| [(seed, 0, 1), (seed, 1, 0)]) {
        let mut world = direct_pair(seed);
        let changes = world.hosts[from].path_changes;
        let before = world.hosts[from].controller_sent;
        for id in 1..600 {
            world.send(from, to, 1_000_000 + id);
            world.run_for(TICK);
        }
        assert_eq!(world.hosts[from].path_changes, changes, "seed {seed}: the path was left");
        let pings = world.hosts[from].controller_sent - before;
        assert!(pings <= 200, "seed {seed}: {pings} datagrams in a minute");
    }
}

#[test]
fn a_path_is_kept_where_wireguard_lives_and_discovery_is_dead() {
    for seed in 0..50 {
        let mut world = direct_pair(seed);
        world.hosts[1].drops_disco = true;
        let changes: Vec<usize> = world.hosts.iter().map(|host| host.path_changes).collect();
        let sent = world.talk(0, 1, TICK, secs(60));
        world.run_for(secs(1));
        assert_eq!(world.lost(&sent), 0, "seed {seed}");
        let after: Vec<usize> = world.hosts.iter().map(|host| host.path_changes).collect();
        assert_eq!(after, changes, "seed {seed}");
    }
}

#[test]
fn heavy_loss_is_no_death() {
    let mut changes = 0;
    for seed in 0..50 {
        let mut world = direct_pair(seed);
        world.loss = 20;
        let before = world.hosts[0].path_changes;
        world.talk(0, 1, TICK, secs(60));
        changes += world.hosts[0].path_changes - before;
    }
    assert!(changes <= 2, "a fifth of all datagrams lost, {changes} paths left in 50 minutes");
}

#[test]
fn a_new_mapping_in_the_middle_of_one_way_traffic_costs_two_seconds_at_most() {
    for (seed, from, to) in (0..100).flat_map(|seed| [(seed, 0, 1), (seed, 1, 0)]) {
        let mut world = direct_pair(seed);
        world.nat_of(0).forget();
        let mut ids = Vec::new();
        for id in 1..100 {
            ids.push(1_000_000 + id);
            world.send(from, to, 1_000_000 + id);
            world.run_for(TICK);
        }
        world.run_for(secs(1));
        let lost = world.lost(&ids);
        assert!(lost <= 20, "seed {seed}: {from} to {to}: {lost} lost, ten a second");
    }
}
