//! The cases, judged on the host. No root.

use abi::Next;
use dataplane::compile;
use packet::{Bytes, Datagram, Ports, for_controller};
use programs::cases;
use programs::tables::Tables;

#[test]
fn the_filter_judges_every_case_as_wanted() {
    let tables = Tables::new(compile(&cases::filter()).expect("the filter fits"));
    for case in cases::from_tunnel() {
        assert_eq!(Some(tables.from_tunnel(&case.packet)), case.want, "{}", case.name);
    }
}

#[test]
fn steering_recognizes_every_case_as_wanted() {
    for case in cases::steer() {
        let frame = Bytes(&case.packet);
        let ports = Ports { wireguard: PORTS.wireguard, ..Ports::default() };
        let found = Datagram::parse(&frame).and_then(|datagram| for_controller(&frame, &datagram, &ports));
        assert_eq!(found, case.want, "{}", case.name);
    }
}

const PORTS: Ports = Ports {
    wireguard: cases::PORT.to_be_bytes(),
    relay: cases::RELAY_PORT.to_be_bytes(),
    stun: cases::STUN_PORT.to_be_bytes(),
    probes: (0, 0),
};

fn next(packet: &[u8], ports: &Ports) -> Option<Next> {
    let frame = Bytes(packet);
    packet::next(&frame, &Datagram::parse(&frame)?, ports)
}

#[test]
fn an_underlay_packet_goes_to_the_program_it_is_for() {
    for case in cases::underlay() {
        assert_eq!(next(&case.packet, &PORTS), case.want, "{}", case.name);
        assert_eq!(next(&case.packet, &Ports::default()), None, "off: {}", case.name);
    }
}

#[test]
fn a_datagram_cut_short_anywhere_is_the_stacks() {
    for case in cases::underlay() {
        for length in 0..case.packet.len() {
            assert_eq!(next(&case.packet[..length], &PORTS), None, "{} at {length}", case.name);
        }
    }
}
