//! Restart: the controller dies and comes back, the kernel's device stays.

use std::time::Duration;

use crate::nat::Kind;
use crate::world::World;

const TICK: Duration = Duration::from_millis(100);

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn a_restarted_controller_adopts_live_peers_and_loses_nothing() {
    for seed in 0..100 {
        let mut world = World::new(seed, &[Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED]);
        world.talk(0, 1, TICK, secs(10));
        assert!(world.is_direct(0, 1), "seed {seed}");
        let cached = world.hosts[0].node.cached_map();
        let set_before = world.hosts[0].kernel.endpoints_set;
        world.kill(0);
        let mut sent = world.talk(0, 1, TICK, secs(3));
        world.restart(0, cached);
        sent.extend(world.talk(0, 1, TICK, secs(20)));
        world.run_for(secs(1));
        assert_eq!(world.lost(&sent), 0, "seed {seed}");
        assert_eq!(world.hosts[0].kernel.endpoints_set, set_before, "seed {seed}: no endpoint was touched");
        assert!(world.is_direct(0, 1), "seed {seed}");
    }
}

#[test]
fn a_restart_without_a_cache_waits_for_control_and_then_adopts() {
    let mut world = World::new(3, &[Kind::PORT_RESTRICTED, Kind::None]);
    world.talk(0, 1, TICK, secs(10));
    let set_before = world.hosts[0].kernel.endpoints_set;
    world.kill(0);
    world.restart(0, None);
    assert_eq!(world.hosts[0].kernel.peers.len(), 1, "nothing is removed before a map is known");
    let sent = world.talk(0, 1, TICK, secs(1));
    let map = world.full_map(0);
    world.give_map(0, map);
    let after = world.talk(0, 1, TICK, secs(10));
    assert_eq!(world.lost(&[sent, after].concat()), 0);
    assert_eq!(world.hosts[0].kernel.endpoints_set, set_before);
}

#[test]
fn a_peer_that_moved_while_the_controller_was_dead_is_found_again() {
    for seed in 0..50 {
        let mut world = World::new(seed, &[Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED]);
        world.talk(0, 1, TICK, secs(10));
        let cached = world.hosts[0].node.cached_map();
        world.kill(0);
        world.nat_of(1).forget();
        world.run_for(secs(2));
        world.restart(0, cached);
        world.talk(0, 1, TICK, secs(15));
        assert!(world.is_direct(0, 1), "seed {seed}");
    }
}
