//! The relay and the STUN answer in the kernel, by test-run: the same cases as on the host. Needs root.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use dataplane::{Program, Programs, Reason, RelayLeg, StunService};
use programs::namespace::Namespace;
use programs::packets::is_summed_up;
use programs::relay_cases::{self, End};
use programs::{Loaded, counts, skipped, stun_cases};

const DEVICE: &str = "relay0";
/// `enum xdp_action`.
const DROP: i32 = 1;
const PASS: i32 = 2;
const TX: i32 = 3;
const REDIRECT: i32 = 4;
/// Test-run's packets arrive by `lo`.
const LOOPBACK: u32 = 1;

/// Runs `test` in a namespace in which the cases' next hops are real.
fn with_relay(name: &str, test: impl FnOnce(&mut Programs) + Send + 'static) {
    if skipped(name) {
        return;
    }
    let namespace = Namespace::new();
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let (router, ours) = (mac(relay_cases::OUT.0), mac(relay_cases::OUT.1));
    namespace.ip(&format!("link add out address {ours} type veth peer name far"));
    for command in [
        "link set out up",
        "link set far up",
        "addr add 198.51.100.1/24 dev out",
        "addr add 198.51.100.2/24 dev out",
        "addr add 2001:db8::1/64 dev out nodad",
        "route add default via 198.51.100.254",
        "route add default via 2001:db8::fe dev out",
        "route add 198.51.99.0/24 dev out",
        &format!("neigh add 198.51.100.254 lladdr {router} dev out"),
        &format!("neigh add 2001:db8::fe lladdr {router} dev out"),
    ] {
        namespace.ip(command);
    }
    let out = namespace.ifindex("out");
    namespace.run(move || {
        let mut programs = Loaded::new(DEVICE);
        let own: [IpAddr; 4] = ["198.51.100.1", "198.51.100.2", "2001:db8::1", "2001:db8::2"]
            .map(|ip| ip.parse().expect("an address"));
        programs.set_own_addresses(&own.map(|ip| (LOOPBACK, ip)).into()).expect("the map takes them");
        programs.set_outlets(&BTreeSet::from([out])).expect("the map takes them");
        programs.set_relay_port(relay_cases::RELAY_PORT).expect("the map takes it");
        test(&mut programs);
    });
}

fn legs(ends: [End; 2]) -> [RelayLeg; 2] {
    ends.map(|end| RelayLeg { remote: end.client, local: end.local.ip() })
}

fn add_sessions(programs: &mut Programs) {
    for (vni, ends) in relay_cases::sessions() {
        programs.add_relay_session(vni, legs(ends)).expect("the map takes it");
    }
    programs.add_waiting_relay_session(relay_cases::WAITING).expect("the map takes it");
}

/// What the program says and makes of a frame.
fn judge(programs: &Programs, program: Program, frame: &[u8]) -> (Reason, Vec<u8>) {
    let before = counts(programs, program);
    let (code, made) = programs.test_packet(program, frame).expect("the kernel runs the frame");
    let after = counts(programs, program);
    let mut moved =
        Reason::ALL.into_iter().filter(|reason| after[*reason as usize] != before[*reason as usize]);
    let reason = moved.next().expect("counted");
    assert_eq!(moved.next(), None, "counted once");
    let want = match (reason, reason.verdict()) {
        (Reason::Relayed, _) => REDIRECT,
        (_, dataplane::Verdict::Send) => TX,
        (_, dataplane::Verdict::Drop) => DROP,
        _ => PASS,
    };
    assert_eq!(code, want, "{reason:?} has its verdict");
    (reason, made)
}

#[test]
fn the_kernel_relays_every_case_as_the_host_does() {
    with_relay("the_kernel_relays_every_case_as_the_host_does", |programs| {
        add_sessions(programs);
        for case in relay_cases::relay() {
            let (reason, made) = judge(programs, Program::Relay, &case.frame);
            assert_eq!(reason, case.want, "{}", case.name);
            assert!(made == case.sent.unwrap_or(case.frame), "{}: {made:02x?}", case.name);
        }
    });
}

#[test]
fn the_kernel_answers_every_stun_case_as_the_host_does() {
    with_relay("the_kernel_answers_every_stun_case_as_the_host_does", |programs| {
        let own: BTreeSet<(u32, IpAddr)> =
            stun_cases::addresses().into_iter().map(|(_, us)| (LOOPBACK, us.ip())).collect();
        programs.set_own_addresses(&own).expect("the map takes them");
        for case in stun_cases::stun() {
            let service = StunService {
                port: stun_cases::STUN_PORT,
                dropping: case.dropping,
                ..StunService::default()
            };
            programs.set_stun(&service).expect("the map takes it");
            let (reason, made) = judge(programs, Program::Stun, &case.frame);
            assert_eq!(reason, case.want, "{}", case.name);
            assert!(made == case.answer.unwrap_or(case.frame), "{}: {made:02x?}", case.name);
        }
        // A source has its burst, then waits; another source does not.
        let service = StunService { port: stun_cases::STUN_PORT, per_second: 1, burst: 2, dropping: false };
        programs.set_stun(&service).expect("the map takes it");
        let [(client, us), _] = stun_cases::addresses();
        let ask =
            |programs: &Programs, client| judge(programs, Program::Stun, &stun_cases::request(client, us)).0;
        let answers: Vec<Reason> = (0..4).map(|_| ask(programs, client)).collect();
        assert_eq!(answers[..2], [Reason::StunAnswered; 2]);
        assert_eq!(answers[3], Reason::StunLimited);
        assert_eq!(ask(programs, "192.0.2.77:9".parse().expect("an address")), Reason::StunAnswered);
    });
}

#[test]
fn an_empty_table_drops_and_a_restart_adopts_sessions_and_counters() {
    with_relay("an_empty_table_drops_and_a_restart_adopts_sessions_and_counters", |programs| {
        let [from, to] = relay_cases::sessions()[&1];
        let payload = programs::packets::geneve(0x7a12, 1, &[7; 64]);
        let there = relay_cases::from_client(&from, &payload);
        let back = relay_cases::from_client(&to, &payload);
        assert_eq!(judge(programs, Program::Relay, &there).0, Reason::RelayUnknown);
        add_sessions(programs);
        for _ in 0..3 {
            assert_eq!(judge(programs, Program::Relay, &there).0, Reason::Relayed);
        }
        assert_eq!(judge(programs, Program::Relay, &back).0, Reason::Relayed);

        let mut restarted = Programs::load_or_adopt(DEVICE).expect("adopted");
        assert_eq!(judge(&restarted, Program::Relay, &there).0, Reason::Relayed);
        let sessions = restarted.relay_sessions().expect("readable");
        assert_eq!(sessions.len(), relay_cases::sessions().len());
        let session = sessions.iter().find(|session| session.vni == 1).expect("the session");
        assert_eq!(session.legs, legs([from, to]));
        assert_eq!(session.traffic.map(|traffic| traffic.packets), [4, 1]);
        assert_eq!(session.traffic.map(|traffic| traffic.bytes), [4 * 72, 72]);
        assert!(
            session.traffic.iter().all(|traffic| traffic.silent.is_some_and(|s| s < Duration::from_secs(60)))
        );

        // A client that moves keeps what it has sent; its old address is a stranger's then.
        let mut moved = from;
        moved.client.set_port(9);
        restarted.add_relay_session(1, legs([moved, to])).expect("the map takes it");
        assert_eq!(judge(&restarted, Program::Relay, &there).0, Reason::RelayWrongSource);
        assert_eq!(
            judge(&restarted, Program::Relay, &relay_cases::from_client(&moved, &payload)).0,
            Reason::Relayed
        );
        let sessions = restarted.relay_sessions().expect("readable");
        let session = sessions.iter().find(|session| session.vni == 1).expect("the session");
        assert_eq!(session.traffic.map(|traffic| traffic.packets), [5, 1]);

        restarted.remove_relay_session(1).expect("the map lets go");
        assert_eq!(judge(&restarted, Program::Relay, &there).0, Reason::RelayUnknown);
    });
}

#[test]
fn the_table_is_bounded_and_full_of_sessions_it_still_relays() {
    with_relay("the_table_is_bounded_and_full_of_sessions_it_still_relays", |programs| {
        let ends = relay_cases::sessions()[&1];
        for vni in 1..=abi::MAX_RELAY_SESSIONS {
            programs.add_relay_session(vni, legs(ends)).expect("there is room");
        }
        let refused = programs.add_relay_session(abi::MAX_RELAY_SESSIONS + 1, legs(ends));
        assert!(refused.expect_err("full").to_string().contains("has the place of 1"));
        let frame =
            |vni| relay_cases::from_client(&ends[0], &programs::packets::geneve(0x7a12, vni, &[7; 64]));
        assert_eq!(judge(programs, Program::Relay, &frame(abi::MAX_RELAY_SESSIONS)).0, Reason::Relayed);
        // The same place, another VNI.
        assert_eq!(
            judge(programs, Program::Relay, &frame(abi::MAX_RELAY_SESSIONS + 1)).0,
            Reason::RelayUnknown
        );
        assert_eq!(programs.relay_sessions().expect("readable").len(), abi::MAX_RELAY_SESSIONS as usize);
    });
}

/// Frames made of valid ones by changing bytes: whatever they are, what leaves has right checksums if what came had.
#[test]
fn fuzzed_frames_meet_only_allowed_verdicts() {
    with_relay("fuzzed_frames_meet_only_allowed_verdicts", |programs| {
        add_sessions(programs);
        let own = stun_cases::addresses().map(|(_, us)| (LOOPBACK, us.ip()));
        programs.set_own_addresses(&own.into()).expect("the map takes them");
        let relayed = relay_cases::relay().into_iter().map(|case| (Program::Relay, case.frame));
        let asked = stun_cases::stun().into_iter().map(|case| (Program::Stun, case.frame));
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 33) as usize % below
        };
        for (program, frame) in relayed.chain(asked) {
            for _ in 0..40 {
                let mut frame = frame.clone();
                for _ in 0..=random(3) {
                    // Mostly the headers.
                    let reach = if random(4) == 0 { frame.len() } else { frame.len().min(80) };
                    frame[random(reach)] = random(256) as u8;
                }
                if random(4) == 0 {
                    frame.truncate(14 + random(frame.len() - 14));
                }
                let (code, made) = programs.test_packet(program, &frame).expect("the kernel runs the frame");
                match code {
                    TX | REDIRECT if is_summed_up(&frame[14..]) => {
                        assert!(is_summed_up(&made[14..]), "{frame:02x?}\n{made:02x?}");
                    }
                    TX | REDIRECT => assert_eq!(program, Program::Relay, "STUN answers only what is right"),
                    PASS | DROP => assert_eq!(made, frame, "untouched"),
                    code => panic!("verdict {code} on {frame:02x?}"),
                }
            }
        }
    });
}
