//! A whole server on loopback, and nodes that are no more than their protocol.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod client;
mod crash;

use std::time::Duration;

use client::{Machine, Server, request};
use control::admin::{ClientError, CreateKey};
use types::NodeId;
use wire::control::{Hostinfo, MapRequest, RegisterRequest};

fn key_of(user: &str) -> CreateKey {
    CreateKey { user: user.into(), ..CreateKey::default() }
}

#[tokio::test]
async fn a_node_registers_and_follows_the_network() {
    let server = Server::start().await;
    let key = server.key(CreateKey { reusable: true, ..key_of("alice") }).await;
    let one = Machine::new(1, &server).await;
    let two = Machine::new(2, &server).await;
    assert!(one.register(&request(1, &key)).await.machine_authorized);
    let mut stream = one.stream(1, "zstd").await;
    let map = stream.next().await;
    assert_eq!(map.node.unwrap().id, NodeId(1));
    let relay = &map.derp_map.unwrap().regions[&types::RegionId(900)].clone().unwrap().nodes[0];
    assert!(relay.cert_name.starts_with("sha256-raw:"));

    assert!(two.register(&request(2, &key)).await.machine_authorized);
    assert_eq!(stream.next().await.peers_changed[0].id, NodeId(2));
    let mut other = two.stream(2, "").await;
    assert_eq!(other.next().await.peers[0].online, Some(true));
    assert_eq!(stream.next().await.peers_changed_patch[0].online, Some(true));

    let endpoints = vec!["192.0.2.2:41641".parse().unwrap()];
    let report = MapRequest { endpoints: endpoints.clone(), omit_peers: true, ..client::map_request(2, "") };
    assert_eq!(two.post("/machine/map", &report).await.0, 200);
    assert_eq!(stream.next().await.peers_changed_patch[0].endpoints, endpoints);

    server.admin().await.delete("host-2").await.unwrap();
    assert_eq!(stream.next().await.peers_removed, [NodeId(2)]);
    assert!(other.next().await.node.unwrap().expired);
    assert!(other.ended().await);
    server.stop().await;
}

#[tokio::test]
async fn of_64_at_once_a_single_use_key_admits_one() {
    let server = Server::start().await;
    let key = server.key(key_of("alice")).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=64 {
        let (machine, key) = (Machine::new(n, &server).await, key.clone());
        tasks.spawn(async move { machine.register(&request(n, &key)).await });
    }
    let answers = tasks.join_all().await;
    let (admitted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.machine_authorized);
    assert_eq!((admitted.len(), refused.len()), (1, 63));
    assert!(refused.iter().all(|answer| answer.error.contains("already been used")));
    assert_eq!(server.admin().await.nodes().await.unwrap().len(), 1);
    assert_eq!(server.admin().await.keys().await.unwrap()[0].uses, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_machine_waits_for_its_administrator() {
    let server = Server::start().await;
    server.admin().await.create_user(&control::admin::CreateUser { name: "alice".into() }).await.unwrap();
    let machine = Machine::new(1, &server).await;
    let answer = machine.register(&request(1, "")).await;
    assert!(answer.auth_url.starts_with(&format!("{}/register/", server.url())));
    let page = server.get(answer.auth_url.strip_prefix(&server.url()).unwrap()).await;
    assert!(page.contains("underpass admin nodes approve"));
    let followup = RegisterRequest { followup: answer.auth_url.clone(), ..request(1, "") };
    let waits = tokio::spawn(async move { machine.register(&followup).await });
    let mut admin = server.admin().await;
    let pending = admin.pending().await.unwrap();
    assert_eq!((pending.len(), pending[0].hostname.as_str()), (1, "host-1"));
    let refused = admin.approve("ffff", "alice").await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: 400, .. }), "{refused}");
    assert_eq!(admin.approve(&pending[0].key, "alice").await.unwrap().user, "alice");
    assert!(waits.await.unwrap().machine_authorized);
    server.stop().await;
}

#[tokio::test]
async fn a_node_key_counts_only_on_its_machine() {
    let server = Server::start().await;
    let key = server.key(CreateKey { reusable: true, ..key_of("alice") }).await;
    let (one, two) = (Machine::new(1, &server).await, Machine::new(2, &server).await);
    one.register(&request(1, &key)).await;
    let answer = two.register(&request(1, &key)).await;
    assert!(answer.error.contains("belongs to another machine"), "{}", answer.error);
    let (status, text) = two.post("/machine/map", &client::map_request(1, "")).await;
    assert_eq!((status, text.trim()), (404, "this node key belongs to another machine"));
    assert_eq!(one.post("/machine/map", &client::map_request(9, "")).await.0, 404);
    assert_eq!(one.post("/machine/set-dns", &()).await.0, 501);
    assert_eq!(one.post("/machine/map", &"x".repeat(2 << 20)).await.0, 413);
    server.stop().await;
}

#[tokio::test]
async fn state_outlives_the_server() {
    let server = Server::start().await;
    let key = server.key(key_of("alice")).await;
    let first = Machine::new(1, &server).await;
    first.register(&request(1, &key)).await;
    let before = server.admin().await.nodes().await.unwrap();
    let server = server.restart().await;
    let machine = Machine::new(1, &server).await;
    assert!(machine.register(&request(1, "")).await.machine_authorized);
    let after = server.admin().await.nodes().await.unwrap();
    assert_eq!((&after[0].addresses, after[0].id), (&before[0].addresses, before[0].id));
    assert!(machine.register(&request(2, &key)).await.error.contains("already been used"));
    server.stop().await;
}

#[tokio::test]
async fn a_route_is_served_once_it_is_approved() {
    let server = Server::start().await;
    let key = server.key(CreateKey { reusable: true, ..key_of("alice") }).await;
    let (one, two) = (Machine::new(1, &server).await, Machine::new(2, &server).await);
    one.register(&request(1, &key)).await;
    let route = "198.51.100.0/24".parse().unwrap();
    let hostinfo = Hostinfo { hostname: "gw".into(), routable_ips: vec![route], ..Hostinfo::default() };
    two.register(&RegisterRequest { hostinfo: Some(hostinfo), ..request(2, &key) }).await;
    let mut stream = one.stream(1, "").await;
    assert_eq!(stream.next().await.peers[0].allowed().len(), 2);
    let info = server.admin().await.approve_routes("gw", vec![route]).await.unwrap();
    assert_eq!((info.approved_routes, info.primary_routes), (vec![route], vec![route]));
    assert_eq!(stream.next().await.peers_changed[0].allowed()[2], route);
    server.stop().await;
}

#[tokio::test]
async fn the_open_paths_answer() {
    let server = Server::start().await;
    assert!(server.get("/key?v=130").await.contains("\"publicKey\":\"mkey:"));
    assert!(server.get("/health").await.contains("pass"));
    assert!(server.get("/bootstrap-dns?q=127.0.0.1").await.contains("127.0.0.1"));
    assert_eq!(server.get("/bootstrap-dns?q=example.com").await, "{}");
    let key = server.key(key_of("alice")).await;
    let ask = |n| format!(r#"{{"NodePublic":"{}"}}"#, client::node_key(n));
    assert_eq!(server.post("/verify", ask(1)).await, r#"{"Allow":false}"#);
    Machine::new(1, &server).await.register(&request(1, &key)).await;
    assert_eq!(server.post("/verify", ask(1)).await, r#"{"Allow":true}"#);
    server.stop().await;
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_start_is_named() {
    let server = Server::start().await;
    let error = control::run_until(server.config(), std::future::pending()).await.unwrap_err().to_string();
    assert!(error.starts_with("another underpass server uses the state folder"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let other = control::Config { state: folder.path().join("state"), ..server.config() };
    let error = control::run_until(other.clone(), std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("(--listen)") && error.contains("another process has this port"), "{error}");
    let policy = folder.path().join("policy.hujson");
    std::fs::write(&policy, "{\n  \"acl\": []\n}").unwrap();
    let other = control::Config { policy: Some(policy), ..other };
    let error = format!("{:#}", control::run_until(other, std::future::pending()).await.unwrap_err());
    assert!(error.contains("policy.hujson: line 2, column 3: acl: "), "{error}");
    server.stop().await;
}

/// The debounce gathers a burst into one message.
#[tokio::test]
async fn a_burst_is_one_message() {
    let server = Server::start().await;
    let key = server.key(CreateKey { reusable: true, ..key_of("alice") }).await;
    let one = Machine::new(1, &server).await;
    one.register(&request(1, &key)).await;
    let mut stream = one.stream(1, "").await;
    stream.next().await;
    let mut nodes = Vec::new();
    let mut messages = 0;
    for n in 2..=5 {
        Machine::new(n, &server).await.register(&request(n, &key)).await;
    }
    while nodes.len() < 4 {
        nodes.extend(stream.next().await.peers_changed.iter().map(|peer| peer.id.0));
        messages += 1;
    }
    assert_eq!(nodes, [2, 3, 4, 5]);
    assert!(messages <= 4, "{messages}");
    assert!(stream.silent_for(Duration::from_millis(200)).await);
    server.stop().await;
}
