//! Translation on the host: checksums after any rewriting, sessions against a plain model, arbitrary bytes. No root.

#![expect(clippy::unwrap_used, reason = "a test's helpers and properties")]

use std::collections::{BTreeMap, BTreeSet};

use abi::{
    Address, Edge, FILTER_NONE, Family, Gateway, InnerKey, OuterKey, Owner, PLACE_REGIONS, Place, Session,
    SessionKey,
};
use packet::nat::{self, End, FIN, RST, SYN, Tables, Tuple, Way, Work};
use packet::{Bytes, BytesMut, Ip, proto};
use programs::packets;
use programs::sums::{are_right, filled};
use proptest::prelude::*;

/// The maps, as plain collections.
#[derive(Default)]
struct Model {
    sessions: BTreeMap<SessionKey, Session>,
    places: Vec<Place>,
    turns: BTreeMap<u32, u32>,
    mappings: BTreeMap<InnerKey, [u8; 2]>,
    owners: BTreeMap<OuterKey, Owner>,
    local: BTreeSet<u16>,
}

impl Model {
    fn new(places: usize) -> Self {
        Self { places: vec![Place::default(); places], ..Self::default() }
    }
}

impl Tables for Model {
    fn session(&mut self, key: &SessionKey) -> Option<Session> {
        self.sessions.get(key).copied()
    }
    fn set_session(&mut self, key: &SessionKey, session: &Session) -> bool {
        self.sessions.insert(*key, *session);
        true
    }
    fn remove_session(&mut self, key: &SessionKey) {
        self.sessions.remove(key);
    }
    fn place(&mut self, index: u32) -> Option<&mut Place> {
        self.places.get_mut(index as usize)
    }
    fn next_place(&mut self, _: Family, peer: Option<&Address>) -> u32 {
        let half = self.places.len() as u32 / 2;
        let share = half / PLACE_REGIONS;
        let (region, first, size) = match peer {
            Some(peer) => {
                let region = u32::from_be(peer[0]) % PLACE_REGIONS;
                (region, region * share, share)
            }
            None => (PLACE_REGIONS, half, half),
        };
        let turn = self.turns.entry(region).or_default();
        *turn += 1;
        first + *turn % size
    }
    fn mapping(&mut self, inner: &InnerKey) -> Option<[u8; 2]> {
        self.mappings.get(inner).copied()
    }
    fn set_mapping(&mut self, inner: &InnerKey, port: [u8; 2]) -> bool {
        self.mappings.insert(*inner, port);
        true
    }
    fn remove_mapping(&mut self, inner: &InnerKey) {
        self.mappings.remove(inner);
    }
    fn owner(&mut self, outer: &OuterKey) -> Option<&mut Owner> {
        self.owners.get_mut(outer)
    }
    fn add_owner(&mut self, outer: &OuterKey, owner: &Owner) -> bool {
        self.owners.insert(*outer, *owner).is_none()
    }
    fn claim(&mut self, outer: &OuterKey, old: u64, new: u64) -> bool {
        match self.owners.get_mut(outer) {
            Some(owner) if owner.until == old => {
                owner.until = new;
                true
            }
            _ => false,
        }
    }
    fn is_local(&mut self, outer: &OuterKey, _: &SessionKey) -> bool {
        self.local.contains(&u16::from_be_bytes(outer.port))
    }
}

const SECOND: u64 = 1_000_000_000;
const OUTER: Address = [u32::from_ne_bytes([203, 0, 113, 1]), 0, 0, 0];
const START: u64 = 100_000 * SECOND;

fn gateway() -> Gateway {
    Gateway { tunnel: 1, mtu: 1280, places: 0, filtering: 0, first_port: 16_384, last_port: 32_767, zero: 0 }
}

fn address(host: u8) -> Address {
    [u32::from_ne_bytes([100, 64, 0, host]), 0, 0, 0]
}

fn key(peer: u8, port: u16, host: u8, protocol: u8) -> SessionKey {
    SessionKey {
        source: address(peer),
        destination: [u32::from_ne_bytes([198, 51, 100, host]), 0, 0, 0],
        source_port: port.to_be_bytes(),
        destination_port: 53u16.to_be_bytes(),
        protocol,
        family: Family::V4 as u8,
        edge: Edge::Tunnel as u8,
        zero: 0,
    }
}

/// A packet out of the tunnel, all the way.
fn send(model: &mut Model, key: &SessionKey, flags: u8, gateway: &Gateway, now: u64) -> Option<Session> {
    let mut work = Work::default();
    work.key = *key;
    nat::enter(model, &mut work, now, 1).ok()?;
    work.outer.address = OUTER;
    nat::open(model, &mut work, true, gateway, now).ok()?;
    nat::touch(model, &Tuple { key: *key, flags }, &work.session, Way::Out, 100, now);
    Some(work.session)
}

/// A packet into the tunnel, of a session.
fn receive(model: &mut Model, key: &SessionKey, flags: u8, now: u64) -> Option<Session> {
    let session = nat::find(model, key, now)?;
    nat::touch(model, &Tuple { key: *key, flags }, &session, Way::In, 100, now);
    Some(session)
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Out(u8),
    In(u8),
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let flags = prop::sample::select(vec![SYN, SYN | 0x10, 0x10, FIN | 0x10, RST, 0x18]);
    let wait = prop::sample::select(vec![1, 30, 239, 240, 241, 3600, 7439, 7440, 7441]);
    prop::collection::vec(
        prop_oneof![
            3 => flags.clone().prop_map(Event::Out),
            3 => flags.prop_map(Event::In),
            2 => wait.prop_map(Event::Wait),
        ],
        1..24,
    )
}

/// How long a connection with this history lives after its last packet, told from the whole history (RFC 5382 REQ-5, RFC
/// 7857 section 2.2).
fn lifetime(history: &[(Way, u8)]) -> u64 {
    let (mut out, mut into, mut fin_out, mut fin_in, mut reset) = (false, false, false, false, false);
    for (way, flags) in history {
        if flags & RST != 0 {
            reset = true;
            continue;
        }
        if flags & SYN != 0 && (reset || (fin_out && fin_in)) {
            (out, into, fin_out, fin_in) = (false, false, false, false);
        }
        reset = false;
        match way {
            Way::Out => {
                out = true;
                fin_out |= flags & FIN != 0;
            }
            Way::In => {
                into = true;
                fin_in |= flags & FIN != 0;
            }
        }
    }
    if out && into && !reset && !(fin_out && fin_in) { 7440 } else { 240 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rfc5382_req5_a_connection_lives_as_long_as_its_history_says(events in events()) {
        let (mut model, gateway) = (Model::new(256), gateway());
        let key = key(1, 20_000, 1, proto::TCP);
        let mut now = START;
        let session = send(&mut model, &key, SYN, &gateway, now).unwrap();
        let back = nat::lan_key(&key, &session);
        let mut history = vec![(Way::Out, SYN)];
        let mut last = now;
        for event in events {
            match event {
                Event::Wait(seconds) => now += seconds * SECOND,
                Event::Out(flags) | Event::In(flags) => {
                    let is_alive = now - last < lifetime(&history) * SECOND;
                    let way = if matches!(event, Event::Out(_)) { Way::Out } else { Way::In };
                    let found = match way {
                        Way::Out => nat::find(&mut model, &key, now),
                        Way::In => receive(&mut model, &back, flags, now),
                    };
                    prop_assert_eq!(found.is_some(), is_alive, "{:?} {:?}", way, history);
                    if !is_alive {
                        return Ok(());
                    }
                    if way == Way::Out {
                        nat::touch(&mut model, &Tuple { key, flags }, &session, way, 100, now);
                    }
                    history.push((way, flags));
                    // Written to the second.
                    last = model.places[session.place as usize].seen;
                    prop_assert!(now - last <= SECOND);
                }
            }
        }
    }

    /// Peers of different sizes, a small table, few ports: whatever happens, nothing alive is lost or shared.
    #[test]
    fn nothing_alive_is_ever_evicted_or_shared(
        steps in prop::collection::vec((1u8..6, 0u16..40, 1u8..5, 0u64..400, any::<bool>()), 1..300),
    ) {
        let mut model = Model::new(256);
        model.local = (16_384..16_400).step_by(3).collect();
        let gateway = Gateway { last_port: 16_447, ..gateway() };
        let mut now = START;
        let mut alive: BTreeMap<SessionKey, (Session, u64)> = BTreeMap::new();
        for (peer, port, host, wait, is_udp) in steps {
            now += wait * SECOND / 40;
            let protocol = if is_udp { proto::UDP } else { proto::TCP };
            let life = if is_udp { 300 } else { 240 } * SECOND;
            alive.retain(|_, (_, seen)| now - *seen < life.min(240 * SECOND));
            let key = key(peer, 16_384 + port, host, protocol);
            let Some(session) = send(&mut model, &key, SYN, &gateway, now) else { continue };
            let outer = u16::from_be_bytes(session.port);
            prop_assert!((16_384..=16_447).contains(&outer) && !model.local.contains(&outer));
            prop_assert_eq!(outer % 2, port % 2, "parity");
            let seen = model.places[session.place as usize].seen;
            alive.insert(key, (session, seen));
            for (key, (session, _)) in &alive {
                let found = nat::find(&mut model, key, now);
                prop_assert_eq!(found, Some(*session), "evicted");
                let back = nat::find(&mut model, &nat::lan_key(key, session), now);
                prop_assert_eq!(back.map(|back| back.address), Some(key.source));
            }
            let mut owners = BTreeMap::new();
            for (key, (session, _)) in &alive {
                let inner = (key.source, key.source_port, key.protocol);
                let owner = *owners.entry((session.port, key.protocol)).or_insert(inner);
                prop_assert_eq!(owner, inner, "one outer port, two inner endpoints");
                let same = alive.iter().filter(|(other, _)| {
                    (other.source, other.source_port, other.protocol) == inner
                });
                for (_, (other, _)) in same {
                    prop_assert_eq!(other.port, session.port, "one inner endpoint, two outer ports");
                }
            }
        }
    }

    #[test]
    fn checksums_are_right_after_any_sequence_of_rewrites(
        family in any::<bool>(),
        protocol in prop::sample::select(vec![proto::TCP, proto::UDP, proto::ICMP]),
        payload in prop::collection::vec(any::<u8>(), 0..40),
        edits in prop::collection::vec((any::<bool>(), any::<[u8; 16]>(), any::<[u8; 2]>(), any::<bool>()), 1..6),
        without_sum in any::<bool>(),
    ) {
        let mut packet = sample(family, protocol, &payload);
        let without_sum = without_sum && family && protocol == proto::UDP;
        if without_sum {
            packet[26..28].fill(0);
        }
        for (is_source, octets, port, hop) in edits {
            let ip = Ip::parse(&Bytes(&packet)).unwrap();
            let tuple = nat::tuple(&ip, &Bytes(&packet), Edge::Tunnel).unwrap();
            let mut address: Address = [0; 4];
            let words = if family { 1 } else { 4 };
            for (word, four) in address.iter_mut().zip(octets.chunks_exact(4)).take(words) {
                *word = u32::from_ne_bytes(four.try_into().unwrap());
            }
            let end = if is_source { End::Source } else { End::Destination };
            let session = Session { address, port, zero: 0, place: 0 };
            prop_assert!(nat::rewrite(&mut BytesMut(&mut packet), &ip, &tuple.key, end, &session, hop));
            prop_assert!(are_right(&packet), "{packet:02x?}");
            prop_assert!(!without_sum || packet[26..28] == [0, 0]);
        }
    }

    #[test]
    fn errors_about_any_packet_are_turned_with_right_checksums(
        family in any::<bool>(),
        protocol in prop::sample::select(vec![proto::TCP, proto::UDP, proto::ICMP]),
        payload in prop::collection::vec(any::<u8>(), 0..40),
        cut in any::<bool>(),
        octets in any::<[u8; 4]>(),
        port in any::<[u8; 2]>(),
        is_source in any::<bool>(),
    ) {
        let whole = sample(family, protocol, &payload);
        let header = if family { 20 } else { 40 };
        let inside = if cut { &whole[..header + 8] } else { &whole[..] };
        let (kind, icmp) = if family { ([3, 3], proto::ICMP) } else { ([1, 4], proto::ICMPV6) };
        let (from, to) = (whole_address(&whole, family, true), whole_address(&whole, family, false));
        let message = [&kind[..], &[0, 0, 0, 0, 0, 0], inside].concat();
        let mut error = filled(packets::ip(to, from, icmp, &message));
        let ip = Ip::parse(&Bytes(&error)).unwrap();
        let edge = if is_source { Edge::Tunnel } else { Edge::Lan };
        let inner = nat::inner(&ip, &Bytes(&error), edge).unwrap();
        let mut address: Address = [0; 4];
        address[0] = u32::from_ne_bytes(octets);
        let session = Session { address, port, zero: 0, place: 0 };
        let end = if is_source { End::Source } else { End::Destination };
        prop_assert!(nat::rewrite_error(&mut BytesMut(&mut error), &ip, &inner, end, &address, &session));
        prop_assert!(are_right(&error), "{error:02x?}");
        if !cut {
            prop_assert!(are_right(&error[header + 8..]), "inside: {error:02x?}");
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_danger(bytes in prop::collection::vec(any::<u8>(), 0..120), v4 in any::<bool>()) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = if v4 { 0x45 } else { 0x60 } | (*first & 7);
        }
        let Ok(ip) = Ip::parse(&Bytes(&bytes)) else { return Ok(()) };
        let session = Session { address: [1, 2, 3, 4], port: [5, 6], zero: 0, place: 0 };
        let before = bytes.clone();
        if let Some(tuple) = nat::tuple(&ip, &Bytes(&before), Edge::Lan) {
            nat::rewrite(&mut BytesMut(&mut bytes), &ip, &tuple.key, End::Source, &session, true);
        }
        if let Some(inner) = nat::inner(&ip, &Bytes(&before), Edge::Lan) {
            let end = End::Destination;
            nat::rewrite_error(&mut BytesMut(&mut bytes), &ip, &inner, end, &session.address, &session);
        }
        prop_assert_eq!(bytes.len(), before.len());
        prop_assert_eq!(&bytes[ip.end..], &before[ip.end..], "bytes behind the packet's end");
    }
}

fn sample(family: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = match family {
        true => ("100.64.0.7", "198.51.100.9"),
        false => ("fd7a:115c:a1e0::7", "2001:db8::9"),
    };
    let (protocol, transport) = match (protocol, family) {
        (proto::TCP, _) => (proto::TCP, [packets::tcp(40_000, 80, 0x10), payload.to_vec()].concat()),
        (proto::UDP, _) => (proto::UDP, packets::udp(40_000, 53, payload)),
        (_, true) => (proto::ICMP, [&[8, 0, 0, 0, 0x12, 0x34, 0, 1], payload].concat()),
        (_, false) => (proto::ICMPV6, [&[128, 0, 0, 0, 0x12, 0x34, 0, 1], payload].concat()),
    };
    filled(packets::ip(source.parse().unwrap(), destination.parse().unwrap(), protocol, &transport))
}

fn whole_address(packet: &[u8], is_v4: bool, is_source: bool) -> std::net::IpAddr {
    if is_v4 {
        let at = if is_source { 12 } else { 16 };
        <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into()
    } else {
        let at = if is_source { 8 } else { 24 };
        <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into()
    }
}

#[test]
fn rfc4787_req5_a_mapping_outlives_its_timer_only_if_used() {
    let (mut model, gateway) = (Model::new(256), gateway());
    let key = key(1, 20_000, 1, proto::UDP);
    let session = send(&mut model, &key, 0, &gateway, START).unwrap();
    let back = nat::lan_key(&key, &session);
    assert!(receive(&mut model, &back, 0, START + 299 * SECOND).is_some());
    assert!(receive(&mut model, &back, 0, START + 598 * SECOND).is_some(), "refreshed");
    assert!(receive(&mut model, &back, 0, START + 898 * SECOND).is_none());
    let echo = self::key(1, 7, 1, proto::ICMP);
    let session = send(&mut model, &echo, 0, &gateway, START).unwrap();
    let back = nat::lan_key(&echo, &session);
    assert!(nat::find(&mut model, &back, START + 59 * SECOND).is_some(), "RFC 5508 REQ-2");
    assert!(nat::find(&mut model, &back, START + 60 * SECOND).is_none());
}

#[test]
fn a_port_whose_connection_is_over_serves_another_endpoint() {
    let (mut model, gateway) = (Model::new(256), Gateway { last_port: 16_385, ..gateway() });
    let first = key(1, 16_384, 1, proto::TCP);
    let session = send(&mut model, &first, SYN, &gateway, START).unwrap();
    let back = nat::lan_key(&first, &session);
    receive(&mut model, &back, SYN | 0x10, START).unwrap();
    let second = key(2, 16_384, 1, proto::TCP);
    // Established and silent for two hours: still its owner's.
    assert_eq!(send(&mut model, &second, SYN, &gateway, START + 7000 * SECOND), None);
    receive(&mut model, &back, RST, START + 7001 * SECOND).unwrap();
    assert_eq!(send(&mut model, &second, SYN, &gateway, START + 7200 * SECOND), None);
    let taken = send(&mut model, &second, SYN, &gateway, START + 7242 * SECOND).unwrap();
    assert_eq!(taken.port, session.port);
    assert_eq!(nat::find(&mut model, &first, START + 7242 * SECOND), None);
}

#[test]
fn who_is_let_in_from_outside_gets_a_session() {
    let (mut model, open) = (Model::new(256), Gateway { filtering: FILTER_NONE, ..gateway() });
    let session = send(&mut model, &key(1, 20_000, 1, proto::UDP), 0, &open, START).unwrap();
    let stranger = SessionKey {
        source: address(200),
        source_port: [9, 9],
        ..nat::lan_key(&key(1, 20_000, 1, proto::UDP), &session)
    };
    let mut work = Work::default();
    let came = nat::admit(&mut model, &mut work, &stranger, &open, 1, START).unwrap().unwrap();
    assert_eq!((came.address, came.port), (address(1), 20_000u16.to_be_bytes()));
    assert_eq!(nat::find(&mut model, &stranger, START), Some(came));
    let nobody = SessionKey { destination_port: [1, 1], ..stranger };
    assert_eq!(nat::admit(&mut model, &mut work, &nobody, &open, 1, START), None);
}
