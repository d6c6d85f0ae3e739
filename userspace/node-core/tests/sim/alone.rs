//! One node alone, spoken to by hand: what it answers, what it desires, what it tells.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use node_core::{
    Carry, Clock, Config, DerpState, Event, FromDerp, Hop, Node, ObservedPeer, Path, Prefs, Slot, Transmit,
    Underlay, Uplink, Via,
};
use types::{DiscoPrivate, NodePrivate, NodePublic, RegionId};
use wire::control::MapResponse;
use wire::disco::{self, CallMeMaybe, Message, Ping, Pong, TxId};
use wire::nacl::SharedBox;

const HOME: RegionId = RegionId(1);
const PEER_HOME: RegionId = RegionId(2);

struct Alone {
    node: Node,
    now: Instant,
    tx: u8,
}

fn node_key(tag: u8) -> NodePublic {
    NodePrivate::from_random([tag; 32]).public()
}

fn disco_key(tag: u8) -> DiscoPrivate {
    DiscoPrivate::from_random([tag + 100; 32])
}

fn by(remote: &str) -> Via {
    Via::Udp(Path::direct(addr(remote)))
}

/// One device with one address and a default route.
fn underlay(address: &str) -> Underlay {
    let hop = Hop { metric: 0, uplink: Uplink(2), gateway: None };
    let routes = [("0.0.0.0/0".parse().unwrap(), [hop].into())].into();
    Underlay { addresses: vec![address.parse().unwrap()], routes }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A peer's JSON: number, what more to say.
fn peer(tag: u8, more: &str) -> String {
    format!(
        r#"{{"ID":{tag},"Name":"p{tag}.example.com.","Key":"{}","DiscoKey":"{}","Addresses":["100.64.0.{tag}/32"],"HomeDERP":2{more}}}"#,
        node_key(tag),
        disco_key(tag).public()
    )
}

/// The node itself is number 1.
fn map(peers: &[String], more: &str) -> String {
    let me = format!(
        r#"{{"ID":1,"Key":"{}","Addresses":["100.64.0.1/32"],"AllowedIPs":["100.64.0.1/32","10.7.0.0/24"],"HomeDERP":1,"User":5}}"#,
        node_key(1)
    );
    let derp = r#"{"Regions":{
        "1":{"RegionID":1,"RegionName":"one","Nodes":[{"HostName":"derp.example.com"}]},
        "2":{"RegionID":2,"RegionName":"two","Nodes":[{"HostName":"b","IPv4":"198.51.100.2","IPv6":"none"}]}}}"#;
    let peers = peers.join(",");
    format!(
        r#"{{"Node":{me},"Peers":[{peers}],"DERPMap":{derp},"UserProfiles":[{{"ID":5,"LoginName":"alice"}}]{more}}}"#
    )
}

impl Alone {
    /// Running, with an underlay and a first look at an empty kernel.
    fn new(map: &str, prefs: Prefs) -> Self {
        let now = Instant::now();
        let clock = Clock { now, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000) };
        let config = Config {
            node_key: node_key(1),
            disco: disco_key(1),
            wireguard_port: 41641,
            derp_loopback_port: 40000,
        };
        let mut alone = Self { node: Node::new(config, clock, [7; 32]), now, tx: 0 };
        alone.node.handle_prefs(Prefs { want_running: true, ..prefs }, now);
        alone.node.handle_underlay(underlay("192.168.1.5/24"), now);
        alone.map(map);
        alone.node.handle_kernel(&[], now);
        alone
    }

    fn map(&mut self, json: &str) {
        self.node.handle_map(MapResponse::decode(json.as_bytes()).unwrap(), self.now);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.node.poll_event()).collect()
    }

    fn transmits(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.node.poll_transmit()).collect()
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.node.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = at;
            self.node.handle_timeout(at);
        }
        self.now = end;
    }

    fn seal(&mut self, from: u8, message: &Message) -> Vec<u8> {
        self.tx += 1;
        let shared = SharedBox::disco(&disco_key(from), &disco_key(1).public());
        disco::seal(&disco_key(from).public(), &shared, [self.tx; 24], message)
    }

    fn ping(&mut self, from: u8, claims: u8) -> Vec<u8> {
        let tx_id = TxId([self.tx + 1; 12]);
        self.seal(from, &Message::Ping(Ping { tx_id, node_key: Some(node_key(claims)), padding: 0 }))
    }

    fn arrives(&mut self, from: &str, datagram: &[u8]) {
        self.node.handle_datagram(Path::direct(addr(from)), datagram, self.now);
    }

    /// The DISCO messages for a peer that wait to be sent: to where, and what.
    fn said_to(&mut self, tag: u8) -> Vec<(Via, Message)> {
        let shared = SharedBox::disco(&disco_key(tag), &disco_key(1).public());
        let open = |transmit| {
            let (via, bytes) = match transmit {
                Transmit::Udp { path, bytes } => (Via::Udp(path), bytes),
                Transmit::Derp { region, bytes, .. } => (Via::Derp(region), bytes),
            };
            Some((via, disco::open(&shared, &bytes).ok()?))
        };
        self.transmits().into_iter().filter_map(open).collect()
    }

    /// Whom it pings when the kernel wants a peer.
    fn pinged_on_demand(&mut self, tag: u8) -> Vec<String> {
        self.transmits();
        let FromDerp::Deliver(slot) = self.node.handle_derp(PEER_HOME, node_key(tag), b"wireguard", self.now)
        else {
            panic!("no slot");
        };
        self.node.handle_loopback(slot, b"wireguard", self.now);
        let is_ping = |said: &(Via, Message)| matches!(said.1, Message::Ping(_));
        let pings = self.said_to(tag).into_iter().filter(is_ping);
        pings
            .filter_map(|(via, _)| if let Via::Udp(path) = via { Some(path.to_string()) } else { None })
            .collect()
    }
}

#[test]
fn a_ping_is_answered_at_once_by_the_way_it_came() {
    let mut alone = Alone::new(&map(&[peer(2, "")], ""), Prefs::default());
    alone.transmits();
    let ping = alone.ping(2, 2);
    alone.arrives("203.0.113.9:7", &ping);
    let said = alone.said_to(2);
    let pong = |via: Via, source: &str| {
        let pong = Pong { tx_id: TxId([1; 12]), source: addr(source) };
        (via, Message::Pong(pong))
    };
    assert!(said.contains(&pong(by("203.0.113.9:7"), "203.0.113.9:7")));
    assert!(
        said.iter().any(|(_, message)| matches!(message, Message::Ping(_))),
        "a new source is pinged back"
    );
    alone.arrives("203.0.113.9:7", &ping);
    assert_eq!(alone.said_to(2), [], "the same ping again is none");

    assert_eq!(alone.node.handle_derp(RegionId(9), node_key(2), &ping, alone.now), FromDerp::Consumed);
    assert_eq!(alone.said_to(2), [pong(Via::Derp(RegionId(9)), "127.3.3.40:9")]);
}

#[test]
fn strangers_and_forgeries_get_no_answer() {
    let mut alone = Alone::new(&map(&[peer(2, "")], ""), Prefs::default());
    alone.transmits();
    let (stranger, mut forged) = (alone.ping(3, 2), alone.ping(2, 2));
    *forged.last_mut().unwrap() ^= 1;
    for datagram in [&stranger[..], &forged, b"", b"\x01\x00\x00\x00", &disco::MAGIC] {
        alone.arrives("203.0.113.9:7", datagram);
    }
    assert_eq!(alone.transmits(), []);
    assert_eq!(alone.node.handle_derp(HOME, node_key(9), b"wireguard", alone.now), FromDerp::Consumed);
    assert_eq!(
        alone.node.handle_loopback(Slot::from_ip([127, 64, 0, 9].into()).unwrap(), b"x", alone.now),
        None
    );
}

#[test]
fn a_call_counts_only_by_derp_and_with_the_callers_key() {
    let mut alone = Alone::new(&map(&[peer(2, ""), peer(3, "")], ""), Prefs::default());
    let message = Message::CallMeMaybe(CallMeMaybe {
        endpoints: vec![
            addr("203.0.113.9:7"),
            addr("[fe80::1]:7"),
            addr("100.64.0.2:7"),
            addr("127.0.0.1:7"),
        ],
    });
    let call = alone.seal(2, &message);
    alone.transmits();
    alone.arrives("203.0.113.9:7", &call);
    alone.node.handle_derp(PEER_HOME, node_key(3), &call, alone.now);
    assert_eq!(alone.transmits(), []);
    alone.node.handle_derp(PEER_HOME, node_key(2), &call, alone.now);
    let said = alone.said_to(2);
    assert_eq!(said.len(), 1, "only the reachable one: {said:?}");
    assert_eq!(said[0].0, by("203.0.113.9:7"));
}

#[test]
fn a_wanted_peer_is_called_once_our_own_endpoints_are_fresh() {
    let endpoints = r#","Endpoints":["203.0.113.9:7"]"#;
    let mut alone = Alone::new(&map(&[peer(2, endpoints)], ""), Prefs::default());
    let called = |said: Vec<(Via, Message)>| {
        said.into_iter().find_map(|(via, message)| match message {
            Message::CallMeMaybe(call) => Some((via, call.endpoints)),
            _ => None,
        })
    };
    let FromDerp::Deliver(slot) = alone.node.handle_derp(PEER_HOME, node_key(2), b"wireguard", alone.now)
    else {
        panic!("no slot");
    };
    alone.node.handle_loopback(slot, b"wireguard", alone.now);
    assert_eq!(called(alone.said_to(2)), None, "STUN has not answered");
    alone.pass(Duration::from_secs(4));
    let expected = Some((Via::Derp(PEER_HOME), vec![addr("192.168.1.5:41641")]));
    assert_eq!(called(alone.said_to(2)), expected);
    alone.pass(Duration::from_secs(2));
    alone.node.handle_loopback(slot, b"wireguard", alone.now);
    assert_eq!(called(alone.said_to(2)), expected, "fresh, so at once with the next pings");
}

#[test]
fn an_initiation_goes_again_until_it_is_answered() {
    let initiation = [&[1, 0, 0, 0][..], &[7; 144]].concat();
    let way = "203.0.113.9:7";
    let mut alone = Alone::new(&map(&[peer(2, r#","Endpoints":["203.0.113.9:7"]"#)], ""), Prefs::default());
    let copies = |transmits: Vec<Transmit>| {
        let ways = transmits.into_iter().filter_map(|transmit| match transmit {
            Transmit::Udp { path, bytes } => (bytes == initiation).then_some(Via::Udp(path)),
            Transmit::Derp { region, bytes, .. } => (bytes == initiation).then_some(Via::Derp(region)),
        });
        ways.collect::<Vec<Via>>()
    };
    let deliver = alone.node.handle_derp(PEER_HOME, node_key(2), b"wireguard", alone.now);
    let FromDerp::Deliver(slot) = deliver else { panic!("no slot") };
    let carry = alone.node.handle_loopback(slot, &initiation, alone.now);
    assert_eq!(carry, Some(Carry::Derp { region: PEER_HOME, to: node_key(2) }));
    let tx_id = alone.said_to(2).into_iter().find_map(|said| match said {
        (Via::Udp(_), Message::Ping(ping)) => Some(ping.tx_id),
        _ => None,
    });
    alone.pass(Duration::from_millis(150));
    assert_eq!(copies(alone.transmits()), [Via::Derp(PEER_HOME)], "the peer may not have been there");
    let pong = Message::Pong(Pong { tx_id: tx_id.unwrap(), source: addr("198.51.100.7:1") });
    let pong = alone.seal(2, &pong);
    alone.arrives(way, &pong);
    assert_eq!(copies(alone.transmits()), [by(way)], "at once by a new way");
    alone.pass(Duration::from_secs(1));
    assert_eq!(copies(alone.transmits()).len(), 3, "after 200, 400 and 800 ms");
    alone.node.handle_derp(PEER_HOME, node_key(2), b"wireguard", alone.now);
    alone.pass(Duration::from_secs(5));
    assert_eq!(copies(alone.transmits()), [], "it has answered");
}

#[test]
fn candidates_never_lie_inside_the_overlay_or_what_it_routes() {
    let endpoints = r#","Endpoints":["100.64.0.2:1","[fd7a:115c:a1e0::2]:1","127.0.0.1:1","169.254.0.1:1","[fe80::1]:1",
        "10.9.0.2:1","192.168.1.9:1","203.0.113.9:1","203.0.113.9:0"]"#;
    let routes = r#","AllowedIPs":["100.64.0.3/32","10.9.0.0/16","192.168.0.0/16"]"#;
    let json = map(&[peer(2, endpoints), peer(3, routes)], "");
    let accepting = Prefs { accept_routes: true, ..Prefs::default() };
    let pinged = Alone::new(&json, accepting).pinged_on_demand(2);
    assert_eq!(
        pinged,
        ["192.168.1.9:1", "203.0.113.9:1"],
        "a neighbor on our own network is one, routed or not"
    );
    let pinged = Alone::new(&json, Prefs::default()).pinged_on_demand(2);
    assert_eq!(
        pinged,
        ["10.9.0.2:1", "192.168.1.9:1", "203.0.113.9:1"],
        "not routed, so reachable some other way"
    );
}

#[test]
fn a_claimed_node_key_resolves_a_shared_disco_key() {
    let shared = peer(3, "").replace(&disco_key(3).public().to_string(), &disco_key(2).public().to_string());
    let mut alone = Alone::new(&map(&[peer(2, ""), shared], ""), Prefs::default());
    let ping = alone.ping(2, 3);
    alone.arrives("203.0.113.9:7", &ping);
    let candidates = |tag| alone.node.peer_status(node_key(tag), alone.now).unwrap().candidates;
    assert_eq!(candidates(2), []);
    assert_eq!(candidates(3), [addr("203.0.113.9:7")]);
}

#[test]
fn nothing_is_desired_before_the_kernel_was_seen() {
    let mut alone = Alone::new(&map(&[peer(2, "")], ""), Prefs::default());
    assert!(alone.events().contains(&Event::ObserveKernel));
    let desired = alone.node.desired();
    assert!(desired.up && desired.generation == 1);
    assert!(desired.peers[&node_key(2)].endpoint.ip().is_loopback());
    assert_eq!(desired.filter.rules, [], "no rule lets nothing in");

    let clock = Clock { now: alone.now, wall: SystemTime::UNIX_EPOCH };
    let config =
        Config { node_key: node_key(1), disco: disco_key(1), wireguard_port: 1, derp_loopback_port: 2 };
    let mut unseen = Node::new(config, clock, [1; 32]);
    unseen.handle_prefs(Prefs { want_running: true, ..Prefs::default() }, alone.now);
    unseen.handle_map(alone.node.cached_map().unwrap(), alone.now);
    assert_eq!(unseen.desired().generation, 0);
}

#[test]
fn served_routes_are_those_offered_but_default_routes() {
    let offering = |routes: &[&str]| {
        let advertise_routes = routes.iter().map(|route| route.parse().unwrap()).collect();
        let alone = Alone::new(&map(&[], ""), Prefs { advertise_routes, ..Prefs::default() });
        let desired = alone.node.desired();
        assert_eq!(desired.filter.local.len(), 1 + desired.served_routes.len());
        desired.served_routes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // headscale tells a router of its approved routes late, and of none that the router may not use itself.
    assert_eq!(offering(&["10.7.0.0/24", "10.8.0.0/24", "0.0.0.0/0"]), ["10.7.0.0/24", "10.8.0.0/24"]);
    assert!(offering(&[]).is_empty());
}

#[test]
fn the_generation_counts_what_matters() {
    let mut alone = Alone::new(&map(&[peer(2, "")], ""), Prefs::default());
    alone.map(r#"{"PeersChangedPatch":[{"NodeID":2,"Endpoints":["203.0.113.9:7"],"Online":true}]}"#);
    assert_eq!(alone.node.desired().generation, 1);
    alone.map(
        r#"{"PacketFilter":[{"SrcIPs":["*"],"DstPorts":[{"IP":"*","Ports":{"First":0,"Last":65535}}]}]}"#,
    );
    assert_eq!(alone.node.desired().generation, 2);
    assert_eq!(alone.node.desired().filter.rules.len(), 1);
    alone.node.handle_prefs(Prefs::default(), alone.now);
    assert!(!alone.node.desired().up && alone.node.desired().peers.is_empty());
    let ping = alone.ping(2, 2);
    alone.transmits();
    alone.arrives("203.0.113.9:7", &ping);
    assert_eq!(alone.transmits(), [], "who is down is silent");
}

#[test]
fn a_bad_map_is_named_and_the_old_one_kept() {
    let mut alone = Alone::new(&map(&[peer(2, "")], ""), Prefs::default());
    alone.events();
    alone.map(r#"{"PeersChanged":[{"ID":7,"Key":"nonsense"}]}"#);
    assert!(alone.events().iter().any(|event| matches!(event, Event::BadMap(_))));
    alone.node.handle_stream_opened();
    alone.map(r#"{"Domain":"example.com"}"#);
    assert!(alone.events().iter().any(|event| matches!(event, Event::BadMap(_))));
    assert_eq!(alone.node.peers().count(), 1);
    assert_eq!(alone.node.desired().peers.len(), 1);
}

#[test]
fn the_home_of_the_last_run_is_connected_at_once() {
    let mut alone = Alone::new(&map(&[peer(2, "")], ""), Prefs::default());
    let events = alone.events();
    assert!(events.contains(&Event::ConnectDerp { region: HOME, home: true }), "{events:?}");
    let reason = "refused".to_owned();
    alone.node.handle_derp_state(HOME, DerpState::Disconnected { reason }, alone.now);
    let codes = |alone: &Alone| alone.node.health().iter().map(|warning| warning.code).collect::<Vec<_>>();
    assert_eq!(codes(&alone), ["no-derp-connection"]);
    alone.node.handle_derp_state(HOME, DerpState::Connected, alone.now);
    assert_eq!(codes(&alone), [""; 0]);
}

#[test]
fn a_name_is_looked_up_and_then_asked() {
    let mut alone = Alone::new(&map(&[], ""), Prefs::default());
    assert!(alone.events().contains(&Event::Resolve("derp.example.com".into())));
    alone.transmits();
    alone.node.handle_resolved("derp.example.com", &[IpAddr::from([198, 51, 100, 1])], alone.now);
    let asked = |transmit: &Transmit| matches!(transmit, Transmit::Udp { path, .. } if path.remote == addr("198.51.100.1:3478"));
    assert!(alone.transmits().iter().any(asked));
}

#[test]
fn a_region_that_is_not_home_is_closed_after_an_idle_minute() {
    let mut alone = Alone::new(&map(&[peer(2, "")], ""), Prefs::default());
    alone.events();
    let FromDerp::Deliver(slot) = alone.node.handle_derp(PEER_HOME, node_key(2), b"wireguard", alone.now)
    else {
        panic!("no slot");
    };
    let carry = alone.node.handle_loopback(slot, b"wireguard", alone.now);
    assert_eq!(carry, Some(Carry::Derp { region: PEER_HOME, to: node_key(2) }));
    assert!(alone.events().contains(&Event::ConnectDerp { region: PEER_HOME, home: false }));
    alone.pass(Duration::from_secs(55));
    alone.node.handle_loopback(slot, b"wireguard", alone.now);
    alone.pass(Duration::from_secs(55));
    assert!(!alone.events().contains(&Event::CloseDerp(PEER_HOME)));
    alone.pass(Duration::from_secs(90));
    let events = alone.events();
    assert!(events.contains(&Event::CloseDerp(PEER_HOME)), "{events:?}");
    assert!(!events.contains(&Event::CloseDerp(HOME)));
}

#[test]
fn an_expired_own_key_takes_the_node_down_by_the_clock_of_control() {
    let expiry = r#""HomeDERP":1,"KeyExpiry":"2025-01-01T00:00:00Z""#;
    let json = map(&[peer(2, "")], "").replace(r#""HomeDERP":1"#, expiry);
    let mut alone = Alone::new(&json, Prefs::default());
    assert!(alone.node.desired().up, "the local clock may be wrong");
    alone.map(r#"{"ControlTime":"2024-12-31T23:59:30Z","Domain":"example.com"}"#);
    alone.pass(Duration::from_secs(29));
    assert!(alone.node.desired().up);
    alone.events();
    alone.pass(Duration::from_secs(2));
    assert!(!alone.node.desired().up);
    assert!(alone.events().contains(&Event::KeyExpired));
}

#[test]
fn an_address_gone_doubts_paths_and_is_reported() {
    let mut alone = Alone::new(&map(&[peer(2, r#","Endpoints":["203.0.113.9:7"]"#)], ""), Prefs::default());
    let ping = alone.ping(2, 2);
    alone.arrives("203.0.113.9:7", &ping);
    let tx_id = alone.said_to(2).iter().find_map(|(_, message)| match message {
        Message::Ping(ping) => Some(ping.tx_id),
        _ => None,
    });
    let pong = Message::Pong(Pong { tx_id: tx_id.unwrap(), source: addr("203.0.113.1:1") });
    let pong = alone.seal(2, &pong);
    alone.arrives("203.0.113.9:7", &pong);
    let current = |alone: &Alone| {
        alone.node.peer_status(node_key(2), alone.now).unwrap().current.map(|path| path.remote)
    };
    assert_eq!(current(&alone), Some(addr("203.0.113.9:7")));
    assert_eq!(alone.node.desired().peers[&node_key(2)].endpoint, addr("203.0.113.9:7"));
    alone.events();
    alone.node.handle_underlay(underlay("192.168.77.5/24"), alone.now);
    assert_eq!(current(&alone), None);
    assert!(alone.node.desired().peers[&node_key(2)].endpoint.ip().is_loopback());
    let reported = alone.events().into_iter().find_map(|event| match event {
        Event::EndpointsChanged(endpoints) => Some(endpoints),
        _ => None,
    });
    assert_eq!(reported.unwrap()[0].addr, addr("192.168.77.5:41641"));
}

#[test]
fn whois_knows_nodes_and_the_router_of_a_subnet() {
    let routes = r#","AllowedIPs":["100.64.0.2/32","10.9.0.0/16"],"User":5"#;
    let accepting = Prefs { accept_routes: true, ..Prefs::default() };
    let alone = Alone::new(&map(&[peer(2, routes)], ""), accepting);
    let who = |ip: [u8; 4]| alone.node.whois(ip.into()).map(|whois| (whois.node.id.0, whois.user.is_some()));
    assert_eq!(who([100, 64, 0, 1]), Some((1, true)));
    assert_eq!(who([100, 64, 0, 2]), Some((2, true)));
    assert_eq!(who([10, 9, 1, 1]), Some((2, true)));
    assert_eq!(who([10, 8, 1, 1]), None);
}

#[test]
fn the_kernels_slot_for_a_peer_is_kept() {
    let mut alone = Alone::new(&map(&[peer(2, "")], ""), Prefs::default());
    let seen = ObservedPeer {
        key: node_key(2),
        endpoint: Some(addr("127.64.1.2:40000")),
        rx_bytes: 0,
        tx_bytes: 0,
        last_handshake: None,
    };
    alone.events();
    alone.node.handle_kernel(&[seen], alone.now);
    assert!(!alone.events().iter().any(|event| matches!(event, Event::SetEndpoint { .. })));
    assert_eq!(alone.node.desired().peers[&node_key(2)].endpoint, addr("127.64.1.2:40000"));
}

#[test]
fn a_disco_key_told_in_the_tunnel_holds_until_the_map_names_a_new_one() {
    let mut alone = Alone::new(&map(&[peer(2, "")], ""), Prefs::default());
    let answers = |alone: &mut Alone, tag: u8| {
        alone.transmits();
        let ping = alone.ping(tag, 2);
        alone.arrives("203.0.113.9:7", &ping);
        alone.said_to(tag).iter().any(|(_, message)| matches!(message, Message::Pong(_)))
    };
    assert!(answers(&mut alone, 2) && !answers(&mut alone, 7));
    alone.node.handle_disco_key([100, 64, 0, 1].into(), disco_key(7).public(), alone.now);
    assert!(!answers(&mut alone, 7), "we are no peer of ours");
    alone.node.handle_disco_key([100, 64, 0, 2].into(), disco_key(7).public(), alone.now);
    assert!(answers(&mut alone, 7) && !answers(&mut alone, 2));
    alone.map(r#"{"PeersChangedPatch":[{"NodeID":2,"Endpoints":["203.0.113.8:7"]}]}"#);
    assert!(answers(&mut alone, 7), "the map still names the old one");
    let changed = peer(2, "").replace(&disco_key(2).public().to_string(), &disco_key(8).public().to_string());
    alone.map(&format!(r#"{{"PeersChanged":[{changed}]}}"#));
    assert!(answers(&mut alone, 8) && !answers(&mut alone, 7));
}

#[test]
fn a_handshake_is_followed_by_our_own_disco_key() {
    let mut alone = Alone::new(&map(&[peer(2, "")], ""), Prefs::default());
    let seen = |last_handshake| ObservedPeer {
        key: node_key(2),
        endpoint: None,
        rx_bytes: 0,
        tx_bytes: 0,
        last_handshake,
    };
    let told = |alone: &mut Alone| {
        let is_told = |event: &Event| *event == Event::TellDiscoKey([100, 64, 0, 2].into());
        alone.events().iter().filter(|event| is_told(event)).count()
    };
    alone.node.handle_kernel(&[seen(None)], alone.now);
    assert_eq!(told(&mut alone), 0);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_001);
    for expected in [1, 0] {
        alone.node.handle_kernel(&[seen(Some(at))], alone.now);
        assert_eq!(told(&mut alone), expected);
    }
}
