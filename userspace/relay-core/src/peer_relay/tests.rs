//! A relay and its clients in virtual time, and what attackers get: nothing.

use super::*;
use wire::disco::{Bind, Message};

const MOMENT: Duration = Duration::from_millis(20);

/// A client's end of the handshake.
struct Alice {
    key: DiscoPrivate,
    leg: Leg,
}

impl Alice {
    fn new(seed: u8, remote: &str) -> Self {
        let local = Some("198.51.100.1".parse().unwrap());
        Self {
            key: DiscoPrivate::from_random([seed; 32]),
            leg: Leg { remote: remote.parse().unwrap(), local },
        }
    }

    fn seal(&self, world: &World, vni: u32, message: &Message) -> Vec<u8> {
        let shared = SharedBox::disco(&self.key, &world.relay.public);
        let header = Header { control: true, protocol: Protocol::Disco, vni: Vni::new(vni).unwrap() };
        let sealed = wire::disco::seal(&self.key.public(), &shared, [7; 24], message);
        [&header.encode()[..], &sealed].concat()
    }

    fn bind(&self, world: &World, to: &Alice, vni: u32, generation: u32) -> Vec<u8> {
        let bind = Bind { vni, generation, remote: to.key.public(), challenge: [0; 32] };
        self.seal(world, vni, &Message::Bind(bind))
    }

    /// The answer to a challenge, which only this client can open.
    fn answer(&self, world: &World, reply: &Relayed) -> Vec<u8> {
        let Relayed::Reply(reply) = reply else { panic!("no challenge: {reply:?}") };
        let (header, packet) = Header::decode(reply).unwrap();
        assert!(header.control && header.protocol == Protocol::Disco);
        let shared = SharedBox::disco(&self.key, &world.relay.public);
        let Ok(Message::BindChallenge(bind)) = wire::disco::open(&shared, packet) else {
            panic!("no challenge")
        };
        self.seal(world, header.vni.get(), &Message::BindAnswer(bind))
    }
}

struct World {
    relay: PeerRelay,
    now: Instant,
    random: u8,
}

impl World {
    fn new(config: RelayConfig) -> Self {
        let mut relay = PeerRelay::new(config, DiscoPrivate::from_random([200; 32]));
        relay.set_addresses(vec!["198.51.100.1:7777".parse().unwrap()]);
        Self { relay, now: Instant::now(), random: 0 }
    }

    fn allocate(&mut self, a: &Alice, b: &Alice) -> u32 {
        self.relay.allocate(a.key.public(), [a.key.public(), b.key.public()], self.now).unwrap().vni
    }

    fn hand(&mut self, from: Leg, packet: &[u8]) -> Relayed {
        let random = &mut self.random;
        self.relay.handle_packet(from, packet, self.now, &mut || {
            *random += 1;
            [*random; 32]
        })
    }

    fn bind(&mut self, client: &Alice, to: &Alice, vni: u32, generation: u32) {
        let bind = client.bind(self, to, vni, generation);
        let challenge = self.hand(client.leg, &bind);
        let answer = client.answer(self, &challenge);
        assert_eq!(self.hand(client.leg, &answer), Relayed::Nothing);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.relay.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.relay.handle_timeout(at);
        }
        self.now = end;
    }

    /// What became of a packet: dropped for this reason and for no other.
    fn dropped(&mut self, from: Leg, packet: &[u8], reason: RelayDrop) {
        let before = self.relay.counters().clone();
        assert_eq!(self.hand(from, packet), Relayed::Nothing, "{reason}");
        let mut wanted = before;
        wanted.drop(reason);
        assert_eq!(*self.relay.counters(), wanted, "{reason}");
    }
}

fn data(vni: u32) -> Vec<u8> {
    let header = Header { control: false, protocol: Protocol::WireGuard, vni: Vni::new(vni).unwrap() };
    [&header.encode()[..], b"wireguard"].concat()
}

fn pair() -> (Alice, Alice) {
    (Alice::new(1, "192.0.2.1:1001"), Alice::new(2, "[2001:db8::2]:1002"))
}

fn bound() -> (World, Alice, Alice, u32) {
    let mut world = World::new(RelayConfig::default());
    let (a, b) = pair();
    let vni = world.allocate(&a, &b);
    world.bind(&a, &b, vni, 1);
    world.bind(&b, &a, vni, 9);
    (world, a, b, vni)
}

/// What happened, but for sessions that began to wait.
fn changes(world: &mut World) -> Vec<Change> {
    let all = std::iter::from_fn(|| world.relay.poll_change());
    all.filter(|change| !matches!(change, Change::Waiting(_))).collect()
}

#[test]
fn a_bound_pair_reaches_each_other_across_families_and_is_counted() {
    let (mut world, a, b, vni) = bound();
    assert_eq!(world.hand(a.leg, &data(vni)), Relayed::Forward(b.leg));
    assert_eq!(world.hand(b.leg, &data(vni)), Relayed::Forward(a.leg));
    assert_eq!(world.hand(b.leg, &data(vni)), Relayed::Forward(a.leg));
    let mapped = Leg { remote: "[::ffff:192.0.2.1]:1001".parse().unwrap(), ..a.leg };
    assert_eq!(world.hand(mapped, &data(vni)), Relayed::Forward(b.leg));
    let counters = world.relay.counters();
    assert_eq!(counters.forwarded(false, true), Traffic { packets: 2, bytes: 34 });
    assert_eq!(counters.forwarded(true, false), Traffic { packets: 2, bytes: 34 });
    assert_eq!(world.relay.count(), (0, 1));
    let [report] = &world.relay.report()[..] else { panic!() };
    assert!(
        report.clients.iter().any(|(key, at, sent)| {
            *key == b.key.public() && *at == Some(b.leg.remote) && sent.packets == 2
        })
    );
    let metrics = counters.metrics(0, 1);
    let name = "tailscaled_peer_relay_forwarded_packets_total{transport_in=\"udp4\",transport_out=\"udp6\"}";
    assert!(metrics.contains(&(name.to_owned(), 2)));
    assert_eq!(changes(&mut world).len(), 1);
}

#[test]
fn a_pair_has_one_session_whoever_asks_and_however_often() {
    let mut world = World::new(RelayConfig::default());
    let (a, b) = pair();
    let keys = [a.key.public(), b.key.public()];
    let first = world.relay.allocate(keys[0], keys, world.now).unwrap();
    let again = world.relay.allocate(keys[1], [keys[1], keys[0]], world.now).unwrap();
    assert_eq!(first, again);
    assert_eq!((first.vni, first.lamport_id), (1, 1));
    assert!(first.clients[0] < first.clients[1]);
    let other = Alice::new(3, "192.0.2.3:1");
    assert_eq!(world.allocate(&a, &other), 2);
}

#[test]
fn requests_that_make_no_pair_are_refused() {
    let mut world = World::new(RelayConfig::default());
    let (a, b) = pair();
    let (a, b) = (a.key.public(), b.key.public());
    let relay = world.relay.public;
    let mut ask = |requester, clients| world.relay.allocate(requester, clients, world.now).unwrap_err();
    assert_eq!(ask(relay, [a, b]), Refusal::NotParty);
    assert_eq!(ask(a, [a, a]), Refusal::NoPair);
    assert_eq!(ask(a, [a, relay]), Refusal::NoPair);
    assert_eq!(ask(a, [a, DiscoPublic::default()]), Refusal::NoPair);
    world.relay.set_addresses(Vec::new());
    assert_eq!(world.relay.allocate(a, [a, b], world.now), Err(Refusal::NotReady));
    assert_eq!(world.relay.counters().refused, 5);
    assert_eq!(world.relay.count(), (0, 0));
}

#[test]
fn nothing_is_forwarded_before_both_have_bound() {
    let mut world = World::new(RelayConfig::default());
    let (a, b) = pair();
    let vni = world.allocate(&a, &b);
    assert_eq!(world.relay.poll_change(), Some(Change::Waiting(Vni::new(vni).unwrap())));
    world.dropped(a.leg, &data(vni), RelayDrop::NotBound);
    world.bind(&a, &b, vni, 1);
    world.dropped(a.leg, &data(vni), RelayDrop::NotBound);
    assert_eq!((world.relay.count(), changes(&mut world)), ((1, 0), Vec::new()));
}

#[test]
fn lifetimes_are_30_seconds_to_bind_and_5_minutes_of_silence() {
    let mut world = World::new(RelayConfig::default());
    let (a, b) = pair();
    world.allocate(&a, &b);
    world.pass(Duration::from_secs(29));
    assert_eq!(world.relay.count(), (1, 0));
    world.pass(Duration::from_secs(12));
    let gone = Change::Gone(Vni::new(1).unwrap());
    assert_eq!((world.relay.count(), changes(&mut world)), ((0, 0), vec![gone]));

    let (mut world, a, b, vni) = bound();
    changes(&mut world);
    for _ in 0..4 {
        world.pass(Duration::from_secs(240));
        world.hand(a.leg, &data(vni));
        world.hand(b.leg, &data(vni));
    }
    world.pass(Duration::from_secs(200));
    world.hand(a.leg, &data(vni));
    world.pass(Duration::from_secs(111));
    assert_eq!(world.relay.count(), (0, 0), "the other was silent for more than 5 minutes");
    assert_eq!(changes(&mut world), [Change::Gone(Vni::new(vni).unwrap())]);
    world.dropped(a.leg, &data(vni), RelayDrop::UnknownVni);
    assert_eq!(world.relay.poll_timeout(), None);
}

#[test]
fn a_repeated_request_keeps_its_promise_of_time_to_bind() {
    let mut world = World::new(RelayConfig::default());
    let (a, b) = pair();
    let vni = world.allocate(&a, &b);
    world.pass(Duration::from_secs(25));
    assert_eq!(world.allocate(&b, &a), vni);
    world.pass(Duration::from_secs(25));
    world.bind(&a, &b, vni, 1);
    world.bind(&b, &a, vni, 1);
    assert_eq!(world.relay.count(), (0, 1));
}

#[test]
fn what_the_kernel_forwards_keeps_a_session_and_is_counted_once() {
    let (mut world, _, _, vni) = bound();
    let vni = Vni::new(vni).unwrap();
    let mut sent = Traffic::default();
    for _ in 0..10 {
        world.pass(Duration::from_secs(100));
        sent.add(Traffic { packets: 1000, bytes: 64_000 });
        let second = Some(Duration::from_secs(1));
        world.relay.note_kernel(
            vni,
            [(sent, second), (Traffic { packets: 1, bytes: 64 }, second)],
            world.now,
        );
    }
    assert_eq!(world.relay.count(), (0, 1));
    let total = |a, b| world.relay.counters().forwarded(a, b).packets;
    assert_eq!(total(false, true) + total(true, false), 10_001);
    world.relay.note_kernel(vni, [(sent, None), (Traffic::default(), None)], world.now);
    world.pass(Duration::from_secs(311));
    assert_eq!(world.relay.count(), (0, 0));
}

#[test]
fn a_client_that_moves_binds_again_and_the_old_address_is_worth_nothing() {
    let (mut world, mut a, b, vni) = bound();
    changes(&mut world);
    let old = a.leg;
    a.leg.remote = "192.0.2.1:2002".parse().unwrap();
    world.dropped(a.leg, &data(vni), RelayDrop::WrongSource);
    world.bind(&a, &b, vni, 2);
    assert_eq!(world.hand(b.leg, &data(vni)), Relayed::Forward(a.leg));
    world.dropped(old, &data(vni), RelayDrop::WrongSource);
    let [Change::Bound(_, legs)] = changes(&mut world)[..] else { panic!() };
    assert!(legs.contains(&a.leg) && legs.contains(&b.leg));
}

#[test]
fn first_steps_by_several_ways_at_once_are_one_handshake() {
    let mut world = World::new(RelayConfig::default());
    let (a, b) = pair();
    let vni = world.allocate(&a, &b);
    let bind = a.bind(&world, &b, vni, 5);
    let first = world.hand(a.leg, &bind);
    let other_way = Leg { remote: "[2001:db8::1]:1001".parse().unwrap(), local: None };
    let second = world.hand(other_way, &bind);
    let answer = a.answer(&world, &second);
    world.dropped(a.leg, &answer, RelayDrop::Challenge);
    let answer = a.answer(&world, &first);
    assert_eq!(world.hand(a.leg, &answer), Relayed::Nothing);
    assert_eq!(world.relay.counters().dropped(RelayDrop::Challenge), 1);
}

#[test]
fn a_recorded_handshake_cannot_be_played_again() {
    let mut world = World::new(RelayConfig::default());
    let (mut a, b) = pair();
    let vni = world.allocate(&a, &b);
    world.bind(&b, &a, vni, 1);
    let (old, bind) = (a.leg, a.bind(&world, &b, vni, 1));
    let challenge = world.hand(old, &bind);
    let answer = a.answer(&world, &challenge);
    // From elsewhere: the challenge is for another address.
    let thief = Leg { remote: "203.0.113.66:6666".parse().unwrap(), local: None };
    world.dropped(thief, &answer, RelayDrop::Challenge);
    world.hand(old, &answer);
    // Again, when it is over.
    world.dropped(old, &answer, RelayDrop::Generation);
    // The client moves; somebody who can send from its old address plays the whole handshake again.
    a.leg.remote = "192.0.2.1:2002".parse().unwrap();
    world.bind(&a, &b, vni, 2);
    assert!(matches!(world.hand(old, &bind), Relayed::Reply(_)));
    world.dropped(old, &answer, RelayDrop::Challenge);
    assert_eq!(world.hand(b.leg, &data(vni)), Relayed::Forward(a.leg));
}

#[test]
fn a_thief_without_a_key_gets_nothing_out_of_a_vni() {
    let (mut world, a, b, vni) = bound();
    let thief = Alice::new(66, "203.0.113.66:6666");
    let bind = thief.bind(&world, &b, vni, 1);
    world.dropped(thief.leg, &bind, RelayDrop::UnknownClient);
    world.dropped(thief.leg, &data(vni), RelayDrop::WrongSource);
    for guess in (0..1000).filter(|guess| *guess != vni) {
        world.dropped(a.leg, &data(guess), RelayDrop::UnknownVni);
    }
    // The key of a client on a packet that the client has not sealed.
    let mut forged = a.bind(&world, &b, vni, 3);
    *forged.last_mut().unwrap() ^= 1;
    world.dropped(thief.leg, &forged, RelayDrop::Sealed);
    assert_eq!(world.hand(a.leg, &data(vni)), Relayed::Forward(b.leg));
}

#[test]
fn what_is_inside_the_box_must_fit_the_session() {
    let mut world = World::new(RelayConfig::default());
    let ((a, b), c) = (pair(), Alice::new(3, "192.0.2.3:1003"));
    let (ab, ac) = (world.allocate(&a, &b), world.allocate(&a, &c));
    world.dropped(a.leg, &a.bind(&world, &c, ab, 1), RelayDrop::Mismatch);
    // The header outside rewritten to another session of the same client.
    let mut moved = a.bind(&world, &b, ab, 1);
    moved[..8].copy_from_slice(&a.bind(&world, &c, ac, 1)[..8]);
    world.dropped(a.leg, &moved, RelayDrop::Mismatch);
    world.dropped(a.leg, &a.bind(&world, &b, ab, 0), RelayDrop::Generation);
    let bind = Bind { vni: ab, generation: 4, remote: b.key.public(), challenge: [0; 32] };
    let unasked = a.seal(&world, ab, &Message::BindAnswer(bind.clone()));
    world.dropped(a.leg, &unasked, RelayDrop::Generation);
    let ours = a.seal(&world, ab, &Message::BindChallenge(bind));
    world.dropped(a.leg, &ours, RelayDrop::UnexpectedMessage);
    // A newer handshake ends an older one.
    let old = world.hand(a.leg, &a.bind(&world, &b, ab, 5));
    let new = world.hand(a.leg, &a.bind(&world, &b, ab, 6));
    world.dropped(a.leg, &a.answer(&world, &old), RelayDrop::Generation);
    let answer = a.answer(&world, &new);
    assert_eq!(world.hand(a.leg, &answer), Relayed::Nothing);
}

#[test]
fn challenges_last_two_minutes_at_least_and_four_at_most() {
    let config = RelayConfig { bind_lifetime: Duration::from_secs(3600), ..RelayConfig::default() };
    let mut world = World::new(config);
    let (a, b) = pair();
    let vni = world.allocate(&a, &b);
    // A key at its end makes the challenge; the next one comes a moment later.
    world.hand(b.leg, &b.bind(&world, &a, vni, 1));
    world.pass(challenge::ROTATION - MOMENT);
    let challenge = world.hand(a.leg, &a.bind(&world, &b, vni, 1));
    world.pass(challenge::ROTATION);
    let answer = a.answer(&world, &challenge);
    assert_eq!(world.hand(a.leg, &answer), Relayed::Nothing);
    assert_eq!(world.relay.counters().dropped(RelayDrop::Challenge), 0);
    let challenge = world.hand(a.leg, &a.bind(&world, &b, vni, 2));
    world.pass(2 * challenge::ROTATION);
    let answer = a.answer(&world, &challenge);
    world.dropped(a.leg, &answer, RelayDrop::Challenge);
}

#[test]
fn a_flood_of_requests_fills_its_own_quota_only() {
    let config = RelayConfig { max_sessions: 50, max_connecting_of_client: 10, ..RelayConfig::default() };
    let mut world = World::new(config);
    let (a, b) = pair();
    let invented = |seed: u32| {
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&seed.to_be_bytes());
        DiscoPublic::from_bytes(bytes)
    };
    let flood = |world: &mut World, count| {
        let key = a.key.public();
        let ask = |seed| world.relay.allocate(key, [key, invented(seed)], world.now).err();
        (0..count).filter_map(ask).collect::<Vec<_>>()
    };
    let refused = flood(&mut world, 1000);
    assert_eq!((refused.len(), refused[0]), (990, Refusal::TooManyConnecting));
    // Others still get theirs, and bound ones do not count.
    let c = Alice::new(3, "192.0.2.3:1003");
    let vni = world.allocate(&b, &c);
    world.bind(&b, &c, vni, 1);
    world.bind(&c, &b, vni, 1);
    assert_eq!(world.relay.count(), (10, 1));
    for seed in 0..39_u8 {
        world.allocate(&Alice::new(100 + seed, "192.0.2.9:1"), &b);
    }
    let key = c.key.public();
    assert_eq!(world.relay.allocate(key, [key, invented(5)], world.now), Err(Refusal::Full));
    // Asking again for what there is does not need room.
    assert_eq!(world.allocate(&c, &b), vni);
    world.pass(Duration::from_secs(41));
    assert_eq!(world.relay.count(), (0, 1));
    assert!(flood(&mut world, 10).is_empty());
}

#[test]
fn malformed_packets_of_every_length_are_counted_and_harmless() {
    let (mut world, a, b, vni) = bound();
    let bind = a.bind(&world, &b, vni, 3);
    for cut in 0..8 {
        world.dropped(a.leg, &bind[..cut], RelayDrop::Malformed);
    }
    for cut in 8..8 + wire::disco::HEADER_LEN {
        world.dropped(a.leg, &bind[..cut], RelayDrop::NotDisco);
    }
    for cut in 8 + wire::disco::HEADER_LEN..bind.len() {
        world.dropped(a.leg, &bind[..cut], RelayDrop::Sealed);
    }
    let mut control = data(vni);
    control[1] = 0x80;
    world.dropped(a.leg, &control, RelayDrop::NotDisco);
    assert_eq!(world.hand(a.leg, &data(vni)), Relayed::Forward(b.leg));
}

#[test]
fn a_successor_adopts_bound_sessions_and_repeats_no_number() {
    let (mut world, a, b, vni) = bound();
    let c = Alice::new(3, "192.0.2.3:1003");
    let waiting = world.allocate(&a, &c);
    let saved = world.relay.save();
    let key = world.relay.key.clone();
    world.relay = PeerRelay::adopt(RelayConfig::default(), key.clone(), saved.clone(), world.now);
    world.relay.set_addresses(vec!["198.51.100.1:7777".parse().unwrap()]);
    assert_eq!(world.relay.count(), (0, 1));
    assert_eq!(world.hand(a.leg, &data(vni)), Relayed::Forward(b.leg));
    let again = world.relay.allocate(a.key.public(), [a.key.public(), b.key.public()], world.now).unwrap();
    assert_eq!((again.vni, again.lamport_id), (vni, 1));
    let next = world.relay.allocate(a.key.public(), [a.key.public(), c.key.public()], world.now).unwrap();
    assert!(next.vni > waiting && next.lamport_id > 2);
    assert_eq!(changes(&mut world).len(), 1);
    // Damaged or doubled entries cost themselves.
    let mut damaged = saved.clone();
    damaged.next_vni = 0;
    let entry = damaged.sessions[0].clone();
    damaged.sessions.push(entry.clone());
    damaged.sessions.push(SavedSession { vni: 0, ..entry.clone() });
    damaged.sessions.push(SavedSession { vni: 5, clients: [entry.clients[1], entry.clients[0]], ..entry });
    assert_eq!(PeerRelay::adopt(RelayConfig::default(), key, damaged, world.now).count(), (0, 1));
}

#[test]
fn vnis_come_in_turn_and_wrap_around_those_in_use() {
    let (mut world, a, b, vni) = bound();
    world.relay.next_vni = Vni::MAX;
    let fresh = |world: &mut World, seed| world.allocate(&a, &Alice::new(seed, "192.0.2.9:1"));
    assert_eq!(fresh(&mut world, 50), Vni::MAX);
    assert_eq!(fresh(&mut world, 51), vni + 1, "1 is in use, 0 is none");
    assert_eq!(world.allocate(&a, &b), vni);
}

#[test]
fn no_two_sessions_have_one_place_in_a_table_indexed_by_vni() {
    let (mut world, a, _, vni) = bound();
    world.relay.next_vni = vni + PLACES;
    let other = world.allocate(&a, &Alice::new(50, "192.0.2.9:1"));
    assert_eq!(other, vni + PLACES + 1);
    // The place is free again with the session.
    world.pass(Duration::from_secs(400));
    world.relay.next_vni = vni + 2 * PLACES;
    assert_eq!(world.allocate(&a, &Alice::new(51, "192.0.2.9:1")), vni + 2 * PLACES);
}
