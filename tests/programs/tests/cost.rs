//! What relaying a packet and answering a STUN request cost, by test-run: no device, no driver. Prints nanoseconds; fails
//! only where something is an order of magnitude off. Needs root.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::{Program, Programs, RelayLeg, StunService};
use programs::namespace::Namespace;
use programs::packets::{datagram, framed, geneve};
use programs::relay_cases::{IN, OUT};
use programs::{Loaded, skipped, stun_cases};

const LOOPBACK: u32 = 1;
const PORT: u16 = 40_000;
/// Runs of one call: every packet relayed loses a hop, and it has 255.
const RUNS: u32 = 250;
/// Each call waits for the kernel to put the program in place, which takes longer than the runs.
const CALLS: u32 = 100;

/// A test's packet comes back as it left, so that the same packet can be relayed again and again: both ends of its session
/// pretend to be ours.
fn mirror(ends: [&str; 2]) -> [RelayLeg; 2] {
    ends.map(|end| {
        let ip: IpAddr = end.parse().expect("an address");
        RelayLeg { remote: SocketAddr::new(ip, PORT), local: ip }
    })
}

fn packet(vni: u32, leg: &RelayLeg, len: usize) -> Vec<u8> {
    let to = SocketAddr::new(leg.local, PORT);
    framed(IN.0, IN.1, &datagram(255, leg.remote, to, &geneve(0x7a12, vni, &vec![7; len])))
}

fn best(programs: &Programs, program: Program, frame: &[u8], runs: u32) -> Duration {
    let calls = (0..CALLS).map(|_| programs.test_run(program, frame, runs).expect("the kernel runs it").1);
    calls.min().expect("some calls")
}

#[test]
fn cost_of_relay_and_stun() {
    if skipped("cost_of_relay_and_stun") {
        return;
    }
    let namespace = Namespace::new();
    let router = OUT.0.map(|byte| format!("{byte:02x}")).join(":");
    for command in [
        "link add out type veth peer name far",
        "link set out up",
        "link set far up",
        "addr add 198.51.100.1/24 dev out",
        "addr add 2001:db8::1/64 dev out nodad",
        "route add default via 198.51.100.254",
        "route add default via 2001:db8::fe dev out",
        &format!("neigh add 198.51.100.254 lladdr {router} dev out"),
        &format!("neigh add 2001:db8::fe lladdr {router} dev out"),
    ] {
        namespace.ip(command);
    }
    let out = namespace.ifindex("out");
    namespace.run(move || {
        let mut programs = Loaded::new("cost0");
        programs.set_outlets(&BTreeSet::from([out])).expect("the map takes them");
        programs.set_relay_port(PORT).expect("the map takes it");
        let pairs = [
            ("IPv4", ["192.0.2.10", "203.0.113.20"]),
            ("IPv6", ["2001:db8:1::10", "2001:db8:2::20"]),
            ("IPv4 and IPv6 in turn", ["192.0.2.10", "2001:db8:2::20"]),
        ];
        for (vni, (name, ends)) in (1..).zip(pairs) {
            let legs = mirror(ends);
            programs.add_relay_session(vni, legs).expect("there is room");
            let cost = best(&programs, Program::Relay, &packet(vni, &legs[0], 64), RUNS);
            let whole = best(&programs, Program::Underlay, &packet(vni, &legs[0], 64), RUNS);
            println!("relay {name}: {cost:?} a packet, {whole:?} from the entry");
            assert!(cost < Duration::from_micros(2));
        }
        println!("nothing: {:?}", best(&programs, Program::Underlay, &[0; 60], RUNS));
        let unknown = packet(9, &mirror(["192.0.2.10", "203.0.113.20"])[0], 64);
        println!("unknown VNI: {:?}", best(&programs, Program::Relay, &unknown, RUNS));

        let own = stun_cases::addresses().map(|(_, us)| (LOOPBACK, us.ip()));
        programs.set_own_addresses(&own.into()).expect("the map takes them");
        let service = StunService {
            port: stun_cases::STUN_PORT,
            per_second: 1_000_000_000,
            burst: 1_000_000,
            dropping: false,
        };
        programs.set_stun(&service).expect("the map takes it");
        let nothing = best(&programs, Program::Stun, &[0; 60], 1);
        for (client, us) in stun_cases::addresses() {
            let request = stun_cases::request(client, us);
            let stun = best(&programs, Program::Stun, &request, 1);
            let whole = best(&programs, Program::Underlay, &request, 1);
            println!(
                "STUN from {client}: {stun:?}, {whole:?} from the entry, of which {nothing:?} is test-run's"
            );
        }
    });
}

/// WireGuard data on the way in and out, with nothing to do for it: what every packet of a direct peer pays.
#[test]
fn cost_of_steering_a_direct_peers_packets() {
    if skipped("cost_of_steering_a_direct_peers_packets") {
        return;
    }
    Namespace::new().run(|| {
        let mut programs = Loaded::new("steering");
        programs.set_ports(PORT, 9).expect("the map takes them");
        programs.set_bypass(0, 0).expect("the map takes it");
        let (peer, own) =
            (SocketAddr::from(([192, 0, 2, 2], 41641)), SocketAddr::from(([192, 0, 2, 1], PORT)));
        let data = programs::packets::wireguard(4, 1312);
        let (inward, outward) = (datagram(64, peer, own, &data), datagram(64, own, peer, &data));
        for detours in [false, true] {
            if detours {
                let relay = SocketAddr::from(([192, 0, 2, 9], 7777));
                let relayed = dataplane::Relayed { relay, vni: 5, port: 9 };
                programs.set_relayed(&[relayed]).expect("the tables take it");
            }
            for (program, packet) in
                [(Program::Underlay, &inward), (Program::Steer, &inward), (Program::Egress, &outward)]
            {
                let cost = programs::cost::measure(&programs, program, packet, 20, 100_000).expect("it runs");
                println!(
                    "{}, {}: {cost:?}",
                    program.name(),
                    if detours { "detours of others" } else { "no detours" }
                );
                assert!(cost < Duration::from_micros(2), "{} takes {cost:?}", program.name());
            }
        }
    });
}
