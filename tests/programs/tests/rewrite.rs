//! What rewrites frames, on the host: the relay and the STUN answer. No root.

use std::cell::Cell;

use dataplane::Reason;
use packet::{answer, forward};
use programs::frame::EthernetFrame;
use programs::packets::{geneve, is_summed_up};
use programs::relay_cases::{self, RelayHost};
use programs::stun_cases::{self, StunHost};

#[test]
fn stun_requests_are_answered_as_our_server_answers_them() {
    let cases = stun_cases::stun();
    assert!(cases.len() >= 28);
    for case in cases {
        let stun = StunHost { dropping: case.dropping, tokens: Cell::new(1) };
        let mut frame = EthernetFrame(case.frame.clone());
        let reason = answer(&mut frame, &stun);
        assert_eq!(reason, case.want, "{}", case.name);
        assert_eq!(frame.0, case.answer.unwrap_or(case.frame), "{}", case.name);
    }
}

#[test]
fn a_source_beyond_its_rate_gets_no_answer() {
    let (client, us) = stun_cases::addresses()[0];
    let stun = StunHost { dropping: false, tokens: Cell::new(1) };
    for want in [Reason::StunAnswered, Reason::StunLimited] {
        assert_eq!(answer(&mut EthernetFrame(stun_cases::request(client, us)), &stun), want);
    }
}

#[test]
fn the_relay_treats_every_case_as_wanted() {
    for case in relay_cases::relay() {
        let mut frame = EthernetFrame(case.frame.clone());
        let reason = forward(&mut frame, &RelayHost::new()).err().unwrap_or(Reason::Relayed);
        assert_eq!(reason, case.want, "{}: {:02x?}", case.name, case.frame);
        assert_eq!(frame.0, case.sent.unwrap_or(case.frame), "{}", case.name);
    }
}

#[test]
fn a_wrong_header_checksum_is_not_repaired() {
    let [from, _] = relay_cases::sessions()[&1];
    let mut frame = relay_cases::from_client(&from, &geneve(0x7a12, 1, &[7; 64]));
    frame[24] ^= 0x10;
    let mut frame = EthernetFrame(frame);
    assert_eq!(forward(&mut frame, &RelayHost::new()), Ok(7));
    assert!(!is_summed_up(frame.packet()));
}

#[test]
fn every_truncation_is_left_to_the_stack_or_changes_nothing() {
    for (vni, [from, _]) in relay_cases::sessions() {
        let whole = relay_cases::from_client(&from, &geneve(0x7a12, vni, &[7; 64]));
        for length in 14..whole.len() {
            let mut frame = EthernetFrame(whole[..length].to_vec());
            assert_eq!(forward(&mut frame, &RelayHost::new()), Err(Reason::RelayOther), "{length}");
            assert_eq!(frame.0, whole[..length]);
        }
    }
    for (client, us) in stun_cases::addresses() {
        let whole = stun_cases::request(client, us);
        for length in 14..whole.len() {
            let stun = StunHost { dropping: false, tokens: Cell::new(1) };
            let mut frame = EthernetFrame(whole[..length].to_vec());
            assert_eq!(answer(&mut frame, &stun), Reason::StunOther, "{length}");
            assert_eq!(frame.0, whole[..length]);
        }
    }
}

/// Or the relay would allocate sessions that the programs have no place for.
#[test]
fn the_relay_and_the_kernel_have_as_many_places() {
    assert_eq!(relay_core::PLACES, abi::MAX_RELAY_SESSIONS);
}
