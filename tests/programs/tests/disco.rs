//! DISCO pings answered, on the host and in the kernel with the same cases, and the shield in front of WireGuard.

use std::collections::BTreeSet;

use dataplane::{Program, Programs, Reason};
use node_core::DiscoPeer;
use packet::crypto::{Hash, Sealed, words};
use packet::shield::{judge, mac1_state};
use packet::{Bytes, Datagram, disco};
use programs::disco_cases::{self, DiscoHost, PORT, Sender, TX, ours, sender};
use programs::frame::EthernetFrame;
use programs::namespace::Namespace;
use programs::packets::{datagram, framed, stun};
use programs::{Loaded, counts, shield_cases, skipped};
use types::NodePublic;

const DEVICE: &str = "test0.2";
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;

/// A packet of the peer to us, as a frame.
fn frame(packet: &[u8]) -> Vec<u8> {
    framed(OUR_MAC, THEIR_MAC, packet)
}

/// Checks an answer's frame, and gives the nonce of its pong.
fn check_answer(sender: &Sender, frame: &[u8], name: &str) -> [u8; 24] {
    assert_eq!(frame[..12], [THEIR_MAC, OUR_MAC].concat(), "{name}: back to where it came from");
    sender.check_pong(&frame[14..], name)
}

/// Runs a packet through the answering of pings on the host: the reason, and the frame afterwards.
fn answer(host: &DiscoHost, packet: &[u8]) -> (Reason, Vec<u8>) {
    let mut frame = EthernetFrame(frame(packet));
    let datagram = Datagram::parse(&frame).expect("a datagram");
    let reason = disco::answer(&mut frame, &datagram, host, &mut Sealed::default());
    (reason, frame.0)
}

#[test]
fn on_the_host_pings_of_known_peers_are_answered_and_all_else_is_left_alone() {
    let host = DiscoHost::default();
    let mut nonces = BTreeSet::new();
    for case in disco_cases::disco() {
        let (reason, made) = answer(&host, &case.packet);
        assert_eq!(reason, case.want, "{}", case.name);
        if reason == Reason::PingAnswered {
            let nonce = check_answer(&case.sender, &made, &case.name);
            assert!(nonces.insert(nonce), "{}: a nonce again", case.name);
            let (key, datagram, tx_id) = host.reports.borrow_mut().pop().expect("told to the controller");
            assert_eq!(key, words(case.sender.disco.public().as_bytes()));
            assert_eq!(tx_id.map(u32::to_ne_bytes).concat(), TX.0);
            assert_eq!(datagram.source_port, case.sender.source.port().to_be_bytes());
        } else {
            assert_eq!(made, frame(&case.packet), "{}", case.name);
        }
        assert!(host.reports.borrow().is_empty(), "{}", case.name);
    }
}

#[test]
fn on_the_host_who_sends_too_often_is_dropped_and_hurts_no_known_peer() {
    let host = DiscoHost::default();
    let stranger = sender(3, false);
    for turn in 0..200 {
        let want = if turn < 99 { Reason::ForController } else { Reason::DiscoLimited };
        assert_eq!(answer(&host, &stranger.packet(&stranger.ping())).0, want, "{turn}");
    }
    // From the same address, and under its own key.
    let known = Sender { source: stranger.source, ..sender(1, false) };
    for turn in 0..200 {
        let want = if turn < 99 { Reason::PingAnswered } else { Reason::DiscoLimited };
        assert_eq!(answer(&host, &known.packet(&known.ping())).0, want, "{turn}");
    }
}

/// Runs `test` in a namespace of its own with programs that know the peers of the cases.
fn with_peers(name: &str, test: impl FnOnce(&mut Programs) + Send + 'static) {
    if skipped(name) {
        return;
    }
    Namespace::new().run(move || {
        let mut programs = Loaded::new(DEVICE);
        programs.set_ports(PORT, 9).expect("the map takes them");
        programs.set_disco(&ours(), &peers()).expect("the map takes them");
        test(&mut programs);
    });
}

fn peers() -> Vec<DiscoPeer> {
    [(1, true), (2, false)]
        .map(|(tag, vouched)| {
            let Sender { disco, node, .. } = sender(tag, false);
            DiscoPeer { disco: disco.public(), node, vouched }
        })
        .to_vec()
}

/// Runs a frame through the programs of an underlay device: what moved, the return code, and the frame afterwards.
fn run(programs: &Programs, frame: &[u8]) -> (Vec<(Program, Reason)>, i32, Vec<u8>) {
    let read = || Program::ALL.map(|program| counts(programs, program));
    let before = read();
    let (code, made) = programs.test_packet(Program::Underlay, frame).expect("the kernel runs the frame");
    let after = read();
    let moved = Program::ALL.into_iter().flat_map(|program| {
        let grew = move |reason: &Reason| {
            let at = (program as usize, *reason as usize);
            after[at.0][at.1] != before[at.0][at.1]
        };
        Reason::ALL.into_iter().filter(grew).map(move |reason| (program, reason))
    });
    (moved.collect(), code, made)
}

#[test]
fn in_the_kernel_pings_of_known_peers_are_answered_and_all_else_is_left_alone() {
    with_peers("in_the_kernel_pings_of_known_peers_are_answered_and_all_else_is_left_alone", |programs| {
        let mut nonces = BTreeSet::new();
        for case in disco_cases::disco() {
            let (moved, code, made) = run(programs, &frame(&case.packet));
            assert_eq!(moved, [(Program::Disco, case.want)], "{}", case.name);
            if case.want == Reason::PingAnswered {
                assert_eq!(code, XDP_TX, "{}", case.name);
                let nonce = check_answer(&case.sender, &made, &case.name);
                assert!(nonces.insert(nonce), "{}: a nonce again", case.name);
            } else {
                assert_eq!((code, made), (XDP_PASS, frame(&case.packet)), "{}", case.name);
            }
        }
    });
}

#[test]
fn on_the_host_handshakes_are_judged_by_size_and_first_mac() {
    let shield = abi::Shield { mac1: mac1_state(shield_cases::ours().as_bytes()), on: 1, seed: 1 };
    for case in shield_cases::shield() {
        let frame = Bytes(&case.payload);
        let reason = judge(&frame, 0, case.payload.len(), &shield, &mut Hash::default());
        assert_eq!(Some(reason).filter(|reason| *reason != Reason::NotOurs), case.want, "{}", case.name);
    }
}

#[test]
fn in_the_kernel_handshakes_are_judged_by_size_and_first_mac() {
    with_peers("in_the_kernel_handshakes_are_judged_by_size_and_first_mac", |programs| {
        for on in [true, false] {
            programs.set_shield(on.then(shield_cases::ours).as_ref()).expect("the map takes it");
            for v6 in [false, true] {
                for case in shield_cases::shield() {
                    let frame = frame(&sender(9, v6).packet(&case.payload));
                    let (moved, code, made) = run(programs, &frame);
                    let want = case.want.filter(|_| on);
                    assert_eq!(
                        moved,
                        Vec::from_iter(want.map(|want| (Program::Shield, want))),
                        "{}",
                        case.name
                    );
                    let drops = want.is_some_and(|want| want != Reason::Handshake);
                    assert_eq!(code, if drops { XDP_DROP } else { XDP_PASS }, "{}", case.name);
                    assert_eq!(made, frame, "{}", case.name);
                }
            }
        }
    });
}

/// Another port, other families of frames: nothing that is not certainly ours is touched.
#[test]
fn tags_options_fragments_and_other_ports_are_left_to_the_stack() {
    with_peers("tags_options_fragments_and_other_ports_are_left_to_the_stack", |programs| {
        programs.set_shield(Some(&shield_cases::ours())).expect("the map takes it");
        let junk = shield_cases::handshake(1, 148, &NodePublic::from_bytes([1; 32]));
        for v6 in [false, true] {
            let peer = sender(1, v6);
            for payload in [peer.ping(), junk.clone()] {
                let packet = peer.packet(&payload);
                let mut frames = Vec::new();
                let whole = frame(&packet);
                frames.push(("a VLAN tag", [&whole[..12], &[0x81, 0, 0, 5], &whole[12..]].concat()));
                let elsewhere = Sender { destination: with_port(peer.destination, PORT + 1), ..peer.clone() };
                frames.push(("another port", frame(&elsewhere.packet(&payload))));
                if v6 {
                    let mut extended = packet.clone();
                    extended[6] = 60;
                    extended.splice(40..40, [17, 0, 1, 4, 0, 0, 0, 0]);
                    extended[4..6].copy_from_slice(&((packet.len() - 32) as u16).to_be_bytes());
                    frames.push(("destination options", frame(&extended)));
                } else {
                    let mut options = packet.clone();
                    options[0] = 0x46;
                    options.splice(20..20, [1; 4]);
                    options[2..4].copy_from_slice(&((packet.len() + 4) as u16).to_be_bytes());
                    frames.push(("options", frame(&options)));
                    for (name, field) in [("a first fragment", 0x2000_u16), ("a later fragment", 0x0020)] {
                        let mut piece = packet.clone();
                        piece[6..8].copy_from_slice(&field.to_be_bytes());
                        frames.push((name, frame(&piece)));
                    }
                }
                for (name, frame) in frames {
                    assert_eq!(run(programs, &frame), (vec![], XDP_PASS, frame), "{name}");
                }
            }
        }
    });
}

fn with_port(mut address: std::net::SocketAddr, port: u16) -> std::net::SocketAddr {
    address.set_port(port);
    address
}

/// Whatever arrives, a frame passes untouched, dies, or is a pong with right checksums.
#[test]
fn frames_cut_or_damaged_anywhere_only_pass_die_or_become_pongs() {
    with_peers("frames_cut_or_damaged_anywhere_only_pass_die_or_become_pongs", |programs| {
        let mut seed = 0x5eed_u64;
        let mut answered = 0;
        for (v6, shield) in [(false, false), (true, false), (false, true), (true, true)] {
            programs.set_shield(shield.then(shield_cases::ours).as_ref()).expect("the map takes it");
            let peer = sender(1, v6);
            let good = shield_cases::handshake(1, 148, &shield_cases::ours());
            for payload in [peer.ping(), good, stun(0x0101)] {
                let whole = frame(&peer.packet(&payload));
                for length in 14..whole.len() {
                    let (code, made) =
                        programs.test_packet(Program::Underlay, &whole[..length]).expect("it runs");
                    assert_eq!((code, &made[..]), (XDP_PASS, &whole[..length]), "cut at {length}");
                }
                for turn in 0..1500 {
                    let mut frame = whole.clone();
                    // One turn in four leaves the crypto alone.
                    let reach = if turn % 4 == 0 { frame.len().min(62) } else { frame.len() };
                    for _ in 0..=noise(&mut seed) % 3 {
                        let at = noise(&mut seed) as usize % reach;
                        frame[at] ^= 1 << (noise(&mut seed) % 8);
                    }
                    let (code, made) = programs.test_packet(Program::Underlay, &frame).expect("it runs");
                    match code {
                        XDP_DROP => {}
                        XDP_PASS => assert_eq!(made, frame),
                        XDP_TX => {
                            answered += 1;
                            assert!(programs::packets::is_summed_up(&made[14..]), "{frame:02x?} {made:02x?}");
                            assert_eq!(made.len(), frame.len() - 14);
                            assert_eq!(made[..12], [&frame[6..12], &frame[..6]].concat());
                        }
                        code => panic!("{code} for {frame:02x?}"),
                    }
                }
            }
        }
        assert!(answered > 100, "{answered} pings survived their damage");
    });
}

fn noise(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed >> 8
}

#[test]
fn no_nonce_comes_twice_on_any_cpu_nor_after_an_adoption() {
    with_peers("no_nonce_comes_twice_on_any_cpu_nor_after_an_adoption", |programs| {
        let peer = sender(1, false);
        let ping = frame(&peer.packet(&peer.ping()));
        let mut nonces = BTreeSet::new();
        let mut take = |programs: &Programs| {
            for cpu in 0..nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).unwrap().unwrap() {
                on_cpu(cpu as usize);
                for _ in 0..20 {
                    let (_, made) = programs.test_packet(Program::Underlay, &ping).expect("it runs");
                    assert!(nonces.insert(check_answer(&peer, &made, "a ping")), "a nonce again");
                }
            }
        };
        take(programs);
        let adopted = Programs::load_or_adopt(DEVICE).expect("adopted");
        take(&adopted);
        let prefixes: BTreeSet<&[u8]> = nonces.iter().map(|nonce| &nonce[..16]).collect();
        assert!(prefixes.len() > 1 && !prefixes.contains(&[0; 16][..]), "each CPU has its own beginning");
    });
}

fn on_cpu(cpu: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu).expect("a CPU");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).expect("this thread moves");
}

#[test]
fn buckets_stop_strangers_and_leave_known_peers_theirs() {
    with_peers("buckets_stop_strangers_and_leave_known_peers_theirs", |programs| {
        programs.set_shield(Some(&shield_cases::ours())).expect("the map takes it");
        let stranger = sender(3, false);
        let flood = frame(&stranger.packet(&stranger.ping()));
        let before = counts(programs, Program::Disco);
        for _ in 0..1000 {
            programs.test_run(Program::Underlay, &flood, 1).expect("it runs");
        }
        let after = counts(programs, Program::Disco);
        let grew = |reason: Reason| after[reason as usize] - before[reason as usize];
        let (left, limited) = (grew(Reason::ForController), grew(Reason::DiscoLimited));
        assert!(left >= 64 && limited > 500 && left + limited == 1000, "{left} passed, {limited} died");
        let known = Sender { source: stranger.source, ..sender(1, false) };
        let (moved, ..) = run(programs, &frame(&known.packet(&known.ping())));
        assert_eq!(moved, [(Program::Disco, Reason::PingAnswered)], "from the flood's own address");
        let responses = frame(&datagram(64, stranger.source, stranger.destination, &stun(0x0101)));
        let before = counts(programs, Program::Shield);
        programs.test_run(Program::Underlay, &responses, 1000).expect("it runs");
        let limited = counts(programs, Program::Shield)[Reason::ResponseLimited as usize]
            - before[Reason::ResponseLimited as usize];
        assert!(limited > 500, "STUN from the same source shares its bucket: {limited}");
    });
}

#[test]
fn keys_come_and_go_and_are_computed_once() {
    with_peers("keys_come_and_go_and_are_computed_once", |programs| {
        let judge = |programs: &Programs, tag| {
            let peer = sender(tag, false);
            run(programs, &frame(&peer.packet(&peer.ping()))).0[0].1
        };
        assert_eq!(judge(programs, 1), Reason::PingAnswered);
        let mut list = peers();
        list[0].vouched = false;
        list[1].vouched = true;
        programs.set_disco(&ours(), &list).expect("the map takes them");
        assert_eq!((judge(programs, 1), judge(programs, 2)), (Reason::ForController, Reason::PingAnswered));
        programs.set_disco(&ours(), &list[1..]).expect("the map takes them");
        let entries = programs.disco_peers().expect("readable");
        assert_eq!(entries, 1, "gone with its peer");
        // Our own key changes: what was sealed for the old one no longer opens.
        let other = types::DiscoPrivate::from_random([8; 32]);
        programs.set_disco(&other, &list).expect("the map takes them");
        assert_eq!(judge(programs, 2), Reason::ForController);
        programs.set_disco(&ours(), &list).expect("the map takes them");
        assert_eq!(judge(programs, 2), Reason::PingAnswered);
    });
}
