//! Two or three clients, in virtual time.

use proptest::prelude::*;
use wire::derp::Decoder;

use super::*;

fn key(n: u8) -> NodePublic {
    NodePublic::from_bytes([n; 32])
}

fn disco() -> Vec<u8> {
    [&wire::disco::MAGIC[..], &[0; 56]].concat()
}

struct Test {
    server: Server,
    now: Instant,
}

impl Test {
    fn new(config: Config) -> Self {
        Self { server: Server::new(config), now: Instant::now() }
    }

    fn admit(&mut self, n: u8) -> ConnectionId {
        self.server.admit(key(n), Duration::ZERO, self.now)
    }

    fn handle(&mut self, id: ConnectionId, frame: &Frame<'_>) -> Result<Option<Instant>, Violation> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.server.handle_frame(id, frame, bytes.len() - wire::derp::HEADER_LEN, self.now)
    }

    fn send(&mut self, from: ConnectionId, to: u8, packet: &[u8]) {
        self.handle(from, &Frame::SendPacket { destination: key(to), packet }).unwrap();
    }

    /// What a client would read now, as text.
    fn read(&mut self, id: ConnectionId) -> Vec<String> {
        let mut out = Vec::new();
        while self.server.poll_transmit(id, 1 << 20, &mut out) {}
        let mut decoder = Decoder::new(1 << 20);
        decoder.push(&out);
        let mut seen = Vec::new();
        while let Some((frame, _)) = decoder.next_frame().unwrap() {
            seen.push(match frame {
                Frame::RecvPacket { source, packet } => format!("{}: {packet:?}", source.as_bytes()[0]),
                Frame::PeerGone { peer, reason } => format!("{} gone: {reason:?}", peer.as_bytes()[0]),
                Frame::Health(problem) => format!("health {}", !problem.is_empty()),
                other => format!("{other:?}"),
            });
        }
        seen
    }

    fn woken(&mut self) -> Vec<ConnectionId> {
        std::iter::from_fn(|| self.server.poll_wake()).collect()
    }
}

#[test]
fn two_clients_exchange_packets() {
    let mut test = Test::new(Config::default());
    let (a, b) = (test.admit(1), test.admit(2));
    test.send(a, 2, b"hi");
    test.send(a, 2, b"again");
    assert_eq!(test.woken(), [b], "a reader is named once until it has read");
    assert_eq!(test.read(b), ["1: [104, 105]", "1: [97, 103, 97, 105, 110]"]);
    test.send(b, 1, b"yo");
    assert_eq!(test.woken(), [a]);
    assert_eq!(test.read(a), ["2: [121, 111]"]);
    let counters = test.server.counters();
    assert_eq!((counters.packets_received, counters.packets_sent, counters.bytes_sent), (3, 3, 9));
}

#[test]
fn a_slow_reader_loses_the_oldest_and_it_is_counted() {
    let mut test = Test::new(Config { queue_packets: 2, rate: None });
    let (a, b) = (test.admit(1), test.admit(2));
    for n in 0..5 {
        test.send(a, 2, &[n]);
    }
    assert_eq!(test.read(b), ["1: [3]", "1: [4]"]);
    assert_eq!(test.server.counters().dropped(DropReason::QueueHead, PacketKind::Data), 3);
    test.send(a, 2, &[9]);
    test.server.remove(b);
    assert_eq!(test.server.counters().dropped(DropReason::Disconnected, PacketKind::Data), 1);
}

#[test]
fn who_got_packets_of_a_peer_hears_that_it_is_gone() {
    let mut test = Test::new(Config::default());
    let (a, b, c) = (test.admit(1), test.admit(2), test.admit(3));
    test.send(a, 2, b"x");
    assert_eq!(test.read(b).len(), 1);
    test.server.remove(a);
    assert_eq!(test.read(b), ["1 gone: Disconnected"]);
    assert_eq!(test.read(c), [""; 0], "who never heard of it is not told");
    // It comes back and goes again: told again.
    let a = test.admit(1);
    test.send(a, 2, b"x");
    test.server.remove(a);
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
    test.server.remove(old);
    test.send(peer, 1, b"c");
    assert_eq!(test.read(new).len(), 1);
    assert_eq!(test.server.counters().duplicate_keys, 0);
    assert_eq!(test.read(peer), [""; 0], "the key was never gone");
}

#[test]
fn a_key_has_a_quota_of_connections_and_the_longest_silent_goes() {
    let mut test = Test::new(Config::default());
    let ids: Vec<_> = (0..MAX_CONNECTIONS_OF_A_KEY).map(|_| test.admit(1)).collect();
    assert_eq!(test.server.poll_close(), None);
    test.handle(ids[0], &Frame::NotePreferred(true)).unwrap();
    test.admit(1);
    assert_eq!(test.server.poll_close(), Some(ids[1]));
    assert_eq!(test.server.poll_close(), None);
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
    test.server.remove(one);
    assert_eq!(test.read(two), ["health false"]);
}

#[test]
fn pings_are_echoed_and_keep_alives_come_in_time() {
    let mut test = Test::new(Config::default());
    let a = test.server.admit(key(1), Duration::from_secs(3), test.now);
    test.handle(a, &Frame::Ping(*b"12345678")).unwrap();
    assert_eq!(test.read(a), ["Pong([49, 50, 51, 52, 53, 54, 55, 56])"]);
    let due = test.server.poll_timeout(a).unwrap();
    assert_eq!(due, test.now + Duration::from_secs(63));
    test.server.handle_timeout(a, due - Duration::from_millis(1));
    assert_eq!(test.read(a), [""; 0]);
    test.server.handle_timeout(a, due);
    assert_eq!(test.read(a), ["KeepAlive"]);
    assert_eq!(test.server.poll_timeout(a), Some(due + Duration::from_secs(63)));
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
    assert!(until <= test.now + Duration::from_millis(1));
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
    test.server.remove(a);
    assert_eq!(test.handle(a, &Frame::KeepAlive), Err(Violation::Closed));
}

proptest! {
    /// Whatever clients do, gauges match what is connected, queues stay bounded and nothing leaks when all have left.
    #[test]
    fn any_sequence_keeps_the_books(steps in proptest::collection::vec((0u8..5, 0u8..4, 0u8..4), 1..200)) {
        let mut test = Test::new(Config { queue_packets: 4, rate: None });
        let mut alive: Vec<ConnectionId> = Vec::new();
        for (step, x, y) in steps {
            let chosen = alive.get(usize::from(x)).copied();
            match (step, chosen) {
                (0, _) => alive.push(test.admit(y)),
                (1, Some(id)) => { test.server.remove(id); alive.retain(|other| *other != id); }
                (2, Some(id)) => test.send(id, y, &disco()),
                (3, Some(id)) => test.send(id, y, b"data"),
                (4, Some(id)) => { test.read(id); }
                _ => {}
            }
            let counters = test.server.counters();
            prop_assert_eq!(counters.connections as usize, alive.len());
            for id in &alive {
                let waiting = test.server.connections[id].outbox.waiting();
                prop_assert!(waiting.iter().all(|(_, count)| *count <= 4));
            }
        }
        for id in alive { test.server.remove(id); }
        let counters = test.server.counters();
        prop_assert_eq!((counters.connections, counters.homes, counters.duplicate_keys), (0, 0, 0));
        prop_assert_eq!(counters.packets_received, counters.packets_sent + counters.dropped_total());
        prop_assert!(test.server.clients.is_empty() && test.server.listeners_by_source.is_empty());
    }
}
