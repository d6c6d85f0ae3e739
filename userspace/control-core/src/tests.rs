//! The whole core in virtual time: registrations and what streams are told of them.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use types::{CapabilityVersion, DiscoPublic, MachinePublic, NodeId, NodePublic, RegionId};
use wire::control::{AuthKey, Hostinfo, MapRequest, MapResponse, NetInfo, RegisterAuth, RegisterRequest};

use crate::admin::{self, KeyWish};
use crate::delta::Tell;
use crate::liveness::{EPHEMERAL_GRACE, OFFLINE_GRACE, SessionId};
use crate::network::{MapRefusal, Network, Now, Settings};
use crate::policy::Policy;
use crate::record::{Record, Records};
use crate::register::{self, Admission, Attempt, Decision, Refusal};

/// A network and its clock.
struct World {
    network: Network,
    now: Now,
}

impl World {
    fn new(policy: &str) -> Self {
        let now = Now { wall: "2026-05-01T00:00:00Z".parse().unwrap(), instant: Instant::now() };
        let policy = if policy.is_empty() { Policy::allow_all() } else { Policy::parse(policy).unwrap() };
        let settings = Settings { domain: "example.internal".into(), derp_map: Default::default() };
        let mut world = Self { network: Network::new(Records::default(), policy, settings, now), now };
        for name in ["alice@example.com", "bob@example.com"] {
            let user = admin::create_user(world.network.registry(), name, now.wall).unwrap();
            world.apply(vec![Record::User(user)]);
        }
        world
    }

    fn apply(&mut self, records: Vec<Record>) {
        self.network.apply(records, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { wall: self.now.wall + time, instant: self.now.instant + time };
        let records = self.network.handle_timeout(self.now);
        self.apply(records);
    }

    fn key(&mut self, wish: KeyWish) -> String {
        let wish = KeyWish { user: format!("{}@example.com", wish.user), ..wish };
        let (key, text) = admin::create_key(self.network.registry(), &wish, &[7; 24], self.now.wall).unwrap();
        self.apply(vec![Record::Key(key)]);
        text
    }

    fn decide(&self, machine: u8, request: &RegisterRequest) -> Result<Decision, Refusal> {
        let attempt = Attempt { machine: machine_key(machine), request, now: self.now.wall };
        register::decide(self.network.registry(), self.network.policy(), &attempt)
    }

    fn register(&mut self, machine: u8, request: &RegisterRequest) -> NodeId {
        match self.decide(machine, request).unwrap() {
            Decision::Admit(id, records) | Decision::LogOut(id, records) => {
                self.apply(records);
                id
            }
            Decision::Known(id) => id,
            Decision::Expired(_) | Decision::Ask => panic!("not admitted"),
        }
    }

    /// Nodes `1..=count` of alice, by a reusable key; node n has machine and node key n.
    fn nodes(&mut self, count: u8) {
        let key = self.key(KeyWish { user: "alice".into(), ..KeyWish::default() });
        for n in 1..=count {
            self.register(n, &request(n, &key));
        }
    }

    fn connect(&mut self, id: i64) -> (SessionId, MapResponse) {
        let connected = self.network.connect(NodeId(id), CapabilityVersion::CURRENT, self.now).unwrap();
        (connected.session, connected.map)
    }

    fn report(&mut self, id: i64, request: &MapRequest) {
        let record = self.network.report(self.network.registry().node(NodeId(id)).unwrap(), request);
        self.apply(record.into_iter().collect());
    }

    fn flush(&mut self) -> Vec<(SessionId, MapResponse)> {
        let told = self.network.flush(self.now).into_iter();
        told.map(|(session, tell)| match tell {
            Tell::Delta(map) | Tell::End(map) => (session, *map),
        })
        .collect()
    }
}

fn machine_key(n: u8) -> MachinePublic {
    MachinePublic::from_bytes([n; 32])
}

fn node_key(n: u8) -> NodePublic {
    NodePublic::from_bytes([n; 32])
}

/// Node `n` registers as host `host-n` with `key`, or with none.
fn request(n: u8, key: &str) -> RegisterRequest {
    let auth_key = AuthKey(key.to_owned());
    RegisterRequest {
        version: CapabilityVersion::CURRENT,
        node_key: node_key(n),
        auth: (!key.is_empty()).then_some(RegisterAuth { auth_key }),
        hostinfo: Some(Hostinfo { hostname: format!("host-{n}"), ..Hostinfo::default() }),
        ..RegisterRequest::default()
    }
}

fn ids(nodes: &[wire::control::Node]) -> Vec<i64> {
    nodes.iter().map(|node| node.id.0).collect()
}

#[test]
fn a_single_use_key_admits_one_and_is_not_spent_by_the_same_node() {
    let mut world = World::new("");
    let key = world.key(KeyWish { user: "alice".into(), uses_limit: Some(1), ..KeyWish::default() });
    let id = world.register(1, &request(1, &key));
    assert_eq!(world.register(1, &request(1, &key)), id);
    assert_eq!(world.register(1, &request(1, "")), id);
    let refusal = world.decide(2, &request(2, &key)).err().unwrap();
    assert_eq!(refusal.to_string(), "auth key 1 has already been used (1 of 1 uses): ask for a new one");
}

#[test]
fn bad_keys_have_clear_texts() {
    let mut world = World::new("");
    let lifetime = Some(Duration::from_secs(3600));
    let expiring = world.key(KeyWish { user: "alice".into(), lifetime, ..KeyWish::default() });
    let revoked = world.key(KeyWish { user: "alice".into(), ..KeyWish::default() });
    let withdrawn = admin::revoke_key(world.network.registry(), crate::model::KeyId(2)).unwrap();
    world.apply(vec![Record::Key(withdrawn)]);
    world.pass(Duration::from_secs(3600));
    let wrong_secret = format!("{}0", &revoked[..revoked.len() - 1]);
    for (key, text) in [
        (expiring.as_str(), "auth key 1 expired at 2026-05-01T01:00:00Z: ask for a new one"),
        (&revoked, "auth key 2 has been revoked: ask for a new one"),
        (
            &wrong_secret,
            "auth key is not known to this server: check that it is complete and that it was made here",
        ),
        (
            "tskey-auth-x",
            "auth key is not known to this server: check that it is complete and that it was made here",
        ),
    ] {
        assert_eq!(world.decide(1, &request(1, key)).err().unwrap().to_string(), text);
    }
}

#[test]
fn a_node_key_belongs_to_one_machine() {
    let mut world = World::new("");
    world.nodes(1);
    assert_eq!(world.decide(2, &request(1, "")).err(), Some(Refusal::OtherMachine));
    assert_eq!(
        world.network.authenticate(machine_key(2), &node_key(1)).err(),
        Some(MapRefusal::OtherMachine)
    );
    assert_eq!(world.network.authenticate(machine_key(1), &node_key(9)).err(), Some(MapRefusal::Unknown));
    // The old key of somebody else does not help either.
    let stolen = RegisterRequest { old_node_key: node_key(1), ..request(2, "") };
    assert!(world.decide(2, &stolen) == Ok(Decision::Ask));
}

#[test]
fn a_logout_ends_the_key_and_a_login_brings_the_same_node_back() {
    let mut world = World::new("");
    world.nodes(1);
    let past = Timestamp::from_second(123).unwrap();
    let logout = RegisterRequest { expiry: past.into(), ..request(1, "") };
    assert_eq!(world.register(1, &logout), NodeId(1));
    assert!(!world.network.admits(&node_key(1)));
    assert!(world.decide(1, &request(1, "")) == Ok(Decision::Expired(NodeId(1))));
    let key = world.key(KeyWish { user: "alice".into(), ..KeyWish::default() });
    let login = RegisterRequest { node_key: node_key(50), old_node_key: node_key(1), ..request(1, &key) };
    assert_eq!(world.register(1, &login), NodeId(1));
    assert!(world.network.admits(&node_key(50)) && !world.network.admits(&node_key(1)));
    // As another user it is another node.
    let key = world.key(KeyWish { user: "bob".into(), ..KeyWish::default() });
    let login = RegisterRequest { node_key: node_key(51), ..request(1, &key) };
    assert_eq!(world.register(1, &login), NodeId(2));
}

#[test]
fn a_valid_key_vouches_for_the_next_unless_it_expires() {
    let mut world = World::new("");
    world.nodes(1);
    let rotation = |to: u8, from: u8| RegisterRequest { old_node_key: node_key(from), ..request(to, "") };
    assert_eq!(world.register(1, &rotation(11, 1)), NodeId(1));
    assert_eq!(world.network.registry().node_by_key(&node_key(11)).unwrap().id, NodeId(1));
    let node = world.network.registry().node(NodeId(1)).unwrap().clone();
    let expires = Some(world.now.wall + Duration::from_secs(60));
    world.apply(vec![Record::Node(Box::new(crate::model::Node { expires, ..node }))]);
    assert!(world.decide(1, &rotation(12, 11)) == Ok(Decision::Ask));
    world.pass(Duration::from_secs(60));
    assert!(world.decide(1, &request(11, "")) == Ok(Decision::Expired(NodeId(1))));
}

#[test]
fn an_administrator_admits_who_has_no_key() {
    let mut world = World::new("");
    assert!(world.decide(1, &request(1, "")) == Ok(Decision::Ask));
    let user = world.network.registry().user_named("bob@example.com").unwrap().id;
    let attempt = Attempt { machine: machine_key(1), request: &request(1, ""), now: world.now.wall };
    let (registry, policy) = (world.network.registry(), world.network.policy());
    let Ok(Decision::Admit(id, records)) =
        register::admit(registry, policy, &attempt, &Admission::by_admin(user))
    else {
        panic!("not admitted")
    };
    world.apply(records);
    assert!(world.decide(1, &request(1, "")) == Ok(Decision::Known(id)));
}

#[test]
fn tags_come_from_the_key_or_from_an_owner() {
    let mut world = World::new(r#"{"tagOwners": {"tag:gw": ["alice@example.com"]}, "acls": []}"#);
    let ask = |n: u8, key: &str| {
        let hostinfo = Hostinfo { request_tags: vec!["tag:gw".into()], ..Hostinfo::default() };
        RegisterRequest { hostinfo: Some(hostinfo), ..request(n, key) }
    };
    let alice = world.key(KeyWish { user: "alice".into(), ..KeyWish::default() });
    let bob = world.key(KeyWish { user: "bob".into(), ..KeyWish::default() });
    let tagged = world.key(KeyWish { user: "bob".into(), tags: vec!["tag:gw".into()], ..KeyWish::default() });
    for (n, key, wanted) in [(1, &alice, true), (2, &bob, false), (3, &tagged, true)] {
        assert_eq!(world.decide(n, &ask(n, key)).is_ok(), wanted, "{n}");
    }
    let id = world.register(3, &request(3, &tagged));
    assert_eq!(world.network.registry().node(id).unwrap().tags, ["tag:gw"]);
    let malformed = KeyWish { user: "bob@example.com".into(), tags: vec!["gw".into()], ..KeyWish::default() };
    assert!(admin::create_key(world.network.registry(), &malformed, &[0; 24], world.now.wall).is_err());
}

#[test]
fn a_full_map_has_everybody_by_number_and_names_do_not_collide() {
    let mut world = World::new("");
    let key = world.key(KeyWish { user: "alice".into(), ..KeyWish::default() });
    for n in 1..=3 {
        let hostinfo = Some(Hostinfo { hostname: "laptop".into(), ..Hostinfo::default() });
        world.register(n, &RegisterRequest { hostinfo, ..request(n, &key) });
    }
    let (_, map) = world.connect(2);
    assert_eq!(ids(&map.peers), [1, 3]);
    assert_eq!(map.node.as_ref().unwrap().name, "laptop-1.example.internal.");
    let addresses: Vec<_> = map.peers.iter().map(|peer| peer.addresses[0].to_string()).collect();
    assert_eq!(addresses, ["100.64.0.1/32", "100.64.0.3/32"]);
    assert_eq!(map.user_profiles.len(), 1);
    assert!(map.packet_filters["base"].as_ref().is_some_and(|rules| rules.len() == 1));
}

#[test]
fn a_change_costs_what_it_touches() {
    let mut world = World::new("");
    world.nodes(3);
    let (one, _) = world.connect(1);
    let (two, _) = world.connect(2);
    world.flush();
    let endpoints = vec!["192.0.2.1:41641".parse().unwrap()];
    let net_info = NetInfo { preferred_derp: RegionId(900), ..NetInfo::default() };
    let hostinfo = Hostinfo { hostname: "host-1".into(), net_info: Some(net_info), ..Hostinfo::default() };
    let report = MapRequest {
        version: CapabilityVersion::CURRENT,
        disco_key: DiscoPublic::from_bytes([1; 32]),
        endpoints: endpoints.clone(),
        hostinfo: Some(hostinfo),
        omit_peers: true,
        ..MapRequest::default()
    };
    world.report(1, &report);
    let told = world.flush();
    assert_eq!(told.len(), 1, "the node itself is not told what it said");
    assert_eq!(told[0].0, two);
    let patch = &told[0].1.peers_changed_patch[0];
    assert_eq!((patch.node_id, &patch.endpoints, patch.derp_region), (NodeId(1), &endpoints, RegionId(900)));
    assert!(patch.disco_key.is_some() && told[0].1.peers_changed.is_empty());
    // The same again is no news.
    world.report(1, &report);
    assert!(world.flush().is_empty());
    // A new name cannot be a patch, and concerns the node itself.
    let node = world.network.registry().node(NodeId(1)).unwrap();
    let renamed = admin::rename(world.network.registry(), node, "gateway").unwrap();
    world.apply(vec![renamed]);
    let told = world.flush();
    assert_eq!(told.len(), 2);
    assert!(told.iter().find(|(session, _)| *session == one).unwrap().1.node.is_some());
    assert_eq!(
        told.iter().find(|(session, _)| *session == two).unwrap().1.peers_changed[0].computed_name,
        "gateway"
    );
}

#[test]
fn a_new_stream_is_not_told_again_what_its_map_had() {
    let mut world = World::new("");
    world.nodes(2);
    world.connect(1);
    let (two, _) = world.connect(2);
    let told = world.flush();
    assert_eq!(told.len(), 1, "only the first has not yet heard that the second is online");
    assert_ne!(told[0].0, two);
    assert!(told[0].1.node.is_none());
}

#[test]
fn coming_and_going_is_told_after_the_grace() {
    let mut world = World::new("");
    world.nodes(2);
    let (_, map) = world.connect(1);
    assert_eq!(map.peers[0].online, Some(false));
    world.flush();
    let (two, _) = world.connect(2);
    let told = world.flush();
    assert_eq!(told[0].1.peers_changed_patch[0].online, Some(true));
    world.network.disconnect(two, world.now);
    world.pass(OFFLINE_GRACE - Duration::from_secs(1));
    assert!(world.flush().is_empty());
    world.pass(Duration::from_secs(1));
    let told = world.flush();
    let patch = &told[0].1.peers_changed_patch[0];
    assert_eq!((patch.online, patch.last_seen), (Some(false), Some(world.now.wall.into())));
    assert_eq!(world.network.registry().node(NodeId(2)).unwrap().last_seen, Some(world.now.wall));
}

#[test]
fn a_deleted_node_is_told_and_removed() {
    let mut world = World::new("");
    world.nodes(2);
    let (one, _) = world.connect(1);
    let (two, _) = world.connect(2);
    world.flush();
    world.apply(vec![Record::DeleteNode(NodeId(2))]);
    let told = world.flush();
    assert_eq!(told[0].0, one);
    assert_eq!(told[0].1.peers_removed, [NodeId(2)]);
    assert_eq!(told[1].0, two);
    assert!(told[1].1.node.as_ref().unwrap().expired);
    // Its address rests, its number is never given again.
    let key = world.key(KeyWish { user: "alice".into(), ..KeyWish::default() });
    let id = world.register(9, &request(9, &key));
    assert_eq!(id, NodeId(3));
    assert_eq!(world.network.registry().node(id).unwrap().addresses.v4.to_string(), "100.64.0.3");
}

#[test]
fn an_ephemeral_node_is_deleted_after_its_grace_or_its_logout() {
    let mut world = World::new("");
    let key = world.key(KeyWish { user: "alice".into(), ephemeral: true, ..KeyWish::default() });
    for n in 1..=2 {
        world.register(n, &request(n, &key));
    }
    let (one, _) = world.connect(1);
    world.pass(EPHEMERAL_GRACE - Duration::from_secs(1));
    assert_eq!(world.network.registry().nodes().count(), 2);
    world.pass(Duration::from_secs(1));
    assert!(world.network.registry().node(NodeId(2)).is_none());
    world.network.disconnect(one, world.now);
    world.pass(OFFLINE_GRACE);
    world.pass(EPHEMERAL_GRACE);
    assert!(world.network.registry().node(NodeId(1)).is_none());
    world.register(3, &request(3, &key));
    let past = Timestamp::from_second(123).unwrap();
    world.register(3, &RegisterRequest { expiry: past.into(), ..request(3, "") });
    assert_eq!(world.network.registry().nodes().count(), 0);
}

#[test]
fn an_expired_node_sees_nobody_and_is_seen_expired() {
    let mut world = World::new("");
    let key = world.key(KeyWish { user: "alice".into(), ..KeyWish::default() });
    world.register(1, &request(1, &key));
    let expiry = (world.now.wall + Duration::from_secs(60)).into();
    world.register(2, &RegisterRequest { expiry, ..request(2, &key) });
    let (one, _) = world.connect(1);
    let (two, _) = world.connect(2);
    world.flush();
    assert_eq!(world.network.poll_timeout().1, Some(world.now.wall + Duration::from_secs(60)));
    world.pass(Duration::from_secs(60));
    let told = world.flush();
    let of = |session| &told.iter().find(|(other, _)| *other == session).unwrap().1;
    assert!(of(one).peers_changed[0].expired);
    assert!(of(two).node.as_ref().unwrap().expired);
    assert_eq!(of(two).peers_removed, [NodeId(1)]);
}

#[test]
fn a_route_goes_to_peers_once_it_is_offered_and_approved() {
    let mut world = World::new("");
    world.nodes(2);
    world.connect(1);
    let route = "198.51.100.0/24".parse().unwrap();
    let hostinfo = Hostinfo { hostname: "host-2".into(), routable_ips: vec![route], ..Hostinfo::default() };
    world.report(2, &MapRequest { hostinfo: Some(hostinfo), omit_peers: true, ..MapRequest::default() });
    let told = world.flush();
    assert_eq!(told[0].1.peers_changed[0].allowed_ips.as_ref().unwrap().len(), 2);
    let node = world.network.registry().node(NodeId(2)).unwrap();
    let approved = admin::approve_routes(node, &[route]).unwrap();
    assert!(admin::approve_routes(node, &["198.51.100.1/24".parse().unwrap()]).is_err());
    world.apply(vec![approved]);
    let told = world.flush();
    let peer = &told[0].1.peers_changed[0];
    assert_eq!(peer.allowed_ips.as_ref().unwrap()[2], route);
    assert_eq!(peer.primary_routes, [route]);
    // The filter of everybody takes in the new source.
    assert!(told[0].1.packet_filters.contains_key("base"));
}

#[test]
fn a_node_learns_at_once_which_of_its_routes_are_approved() {
    let mut world = World::new("");
    world.nodes(2);
    let route = "198.51.100.0/24".parse().unwrap();
    let hostinfo = Hostinfo { hostname: "host-2".into(), routable_ips: vec![route], ..Hostinfo::default() };
    world.report(2, &MapRequest { hostinfo: Some(hostinfo), omit_peers: true, ..MapRequest::default() });
    let (session, map) = world.connect(2);
    assert!(!map.node.unwrap().allowed().contains(&route));
    world.flush();
    let node = world.network.registry().node(NodeId(2)).unwrap();
    let approved = admin::approve_routes(node, &[route]).unwrap();
    world.apply(vec![approved]);
    let told = world.flush();
    let (_, map) = told.iter().find(|(other, _)| *other == session).unwrap();
    assert!(map.node.as_ref().unwrap().allowed().contains(&route));
    assert!(world.flush().is_empty());
}

#[test]
fn a_new_policy_sends_only_what_it_changes() {
    let mut world = World::new("");
    world.nodes(2);
    let bob = world.key(KeyWish { user: "bob".into(), ..KeyWish::default() });
    world.register(3, &request(3, &bob));
    let sessions = [1, 2, 3].map(|id| world.connect(id).0);
    world.flush();
    let policy =
        r#"{"acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["alice@example.com:*"]}]}"#;
    let records = world.network.set_policy(Policy::parse(policy).unwrap());
    assert!(records.is_empty());
    let told = world.flush();
    assert_eq!(told.iter().map(|(session, _)| *session).collect::<Vec<_>>(), sessions);
    for (session, map) in &told {
        assert!(map.peers.is_empty() && map.peers_changed.is_empty() && map.node.is_none());
        let gone: &[NodeId] = if *session == sessions[2] { &[NodeId(1), NodeId(2)] } else { &[NodeId(3)] };
        assert_eq!(map.peers_removed, gone);
        assert_eq!(map.packet_filters["base"].as_ref().unwrap().is_empty(), *session == sessions[2]);
    }
    // What concerns bob alone reaches nobody else.
    let endpoints = vec!["192.0.2.3:1".parse().unwrap()];
    world.report(3, &MapRequest { endpoints, omit_peers: true, ..MapRequest::default() });
    assert!(world.flush().is_empty());
    assert!(world.network.set_policy(Policy::allow_all()).is_empty());
    let back = world.flush();
    assert_eq!(ids(&back[2].1.peers_changed), [1, 2]);
}

#[test]
fn a_streaming_request_only_fills_what_is_not_known() {
    let mut world = World::new("");
    world.nodes(1);
    let at = |text: &str| vec![text.parse().unwrap()];
    let stream = |endpoints| MapRequest {
        version: CapabilityVersion::CURRENT,
        stream: true,
        endpoints,
        ..MapRequest::default()
    };
    let known = |world: &World| world.network.registry().node(NodeId(1)).unwrap().endpoints.clone();
    world.report(1, &stream(at("192.0.2.1:1")));
    assert_eq!(known(&world), at("192.0.2.1:1"));
    world.report(1, &stream(at("192.0.2.1:2")));
    assert_eq!(known(&world), at("192.0.2.1:1"));
    world.report(1, &MapRequest { stream: false, ..stream(at("192.0.2.1:2")) });
    assert_eq!(known(&world), at("192.0.2.1:2"));
}
