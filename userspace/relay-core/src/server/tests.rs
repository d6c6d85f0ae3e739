//! Two or three clients, in virtual time.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use wire::derp::{Decoder, Frame};

use super::*;
use crate::registry::MAX_CONNECTIONS_OF_A_KEY;
use crate::{DropReason, PacketKind};

type Id = usize;

fn key(n: u8) -> NodePublic {
    NodePublic::from_bytes([n; 32])
}

fn disco() -> Vec<u8> {
    [&wire::disco::MAGIC[..], &[0; 56]].concat()
}

fn encoded(frame: &Frame<'_>) -> BytesMut {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    BytesMut::from(&bytes[..])
}

/// What a client would read, as text.
fn texts(out: &VecDeque<Bytes>) -> Vec<String> {
    let mut decoder = Decoder::new(1 << 20);
    out.iter().for_each(|bytes| decoder.push(bytes));
    let mut seen = Vec::new();
    while let Some((frame, _)) = decoder.next_frame().unwrap() {
        seen.push(match frame {
            Frame::RecvPacket { source, packet } => format!("{}: {packet:?}", source.as_bytes()[0]),
            Frame::ForwardPacket { source, destination, packet } => {
                format!("{} to {}: {packet:?}", source.as_bytes()[0], destination.as_bytes()[0])
            }
            Frame::PeerPresent { peer, flags, .. } => {
                format!("{} present: {}", peer.as_bytes()[0], flags.0)
            }
            Frame::PeerGone { peer, reason } => format!("{} gone: {reason:?}", peer.as_bytes()[0]),
            Frame::Health(problem) => format!("health {}", !problem.is_empty()),
            other => format!("{other:?}"),
        });
    }
    seen
}

struct Test {
    server: Arc<Server>,
    links: BTreeMap<Id, Link>,
    next: Id,
    now: Instant,
}

impl Test {
    fn new(config: Config) -> Self {
        Self { server: Server::new(config), links: BTreeMap::new(), next: 0, now: Instant::now() }
    }

    fn admit(&mut self, n: u8) -> Id {
        self.admit_as(Admission::client(key(n)), Duration::ZERO)
    }

    fn admit_as(&mut self, admission: Admission, jitter: Duration) -> Id {
        let admission = Admission { address: "192.0.2.1:7".parse().ok(), ..admission };
        let link = self.server.admit(admission, jitter, self.now);
        self.next += 1;
        self.links.insert(self.next, link);
        self.next
    }

    fn link(&mut self, id: Id) -> &mut Link {
        self.links.get_mut(&id).expect("connected")
    }

    fn remove(&mut self, id: Id) {
        self.links.remove(&id);
    }

    fn handle(&mut self, id: Id, frame: &Frame<'_>) -> Result<Option<Instant>, Violation> {
        let now = self.now;
        self.link(id).receive(&mut encoded(frame), now)
    }

    fn send(&mut self, from: Id, to: u8, packet: &[u8]) {
        self.handle(from, &Frame::SendPacket { destination: key(to), packet }).unwrap();
    }

    /// What a client would read now, as text.
    fn read(&mut self, id: Id) -> Vec<String> {
        let mut out = VecDeque::new();
        while self.link(id).transmit(1 << 20, &mut out) {}
        texts(&out)
    }
}

#[test]
fn two_clients_exchange_packets() {
    let mut test = Test::new(Config::default());
    let (a, b) = (test.admit(1), test.admit(2));
    test.send(a, 2, b"hi");
    test.send(a, 2, b"again");
    assert_eq!(test.read(b), ["1: [104, 105]", "1: [97, 103, 97, 105, 110]"]);
    test.send(b, 1, b"yo");
    assert_eq!(test.read(a), ["2: [121, 111]"]);
    let counters = test.server.counters();
    assert_eq!((counters.packets_received, counters.packets_sent, counters.bytes_sent), (3, 3, 9));
}

#[test]
fn a_slow_reader_loses_the_oldest_and_it_is_counted() {
    // A packet of one byte with its header, its key and what its entry costs.
    let mut test = Test::new(Config { queue_bytes: 2 * (38 + 64), rate: None });
    let (a, b) = (test.admit(1), test.admit(2));
    for n in 0..5 {
        test.send(a, 2, &[n]);
    }
    assert_eq!(test.read(b), ["1: [3]", "1: [4]"]);
    assert_eq!(test.server.counters().dropped(DropReason::QueueHead, PacketKind::Data), 3);
    test.send(a, 2, &[9]);
    test.remove(b);
    assert_eq!(test.server.counters().dropped(DropReason::Disconnected, PacketKind::Data), 1);
}

#[test]
fn who_got_packets_of_a_peer_hears_that_it_is_gone() {
    let mut test = Test::new(Config::default());
    let (a, b, c) = (test.admit(1), test.admit(2), test.admit(3));
    test.send(a, 2, b"x");
    assert_eq!(test.read(b).len(), 1);
    test.remove(a);
    assert_eq!(test.read(b), ["1 gone: Disconnected"]);
    assert_eq!(test.read(c), [""; 0], "who never heard of it is not told");
    // It comes back and goes again: told again.
    let a = test.admit(1);
    test.send(a, 2, b"x");
    test.remove(a);
    assert_eq!(test.read(b), ["1 gone: Disconnected", "1: [120]"]);
}

#[test]
fn disco_to_an_absent_peer_is_answered_but_not_faster_than_the_rate() {
    let mut test = Test::new(Config::default());
    let a = test.admit(1);
    test.send(a, 9, b"data is dropped silently");
    assert_eq!(test.read(a), [""; 0]);
    for _ in 0..5 {
        test.send(a, 9, &disco());
    }
    assert_eq!(test.read(a), ["9 gone: NotHere"; 3]);
    test.now += Duration::from_secs(1);
    test.send(a, 9, &disco());
    assert_eq!(test.read(a), ["9 gone: NotHere"]);
    let counters = test.server.counters();
    assert_eq!(counters.dropped(DropReason::UnknownDestination, PacketKind::Disco), 6);
    assert_eq!(counters.dropped(DropReason::UnknownDestination, PacketKind::Data), 1);
}

#[test]
fn of_two_connections_with_one_key_the_last_to_speak_gets_the_packets() {
    let mut test = Test::new(Config::default());
    let (old, new, peer) = (test.admit(1), test.admit(1), test.admit(2));
    assert_eq!(test.server.counters().duplicate_keys, 1);
    test.send(peer, 1, b"a");
    assert_eq!((test.read(old).len(), test.read(new).len()), (0, 1), "the newest is active");
    test.handle(old, &Frame::NotePreferred(true)).unwrap();
    test.send(peer, 1, b"b");
    assert_eq!((test.read(old).len(), test.read(new).len()), (1, 0), "until another speaks");
    test.remove(old);
    test.send(peer, 1, b"c");
    assert_eq!(test.read(new).len(), 1);
    assert_eq!(test.server.counters().duplicate_keys, 0);
    assert_eq!(test.read(peer), [""; 0], "the key was never gone");
}

#[test]
fn a_key_has_a_quota_of_connections_and_the_longest_silent_goes() {
    let mut test = Test::new(Config::default());
    let ids: Vec<_> = (0..MAX_CONNECTIONS_OF_A_KEY).map(|_| test.admit(1)).collect();
    let closing = |test: &Test| -> Vec<Id> {
        test.links.iter().filter(|(_, link)| link.is_closing()).map(|(id, _)| *id).collect()
    };
    assert!(closing(&test).is_empty());
    test.handle(ids[0], &Frame::NotePreferred(true)).unwrap();
    test.admit(1);
    assert_eq!(closing(&test), [ids[1]]);
}

#[test]
fn machines_fighting_for_a_key_are_told_and_told_again_when_it_is_over() {
    let mut test = Test::new(Config::default());
    let (one, two) = (test.admit(1), test.admit(1));
    for _ in 0..4 {
        test.handle(one, &Frame::NotePreferred(true)).unwrap();
        test.handle(two, &Frame::NotePreferred(true)).unwrap();
    }
    assert_eq!(test.read(one), ["health true"]);
    assert_eq!(test.read(two), ["health true"]);
    test.remove(one);
    assert_eq!(test.read(two), ["health false"]);
}

#[test]
fn pings_are_echoed_and_keep_alives_come_in_time() {
    let mut test = Test::new(Config::default());
    let a = test.admit_as(Admission::client(key(1)), Duration::from_secs(3));
    test.handle(a, &Frame::Ping(*b"12345678")).unwrap();
    assert_eq!(test.read(a), ["Pong([49, 50, 51, 52, 53, 54, 55, 56])"]);
    let due = test.link(a).poll_timeout();
    assert_eq!(due, test.now + Duration::from_secs(63));
    test.link(a).handle_timeout(due - Duration::from_millis(1));
    assert_eq!(test.read(a), [""; 0]);
    test.link(a).handle_timeout(due);
    assert_eq!(test.read(a), ["KeepAlive"]);
    assert_eq!(test.link(a).poll_timeout(), due + Duration::from_secs(63));
    test.server.announce_restart(Duration::from_secs(1), Duration::from_secs(5));
    assert_eq!(test.read(a), ["Restarting { reconnect_in: 1s, try_for: 5s }"]);
}

#[test]
fn a_client_over_its_rate_is_not_read_for_a_while() {
    let rate = Some(Rate { per_second: 10_000, burst: 1 });
    let mut test = Test::new(Config { rate, ..Config::default() });
    let (a, _b) = (test.admit(1), test.admit(2));
    // The burst was raised to the longest frame, which passes.
    let longest = vec![0; MAX_PACKET];
    let frame = Frame::SendPacket { destination: key(2), packet: &longest };
    assert_eq!(test.handle(a, &frame), Ok(None));
    let until = test.handle(a, &Frame::Ping([0; 8])).unwrap().unwrap();
    assert!(until <= test.now + Duration::from_millis(2));
    let until = test.handle(a, &frame).unwrap().unwrap();
    assert!(until > test.now + Duration::from_secs(6));
    assert_eq!(test.server.counters().rate_waits, 2);
}

#[test]
fn frames_of_servers_end_the_connection_and_unknown_ones_do_not() {
    let mut test = Test::new(Config::default());
    let a = test.admit(1);
    assert_eq!(test.handle(a, &Frame::WatchConns), Err(Violation::Privilege));
    assert_eq!(test.handle(a, &Frame::ClosePeer(key(2))), Err(Violation::Privilege));
    let forward = Frame::ForwardPacket { source: key(1), destination: key(2), packet: &[] };
    assert_eq!(test.handle(a, &forward), Err(Violation::Privilege));
    let packet = vec![0; MAX_PACKET + 1];
    let long = Frame::SendPacket { destination: key(1), packet: &packet };
    assert_eq!(test.handle(a, &long), Err(Violation::PacketTooLong(MAX_PACKET + 1)));
    assert_eq!(test.handle(a, &Frame::Unknown(0x7f)), Ok(None));
    assert_eq!(test.handle(a, &Frame::KeepAlive), Ok(None));
    assert_eq!(test.server.counters().unknown_frames, 2);
}

#[test]
fn a_read_of_many_frames_is_forwarded_in_order_and_the_rest_of_one_stays() {
    let mut test = Test::new(Config::default());
    let (a, b, c) = (test.admit(1), test.admit(2), test.admit(3));
    let mut received = BytesMut::new();
    let long = vec![7; 3000];
    for (to, packet) in [(2, &b"x"[..]), (2, &long), (3, b"y"), (2, &disco()), (2, b"z")] {
        received.extend_from_slice(&encoded(&Frame::SendPacket { destination: key(to), packet }));
    }
    received.extend_from_slice(&encoded(&Frame::Ping([1; 8])));
    let cut = received.split_off(received.len() - 3);
    let now = test.now;
    test.link(a).receive(&mut received, now).unwrap();
    assert_eq!(received.len(), 10, "the ping is not whole yet");
    let seen = test.read(b);
    assert_eq!(seen.len(), 4);
    assert!(seen[0].starts_with("1: [84, 83, 240"), "DISCO overtakes: {}", seen[0]);
    assert_eq!((seen[1].as_str(), seen[2].len(), seen[3].as_str()), ("1: [120]", 9003, "1: [122]"));
    assert_eq!(test.read(c), ["1: [121]"]);
    assert_eq!(test.read(a), [""; 0]);
    received.unsplit(cut);
    test.link(a).receive(&mut received, now).unwrap();
    assert_eq!(test.read(a), ["Pong([1, 1, 1, 1, 1, 1, 1, 1])"]);
}

/// Two servers of a region; what one has for the other is carried over by hand.
struct Pair {
    near: Test,
    far: Test,
    /// The near server's connection to the far one.
    uplink: Uplink,
    /// The same at the far server.
    downlink: Id,
}

impl Pair {
    fn new() -> Self {
        let (near, mut far) = (Test::new(Config::default()), Test::new(Config::default()));
        let uplink = near.server.add_uplink();
        let downlink = far.admit_as(Admission { mesh: true, ..Admission::client(key(200)) }, Duration::ZERO);
        far.handle(downlink, &Frame::WatchConns).unwrap();
        Self { near, far, uplink, downlink }
    }

    /// What the far server tells, as text.
    fn tell(&mut self) -> Vec<String> {
        let mut out = VecDeque::new();
        self.far.link(self.downlink).transmit(1 << 20, &mut out);
        for bytes in &out {
            match Frame::decode(bytes[0], &bytes[5..]).unwrap() {
                Frame::PeerPresent { peer, .. } => self.uplink.present(peer),
                Frame::PeerGone { peer, .. } => self.uplink.gone(peer),
                _ => {}
            }
        }
        texts(&out)
    }

    /// Carries what the near server has for the far one, as text.
    fn carry(&mut self) -> Vec<String> {
        let mut out = VecDeque::new();
        self.uplink.transmit(1 << 20, &mut out);
        let now = self.far.now;
        for bytes in &out {
            self.far.link(self.downlink).receive(&mut BytesMut::from(&bytes[..]), now).unwrap();
        }
        texts(&out)
    }
}

#[test]
fn a_client_of_another_server_is_reached_once_that_server_told_of_it() {
    let mut pair = Pair::new();
    let a = pair.near.admit(1);
    let b = pair.far.admit(2);
    assert_eq!(pair.tell(), ["200 present: 2", "2 present: 1"], "flags: a server, a client");
    pair.near.send(a, 2, b"hi");
    pair.near.send(a, 2, b"yo");
    assert_eq!(pair.carry(), ["1 to 2: [104, 105]", "1 to 2: [121, 111]"]);
    assert_eq!(pair.far.read(b), ["1: [104, 105]", "1: [121, 111]"]);
    // It moves to our server: the remembered way is not taken any more.
    let moved = pair.near.admit(2);
    pair.near.send(a, 2, b"!");
    assert_eq!((pair.carry(), pair.near.read(moved)), (vec![], vec!["1: [33]".to_owned()]));
    pair.near.remove(moved);
    pair.near.send(a, 2, b"?");
    assert_eq!(pair.carry().len(), 1, "it is still at the other");
    let counters = (pair.near.server.counters(), pair.far.server.counters());
    assert_eq!((counters.0.forwarded_out, counters.1.forwarded_in), (3, 3));
}

#[test]
fn who_heard_of_a_client_of_another_server_is_told_when_it_or_that_server_goes() {
    let mut pair = Pair::new();
    let a = pair.near.admit(1);
    let b = pair.far.admit(2);
    pair.tell();
    // b's packets come to a by a's server.
    let source = pair.near.admit_as(Admission { mesh: true, ..Admission::client(key(201)) }, Duration::ZERO);
    let forward = Frame::ForwardPacket { source: key(2), destination: key(1), packet: b"x" };
    pair.near.handle(source, &forward).unwrap();
    assert_eq!(pair.near.read(a), ["2: [120]"]);
    pair.far.remove(b);
    assert_eq!(pair.tell(), ["2 gone: Disconnected"]);
    assert_eq!(pair.near.read(a), ["2 gone: Disconnected"]);
    pair.near.send(a, 2, &disco());
    assert_eq!(pair.near.read(a), ["2 gone: NotHere"]);
    // Back, heard again, and then the whole server is lost.
    pair.far.admit(2);
    pair.tell();
    pair.near.handle(source, &forward).unwrap();
    let Pair { mut near, uplink, .. } = pair;
    drop(uplink);
    assert_eq!(near.read(a), ["2 gone: Disconnected", "2: [120]"]);
}

#[test]
fn a_packet_is_handed_on_once_at_most_and_another_server_may_end_a_client() {
    let mut pair = Pair::new();
    pair.far.admit(2);
    pair.tell();
    let mesh = pair.near.admit_as(Admission { mesh: true, ..Admission::client(key(201)) }, Duration::ZERO);
    let forward = Frame::ForwardPacket { source: key(9), destination: key(2), packet: b"x" };
    pair.near.handle(mesh, &forward).unwrap();
    assert_eq!(pair.carry(), [""; 0], "no way round in circles");
    assert_eq!(pair.near.server.counters().dropped(DropReason::UnknownDestination, PacketKind::Data), 1);
    let a = pair.near.admit(1);
    pair.near.handle(mesh, &Frame::ClosePeer(key(1))).unwrap();
    assert!(pair.near.link(a).is_closing());
}

proptest! {
    /// Whatever clients do, gauges match what is connected, queues stay bounded and nothing leaks when all have left.
    #[test]
    fn any_sequence_keeps_the_books(steps in proptest::collection::vec((0u8..5, 0u8..4, 0u8..4), 1..200)) {
        let limit = 4 * 200;
        let mut test = Test::new(Config { queue_bytes: limit, rate: None });
        let mut alive: Vec<Id> = Vec::new();
        for (step, x, y) in steps {
            let chosen = alive.get(usize::from(x)).copied();
            match (step, chosen) {
                (0, _) => alive.push(test.admit(y)),
                (1, Some(id)) => { test.remove(id); alive.retain(|other| *other != id); }
                (2, Some(id)) => test.send(id, y, &disco()),
                (3, Some(id)) => test.send(id, y, b"data"),
                (4, Some(id)) => { test.read(id); }
                _ => {}
            }
            let counters = test.server.counters();
            prop_assert_eq!(counters.connections as usize, alive.len());
            prop_assert!(test.links.values().all(|link| link.mailbox().waiting_bytes() <= limit));
        }
        test.links.clear();
        let counters = test.server.counters();
        prop_assert_eq!((counters.connections, counters.homes, counters.duplicate_keys), (0, 0, 0));
        prop_assert_eq!(counters.packets_received, counters.packets_sent + counters.dropped_total());
        prop_assert!(test.server.registry().is_empty());
    }
}
