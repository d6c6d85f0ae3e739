//! Golden bytes of tailscale's `disco/disco_test.go`, and properties.

use std::time::Duration;

use proptest::prelude::*;
use types::{DiscoPrivate, DiscoPublic, NodePublic};

use super::*;
use crate::nacl::SharedBox;

const TX: TxId = TxId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
const TX_HEX: &str = "0102030405060708090a0b0c";
const KEY_HEX: &str = "0001020000000000000000000000000000000000000000000000000000001e1f";
const KEY_3_HEX: &str = "0001020300000000000000000000000000000000000000000000000000001e1f";
const KEY_4_HEX: &str = "0001020004000000000000000000000000000000000000000000000000001e1f";
const ENDPOINTS_HEX: &str = "00000000000000000000ffff01020304023720010000000000000000000000003456\
    0315";
const CHALLENGE_HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn key(hex: &str) -> [u8; 32] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

fn endpoints() -> Vec<std::net::SocketAddr> {
    vec!["1.2.3.4:567".parse().unwrap(), "[2001::3456]:789".parse().unwrap()]
}

fn relay_endpoint() -> RelayEndpoint {
    RelayEndpoint {
        server: DiscoPublic::from_bytes(key(KEY_HEX)),
        clients: [DiscoPublic::from_bytes(key(KEY_3_HEX)), DiscoPublic::from_bytes(key(KEY_4_HEX))],
        lamport_id: 123,
        vni: 456,
        bind_lifetime: Duration::from_secs(1),
        steady_state_lifetime: Duration::from_secs(60),
        addresses: endpoints(),
    }
}

fn bind() -> Bind {
    Bind {
        vni: 1,
        generation: 2,
        remote: DiscoPublic::from_bytes(key(KEY_HEX)),
        challenge: key(CHALLENGE_HEX),
    }
}

fn golden() -> Vec<(String, Message)> {
    let ping = |node_key, padding| Message::Ping(Ping { tx_id: TX, node_key, padding });
    let node_key = Some(NodePublic::from_bytes(key(KEY_HEX)));
    let pong = |source: &str| Message::Pong(Pong { tx_id: TX, source: source.parse().unwrap() });
    let bind_hex = format!("000000000100000002{KEY_HEX}{CHALLENGE_HEX}");
    let relay_hex = format!(
        "{KEY_HEX}{KEY_3_HEX}{KEY_4_HEX}000000000000007b000001c8000000003b9aca000000000df8475800{ENDPOINTS_HEX}"
    );
    vec![
        (format!("0100{TX_HEX}"), ping(None, 0)),
        (format!("0100{TX_HEX}{KEY_HEX}"), ping(node_key, 0)),
        (format!("0100{TX_HEX}000000"), ping(None, 3)),
        (format!("0100{TX_HEX}{KEY_HEX}000000"), ping(node_key, 3)),
        (format!("0200{TX_HEX}00000000000000000000ffff0203040504d2"), pong("2.3.4.5:1234")),
        (format!("0200{TX_HEX}fed000000000000000000000000000121a0a"), pong("[fed0::12]:6666")),
        ("0300".into(), Message::CallMeMaybe(CallMeMaybe { endpoints: vec![] })),
        (format!("0300{ENDPOINTS_HEX}"), Message::CallMeMaybe(CallMeMaybe { endpoints: endpoints() })),
        (format!("04{}", &bind_hex), Message::Bind(bind())),
        (format!("05{}", &bind_hex), Message::BindChallenge(bind())),
        (format!("06{}", &bind_hex), Message::BindAnswer(bind())),
        (format!("0700{relay_hex}"), Message::CallMeMaybeVia(CallMeMaybeVia(relay_endpoint()))),
        (
            format!("0800{KEY_3_HEX}{KEY_4_HEX}00000001"),
            Message::AllocateRequest(AllocateRequest { clients: relay_endpoint().clients, generation: 1 }),
        ),
        (
            format!("090000000001{relay_hex}"),
            Message::AllocateResponse(AllocateResponse { generation: 1, endpoint: relay_endpoint() }),
        ),
    ]
}

#[test]
fn every_message_matches_its_golden_bytes_both_ways() {
    for (hex, message) in golden() {
        assert_eq!(hex::encode(message.encode()), hex, "{message:?}");
        assert_eq!(Message::decode(&hex::decode(&hex).unwrap()), Ok(message));
    }
}

#[test]
fn a_cut_message_is_an_error_or_a_shorter_message() {
    for (_, message) in golden() {
        let bytes = message.encode();
        for cut in 0..bytes.len() {
            if let Ok(shorter) = Message::decode(&bytes[..cut]) {
                assert!(
                    matches!(
                        message,
                        Message::Ping(_)
                            | Message::CallMeMaybe(_)
                            | Message::CallMeMaybeVia(_)
                            | Message::AllocateResponse(_)
                    ),
                    "{message:?} cut at {cut}"
                );
                assert_ne!(shorter, message);
            }
        }
    }
}

#[test]
fn unknown_types_and_versions_are_named() {
    assert_eq!(Message::decode(&[0x2a, 0]), Err(Error::Type(0x2a)));
    assert!(matches!(Message::decode(&[7, 1]), Err(Error::Version(_, 1))));
    // An unreadable call-me-maybe still calls.
    let call = Message::CallMeMaybe(CallMeMaybe { endpoints: vec![] });
    assert_eq!(Message::decode(&[3, 1, 0]), Ok(call.clone()));
    assert_eq!(Message::decode(&[3, 0, 0]), Ok(call));
}

#[test]
fn envelopes_open_for_the_peer_only() {
    let (a, b) = (DiscoPrivate::from_random([1; 32]), DiscoPrivate::from_random([2; 32]));
    let (ours, theirs) = (SharedBox::disco(&a, &b.public()), SharedBox::disco(&b, &a.public()));
    let message = golden().swap_remove(3).1;
    let packet = seal(&a.public(), &ours, [7; 24], &message);
    assert!(looks_like_disco(&packet));
    assert_eq!(sender(&packet), Some(a.public()));
    assert_eq!(open(&theirs, &packet), Ok(message));
    for cut in 0..packet.len() {
        assert!(open(&theirs, &packet[..cut]).is_err());
    }
    let stranger = SharedBox::disco(&DiscoPrivate::from_random([3; 32]), &a.public());
    assert_eq!(open(&stranger, &packet), Err(Error::Sealed));
    assert_eq!(
        sender(b"\x01\x00\x00\x00 a WireGuard packet of sufficient length for an envelope of DISCO"),
        None
    );
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Message::decode(&bytes) {
            // Encoding what was understood gives the same message again.
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn call_me_maybe_round_trips(endpoints in proptest::collection::vec(any::<std::net::SocketAddr>(), 0..20)) {
        let endpoints = endpoints
            .into_iter()
            .map(|a| std::net::SocketAddr::new(a.ip().to_canonical(), a.port()))
            .collect();
        let message = Message::CallMeMaybe(CallMeMaybe { endpoints });
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
}
