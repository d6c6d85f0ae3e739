//! Frames against bytes written down from tailscale's `derp/derp.go`, and properties of the decoder.

use std::time::Duration;

use proptest::prelude::*;
use types::{NodePrivate, NodePublic};

use super::*;
use crate::nacl::SharedBox;

fn key(byte: u8) -> NodePublic {
    NodePublic::from_bytes([byte; 32])
}

fn golden() -> Vec<(String, Frame<'static>)> {
    let (a, b) = ("aa".repeat(32), "bb".repeat(32));
    let mapped = "00000000000000000000ffffc00002010d96";
    let address = Some("192.0.2.1:3478".parse().unwrap());
    let flags = PresentFlags(PresentFlags::REGULAR | PresentFlags::NOT_IDEAL);
    vec![
        (format!("0100000028 44455250f09f9491 {a}"), Frame::ServerKey(key(0xaa))),
        (format!("0200000022 {a} 0102"), Frame::ClientInfo { key: key(0xaa), sealed: &[1, 2] }),
        ("0300000002 0102".into(), Frame::ServerInfo { sealed: &[1, 2] }),
        (format!("0400000023 {a} 010203"), Frame::SendPacket { destination: key(0xaa), packet: &[1, 2, 3] }),
        (format!("0500000020 {a}"), Frame::RecvPacket { source: key(0xaa), packet: &[] }),
        ("0600000000".into(), Frame::KeepAlive),
        ("0700000001 01".into(), Frame::NotePreferred(true)),
        ("0700000001 00".into(), Frame::NotePreferred(false)),
        (format!("0800000021 {a} 00"), Frame::PeerGone { peer: key(0xaa), reason: GoneReason::Disconnected }),
        (format!("0800000021 {a} 01"), Frame::PeerGone { peer: key(0xaa), reason: GoneReason::NotHere }),
        (format!("0900000033 {a} {mapped} 09"), Frame::PeerPresent { peer: key(0xaa), address, flags }),
        (
            format!("0a00000041 {a} {b} 07"),
            Frame::ForwardPacket { source: key(0xaa), destination: key(0xbb), packet: &[7] },
        ),
        ("1000000000".into(), Frame::WatchConns),
        (format!("1100000020 {a}"), Frame::ClosePeer(key(0xaa))),
        ("1200000008 0102030405060708".into(), Frame::Ping([1, 2, 3, 4, 5, 6, 7, 8])),
        ("1300000008 0102030405060708".into(), Frame::Pong([1, 2, 3, 4, 5, 6, 7, 8])),
        ("1400000003 627567".into(), Frame::Health("bug".into())),
        (
            "1500000008 000003e8 00001388".into(),
            Frame::Restarting { reconnect_in: Duration::from_secs(1), try_for: Duration::from_secs(5) },
        ),
        ("7f00000000".into(), Frame::Unknown(0x7f)),
    ]
}

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.replace(' ', "")).unwrap()
}

#[test]
fn every_frame_matches_its_bytes_both_ways() {
    for (hex, frame) in golden() {
        let mut out = Vec::new();
        frame.encode(&mut out);
        assert_eq!(out, bytes(&hex), "{frame:?}");
        assert_eq!(Frame::decode(out[0], &out[HEADER_LEN..]), Ok(frame));
    }
}

#[test]
fn bodies_cut_anywhere_never_panic_and_longer_ones_are_accepted() {
    for (hex, frame) in golden() {
        let frame_bytes = bytes(&hex);
        for cut in HEADER_LEN..frame_bytes.len() {
            let _ = Frame::decode(frame_bytes[0], &frame_bytes[HEADER_LEN..cut]);
        }
        let longer = [&frame_bytes[HEADER_LEN..], &[0; 3]].concat();
        assert!(Frame::decode(frame_bytes[0], &longer).is_ok(), "{frame:?}");
    }
    assert_eq!(Frame::decode(0x12, &[1, 2]), Err(Error::Short("ping")));
    assert_eq!(Frame::decode(0x01, b"HTTP/1.1 404 Not Found"), Err(Error::Magic));
    // Old servers: no reason, no address, no flags.
    let gone = Frame::PeerGone { peer: key(1), reason: GoneReason::Disconnected };
    assert_eq!(Frame::decode(0x08, &[1; 32]), Ok(gone));
    let present = Frame::PeerPresent { peer: key(1), address: None, flags: PresentFlags::default() };
    assert_eq!(Frame::decode(0x09, &[1; 32]), Ok(present));
}

#[test]
fn a_frame_over_the_limit_is_refused_before_it_is_buffered() {
    let mut decoder = Decoder::new(100);
    decoder.push(&[4, 0, 0, 0, 101]);
    assert_eq!(decoder.next_frame(), Err(Error::TooLong { kind: 4, length: 101, limit: 100 }));
}

#[test]
fn a_malformed_frame_leaves_the_stream_in_step() {
    let mut decoder = Decoder::new(100);
    decoder.push(&bytes("1200000001 00 0600000000"));
    assert_eq!(decoder.next_frame(), Err(Error::Short("ping")));
    assert_eq!(decoder.next_frame(), Ok(Some((Frame::KeepAlive, 0))));
    assert_eq!(decoder.next_frame(), Ok(None));
}

#[test]
fn infos_travel_sealed_with_gos_names() {
    let (client, server) = (NodePrivate::from_random([1; 32]), NodePrivate::from_random([2; 32]));
    let (up, down) = (SharedBox::node(&client, &server.public()), SharedBox::node(&server, &client.public()));
    let info = ClientInfo::node("underpass");
    let sealed = info.seal(&up, [3; 24]);
    assert_eq!(down.open(&sealed).unwrap(), br#"{"version":2,"CanAckPings":true,"AppName":"underpass"}"#);
    assert!(ClientInfo::open(&down, &sealed) == Ok(info));
    assert_eq!(ClientInfo::open(&down, &sealed[1..]).err(), Some(Error::Sealed));
    let mut bad = Vec::new();
    up.seal([4; 24], b"[]]", &mut bad);
    assert!(matches!(ClientInfo::open(&down, &bad), Err(Error::Info(_))));

    let info = ServerInfo { version: 2, bytes_per_second: 1000, bytes_burst: 0 };
    let sealed = info.seal(&down, [5; 24]);
    assert_eq!(up.open(&sealed).unwrap(), br#"{"version":2,"TokenBucketBytesPerSecond":1000}"#);
    assert_eq!(ServerInfo::open(&up, &sealed), Ok(info));
}

proptest! {
    #[test]
    fn a_stream_cut_anywhere_gives_the_same_frames(cuts in proptest::collection::vec(1usize..40, 1..40)) {
        let golden = golden();
        let stream: Vec<u8> = golden.iter().flat_map(|(hex, _)| bytes(hex)).collect();
        let mut decoder = Decoder::new(MAX_BODY_CLIENT);
        let (mut rest, mut seen) = (&stream[..], 0);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (piece, later) = rest.split_at((*cut).min(rest.len()));
            decoder.push(piece);
            rest = later;
            while let Some((frame, _)) = decoder.next_frame().unwrap() {
                prop_assert_eq!(&frame, &golden[seen].1);
                seen += 1;
            }
        }
        prop_assert_eq!(seen, golden.len());
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut decoder = Decoder::new(200);
        decoder.push(&bytes);
        loop {
            match decoder.next_frame() {
                Ok(None) | Err(Error::TooLong { .. }) => break,
                Ok(Some(_)) | Err(_) => {}
            }
        }
    }
}
