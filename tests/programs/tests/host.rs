//! The cases, judged on the host. No root.

use dataplane::compile;
use packet::{Bytes, Ports, for_controller};
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
        let found = for_controller(&Bytes(&case.packet), cases::PORT.to_be_bytes());
        assert_eq!(found.map(|found| found.reason), case.want, "{}", case.name);
    }
}

const PORTS: Ports = Ports {
    wireguard: cases::PORT.to_be_bytes(),
    relay: cases::RELAY_PORT.to_be_bytes(),
    stun: cases::STUN_PORT.to_be_bytes(),
};

#[test]
fn an_underlay_packet_goes_to_the_program_it_is_for() {
    for case in cases::underlay() {
        let next = packet::next(&Bytes(&case.packet), &PORTS);
        assert_eq!(next.map(|(_, next)| next), case.want, "{}", case.name);
        assert_eq!(packet::next(&Bytes(&case.packet), &Ports::default()), None, "off: {}", case.name);
    }
}

#[test]
fn a_datagram_cut_short_anywhere_is_the_stacks() {
    for case in cases::underlay() {
        for length in 0..case.packet.len() {
            let frame = Bytes(&case.packet[..length]);
            assert_eq!(packet::next(&frame, &PORTS), None, "{} at {length}", case.name);
        }
    }
}
