//! The programs in the kernel, by test-run: the same cases as on the host, swaps, flows, what pins keep. Needs root.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::{Generation, Origin, Program, Programs, Reason, Spare, compile};
use node_core::filter::Filter;
use packet::proto::UDP;
use programs::cases::{address, parse};
use programs::namespace::Namespace;
use programs::packets::{ethernet, ip, udp};
use programs::tables::Tables;
use programs::{Loaded, cases, counts, judge, pins, skipped};

/// Runs `test` in a namespace of its own with programs of its own, and takes the programs away again.
fn with_programs(name: &str, test: impl FnOnce(&mut Programs) + Send + 'static) {
    if skipped(name) {
        return;
    }
    Namespace::new().run(move || test(&mut Loaded::new(DEVICE)));
}

const DEVICE: &str = "test0.1";

#[test]
fn the_kernel_judges_every_filter_case_as_the_host_does() {
    with_programs("the_kernel_judges_every_filter_case_as_the_host_does", |programs| {
        programs.install(&cases::filter()).expect("the filter fits");
        let tables = Tables::new(compile(&cases::filter()).expect("the filter fits"));
        for case in cases::from_tunnel() {
            let kernel = judge(programs, Program::FromTunnel, &case.packet);
            assert_eq!(kernel, Some(tables.from_tunnel(&case.packet)), "{}", case.name);
            assert_eq!(kernel, case.want, "{}", case.name);
        }
    });
}

#[test]
fn the_kernel_recognizes_every_steering_case_as_the_host_does() {
    with_programs("the_kernel_recognizes_every_steering_case_as_the_host_does", |programs| {
        programs.set_ports(cases::PORT, 9).expect("the map takes them");
        for case in cases::steer() {
            let kernel = judge(programs, Program::Steer, &case.packet);
            // Nobody is bound to the controller port, which says that the packet was recognized.
            assert_eq!(kernel, case.want.map(|_| Reason::NoController), "{}", case.name);
        }
        programs.set_ports(0, 9).expect("the map takes them");
        for case in cases::steer() {
            assert_eq!(judge(programs, Program::Steer, &case.packet), None, "off: {}", case.name);
        }
    });
}

/// What it hands over meets the tails' own tests; what it does not know, and what has no tail, passes as it came.
#[test]
fn the_underlay_program_leaves_what_is_not_its_own() {
    with_programs("the_underlay_program_leaves_what_is_not_its_own", |programs| {
        programs.set_ports(cases::PORT, 9).expect("the map takes them");
        for case in cases::underlay() {
            for length in (14..=case.packet.len()).filter(|length| case.want.is_none() || *length < 28) {
                let frame = ethernet(&case.packet[..length]);
                let result = programs.test_packet(Program::Underlay, &frame).expect("it runs");
                assert_eq!(result, (XDP_PASS, frame), "{} at {length}", case.name);
            }
        }
    });
}

const XDP_PASS: i32 = 2;

#[test]
fn without_a_filter_and_with_an_empty_one_nothing_new_comes_in() {
    with_programs("without_a_filter_and_with_an_empty_one_nothing_new_comes_in", |programs| {
        for case in cases::from_tunnel() {
            let reason = judge(programs, Program::FromTunnel, &case.packet).expect("counted");
            assert_eq!(reason.verdict(), dataplane::Verdict::Drop, "{}", case.name);
        }
        let shields_up = Filter { shields_up: true, ..cases::filter() };
        programs.install(&shields_up).expect("the filter fits");
        for case in cases::from_tunnel() {
            let want = case.want.map(|want| if want == Reason::Rule { Reason::Acl } else { want });
            assert_eq!(judge(programs, Program::FromTunnel, &case.packet), want, "{}", case.name);
        }
    });
}

/// Two filters that allow the packet by different classes: a packet judged by a mixture would be dropped.
#[test]
fn a_swap_never_drops_what_both_filters_allow() {
    with_programs("a_swap_never_drops_what_both_filters_allow", |programs| {
        let packet = ip(address("8.1.1.1"), address("1.2.3.4"), UDP, &udp(999, 22, &[]));
        let mut other = cases::filter();
        other.rules.reverse();
        other.rules.push(other.rules[0].clone());
        let filters = [cases::filter(), other];
        programs.install(&filters[0]).expect("the filter fits");

        let stop = Arc::new(AtomicBool::new(false));
        let hammer = {
            let (stop, frame) = (stop.clone(), ethernet(&packet));
            let programs = Programs::load_or_adopt(DEVICE).expect("adopted");
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    programs
                        .test_run(Program::FromTunnel, &frame, 20_000)
                        .expect("the kernel runs the packet");
                }
            })
        };
        let before = programs.generation().expect("readable");
        for turn in 0..40 {
            programs.install(&filters[(turn + 1) % 2]).expect("the filter fits");
        }
        stop.store(true, Ordering::Relaxed);
        hammer.join().expect("it ran to its end");
        assert_eq!(programs.generation().expect("readable"), Generation(before.0 + 40));
        let counts = counts(programs, Program::FromTunnel);
        assert!(counts[Reason::Rule as usize] > 10_000, "packets ran during the swaps");
        assert_eq!(counts.iter().sum::<u64>(), counts[Reason::Rule as usize], "{counts:?}");
    });
}

#[test]
fn a_filter_over_a_limit_leaves_the_old_one_in_force() {
    with_programs("a_filter_over_a_limit_leaves_the_old_one_in_force", |programs| {
        let generation = programs.install(&cases::filter()).expect("the filter fits");
        let mut large = cases::filter();
        large.local =
            (0..=abi::MAX_PREFIXES).map(|n| parse(&std::net::Ipv4Addr::from(n).to_string())).collect();
        let refused = programs.install(&large).expect_err("too large").to_string();
        assert!(refused.contains("65536") && refused.contains("stays in force"), "{refused}");
        assert_eq!(programs.generation().expect("readable"), generation);
        let packet = ip(address("8.1.1.1"), address("1.2.3.4"), UDP, &udp(999, 22, &[]));
        assert_eq!(judge(programs, Program::FromTunnel, &packet), Some(Reason::Rule));
    });
}

fn outbound(remote: &str, local_port: u16) -> Vec<u8> {
    ip(address("102.102.102.102"), address(remote), UDP, &udp(local_port, 53, &[0; 4]))
}

fn reply(remote: &str, local_port: u16) -> Vec<u8> {
    ip(address(remote), address("102.102.102.102"), UDP, &udp(53, local_port, &[0; 4]))
}

#[test]
fn replies_come_in_where_we_started_the_flow() {
    with_programs("replies_come_in_where_we_started_the_flow", |programs| {
        programs.install(&cases::filter()).expect("the filter fits");
        assert_eq!(judge(programs, Program::FromTunnel, &reply("77.7.7.7", 4000)), Some(Reason::Acl));
        assert_eq!(
            judge(programs, Program::IntoTunnel, &outbound("77.7.7.7", 4000)),
            Some(Reason::FlowAdded)
        );
        assert_eq!(judge(programs, Program::IntoTunnel, &outbound("77.7.7.7", 4000)), None, "known");
        assert_eq!(judge(programs, Program::FromTunnel, &reply("77.7.7.7", 4000)), Some(Reason::Reply));
        assert_eq!(judge(programs, Program::FromTunnel, &reply("77.7.7.7", 4001)), Some(Reason::Acl));
        assert_eq!(judge(programs, Program::FromTunnel, &reply("77.7.7.8", 4000)), Some(Reason::Acl));
        // Flows outlive a change of the filter, as in Tailscale.
        programs.install(&Filter { shields_up: true, ..cases::filter() }).expect("the filter fits");
        assert_eq!(judge(programs, Program::FromTunnel, &reply("77.7.7.7", 4000)), Some(Reason::Reply));
    });
}

#[test]
fn a_flood_of_flows_to_one_peer_costs_only_that_peer() {
    with_programs("a_flood_of_flows_to_one_peer_costs_only_that_peer", |programs| {
        programs.install(&cases::filter()).expect("the filter fits");
        let peers = BTreeMap::from([(parse("77.0.0.0/8"), 1), (parse("78.7.7.7"), 2)]);
        programs.set_peers(&peers).expect("the map takes them");
        let share = abi::FLOWS_PER_REGION as u16;
        for port in 0..share {
            assert_eq!(
                judge(programs, Program::IntoTunnel, &outbound("77.7.7.7", port)),
                Some(Reason::FlowAdded)
            );
        }
        // Another address of the same peer has no share of its own.
        assert_eq!(
            judge(programs, Program::IntoTunnel, &outbound("77.9.9.9", share)),
            Some(Reason::FlowRefused)
        );
        assert_eq!(judge(programs, Program::IntoTunnel, &outbound("78.7.7.7", 1)), Some(Reason::FlowAdded));
        for port in 0..share {
            assert_eq!(judge(programs, Program::FromTunnel, &reply("77.7.7.7", port)), Some(Reason::Reply));
        }
    });
}

/// Moves every flow's times into the past, as if they had sent then: first and last packet so many seconds ago.
fn age_flows(first: u64, last: u64) {
    let now = std::time::Duration::from(
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("every kernel has it"),
    );
    let ago = |seconds| (now - std::time::Duration::from_secs(seconds)).as_nanos() as u64;
    let times = abi::FlowTimes { first: ago(first), last: ago(last) };
    let flows = aya::maps::MapData::from_pin(pins(DEVICE).join("map_FLOWS")).expect("pinned");
    let flows = aya::maps::Map::from_map_data(flows).expect("a map");
    let mut flows = aya::maps::HashMap::<_, abi::FlowKey, abi::FlowTimes>::try_from(flows).expect("a hash");
    let known: Vec<_> = flows.keys().filter_map(Result::ok).collect();
    known.iter().for_each(|flow| flows.insert(flow, times, 0).expect("writable"));
}

#[test]
fn a_flow_that_is_over_gives_its_place_to_a_new_one() {
    let test = "a_flow_that_is_over_gives_its_place_to_a_new_one";
    let uptime = nix::sys::sysinfo::sysinfo().expect("every kernel has it").uptime();
    if uptime < std::time::Duration::from_secs(400) {
        println!("SKIPPED: {test}: the kernel's clock has run for {uptime:?}, and flows live for 300 s");
        return;
    }
    with_programs(test, |programs| {
        programs.install(&cases::filter()).expect("the filter fits");
        let mut port = 0;
        let mut fill = |programs: &Programs, want| {
            for _ in 0..abi::FLOWS_PER_REGION {
                assert_eq!(judge(programs, Program::IntoTunnel, &outbound("77.7.7.7", port)), Some(want));
                port += 1;
            }
        };
        fill(programs, Reason::FlowAdded);
        // Queries that are ten seconds old keep their places; replies to them may come.
        age_flows(10, 10);
        assert_eq!(
            judge(programs, Program::IntoTunnel, &outbound("77.7.7.7", 9000)),
            Some(Reason::FlowRefused)
        );
        age_flows(30, 30);
        fill(programs, Reason::FlowAdded);
        // Flows that sent more than once keep them for five minutes.
        age_flows(200, 100);
        assert_eq!(
            judge(programs, Program::IntoTunnel, &outbound("77.7.7.7", 9000)),
            Some(Reason::FlowRefused)
        );
        age_flows(350, 301);
        let last = (2 * abi::FLOWS_PER_REGION - 1) as u16;
        assert_eq!(
            judge(programs, Program::FromTunnel, &reply("77.7.7.7", last)),
            Some(Reason::Acl),
            "expired"
        );
        fill(programs, Reason::FlowAdded);
    });
}

#[test]
fn programs_verified_before_serve_like_others_but_never_replace_what_is_there() {
    with_programs("programs_verified_before_serve_like_others", |programs| {
        let spare = Spare::load().expect("verified");
        let adopted = Programs::load_spare_or_adopt(DEVICE, Some(spare)).expect("adopted");
        assert_eq!(adopted.origin(), Origin::Adopted);
        let generation = programs.install(&cases::filter()).expect("the filter fits");
        assert_eq!(adopted.generation().expect("readable"), generation);

        Programs::remove_all(DEVICE).expect("removed");
        let spare = Spare::load().expect("verified");
        let mut fresh = Programs::load_spare_or_adopt(DEVICE, Some(spare)).expect("pinned");
        assert_eq!(fresh.origin(), Origin::Loaded);
        assert_eq!(judge(&fresh, Program::FromTunnel, &reply("77.7.7.7", 4000)), Some(Reason::NoFilter));
        fresh.install(&cases::filter()).expect("the filter fits");
        assert!(!fresh.is_complete(), "the tunnel's programs are all it waits for");
        let (rest, refused) = fresh.rest().expect("put off").verify();
        assert!(refused.is_empty(), "{refused:?}");
        fresh.complete(rest).expect("pinned");
        assert_eq!(Programs::load_or_adopt(DEVICE).expect("adopted").origin(), Origin::Adopted);
    });
}

#[test]
fn a_restart_adopts_filter_flows_and_counters() {
    with_programs("a_restart_adopts_filter_flows_and_counters", |programs| {
        assert_eq!(programs.origin(), Origin::Loaded);
        let generation = programs.install(&cases::filter()).expect("the filter fits");
        assert_eq!(
            judge(programs, Program::IntoTunnel, &outbound("77.7.7.7", 4000)),
            Some(Reason::FlowAdded)
        );
        let counted = programs.counters().expect("readable");

        let restarted = Programs::load_or_adopt(DEVICE).expect("adopted");
        assert_eq!(restarted.origin(), Origin::Adopted);
        assert_eq!(restarted.generation().expect("readable"), generation);
        assert_eq!(restarted.counters().expect("readable"), counted);
        assert_eq!(judge(&restarted, Program::FromTunnel, &reply("77.7.7.7", 4000)), Some(Reason::Reply));
    });
}
