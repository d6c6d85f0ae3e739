//! Stock clients and our node on `underpass server`, each behind NATs.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use lab::{Internet, Lab, Namespace, Nat, Node, Server, Stock, node, stock, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// Server; a stock client behind each of two NATs; a public machine for our node.
struct Sites {
    lab: Lab,
    server: Namespace,
    nats: [Nat; 2],
    a: Namespace,
    b: Namespace,
    ours: Namespace,
    _internet: Internet,
}

impl Sites {
    fn build() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let internet = Internet::new(&lab)?;
        let server = internet.host(&lab, "server", 10)?;
        let mut nat_a = internet.nat(&lab, "nat-a", 21, 0)?;
        let mut nat_b = internet.nat(&lab, "nat-b", 22, 128)?;
        let (a, b) = (nat_a.host(&lab, "a")?, nat_b.host(&lab, "b")?);
        let ours = nat_b.host(&lab, "ours")?;
        Ok(Self { lab, server, nats: [nat_a, nat_b], a, b, ours, _internet: internet })
    }

    fn node<'lab>(&'lab self, server: &Server<'_>) -> anyhow::Result<Node<'lab>> {
        let options = node::Options { certificate: Some(server.certificate()), ..node::Options::default() };
        Node::start(&self.ours, self.lab.folder(), self.lab.tag(), options)
    }

    fn stock<'lab>(&'lab self, host: &'lab Namespace, server: &Server<'_>) -> anyhow::Result<Stock<'lab>> {
        Stock::start(host, self.lab.folder(), self.lab.tag(), &server.certificate())
    }
}

/// Waits for an echo from `stock` to `address`.
fn answered(from: &Stock<'_>, address: IpAddr) -> anyhow::Result<()> {
    until(&format!("{} reaches {address}", from.host().name()), SOON, || from.ping(address).then_some(()))
        .map_err(|error| error.context(from.process.log()))
}

/// Waits until `from` sees each of `names` online.
fn sees_online(
    from: &str,
    names: &[&str],
    peer: impl Fn(&str) -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    names.iter().try_for_each(|name| {
        until(&format!("{from} sees {name} online"), SOON, || {
            (peer(name).ok()?["Online"] == true).then_some(())
        })
    })
}

/// Waits until `from` has a direct path to `name`, while packets keep it in use; returns the endpoint.
fn direct(from: &Stock<'_>, name: &str) -> anyhow::Result<String> {
    let address = from.peer_address(name)?;
    until(&format!("{} has a direct path to {name}", from.host().name()), SOON, || {
        from.ping(address);
        let endpoint = from.peer(name).ok()?["CurAddr"].as_str()?.to_owned();
        (!endpoint.is_empty()).then_some(endpoint)
    })
    .map_err(|error| error.context(from.process.log()))
}

#[test]
fn two_stock_clients_meet_directly_through_two_nats() -> anyhow::Result<()> {
    if stock::skipped("two_stock_clients_meet_directly_through_two_nats", &["tailscale", "tailscaled"]) {
        return Ok(());
    }
    let sites = Sites::build()?;
    let server = Server::start(&sites.server, sites.lab.folder(), &[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (a, b) = (sites.stock(&sites.a, &server)?, sites.stock(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    let b_address = until("a knows b", SOON, || a.peer_address("b").ok())?;
    let a_address = until("b knows a", SOON, || b.peer_address("a").ok())?;
    answered(&a, b_address)?;
    answered(&b, a_address)?;
    let endpoints = (direct(&a, "b")?, direct(&b, "a")?);
    assert_eq!(endpoints, ("203.0.113.22:41641".to_owned(), "203.0.113.21:41641".to_owned()));
    let pong = a.run(&["ping", "--c", "3", &b_address.to_string()])?;
    assert!(pong.contains("via 203.0.113.22:41641"), "{pong}");
    Ok(())
}

#[test]
fn two_stock_clients_and_our_node_form_one_network() -> anyhow::Result<()> {
    if stock::skipped("two_stock_clients_and_our_node_form_one_network", &["tailscale", "tailscaled"]) {
        return Ok(());
    }
    let sites = Sites::build()?;
    let server = Server::start(&sites.server, sites.lab.folder(), &[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (a, b) = (sites.stock(&sites.a, &server)?, sites.stock(&sites.b, &server)?);
    let ours = sites.node(&server)?;
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    ours.up(&key, &[])?;
    sees_online("a", &["b", "ours"], |name| a.peer(name))?;
    sees_online("b", &["a", "ours"], |name| b.peer(name))?;
    sees_online("ours", &["a", "b"], |name| ours.peer(name))?;

    let our_address = a.peer_address("ours")?;
    answered(&a, a.peer_address("b")?)?;
    answered(&b, b.peer_address("a")?)?;
    answered(&a, our_address)?;
    answered(&b, our_address)?;
    for name in ["a", "b"] {
        let address = ours.peer_address(name)?;
        until(&format!("our node reaches {name}"), SOON, || ours.ping(address).then_some(()))
            .map_err(|error| error.context(ours.process.log()))?;
    }

    let direct = direct(&a, "ours").map_err(|error| error.context(ours.process.log()))?;
    assert!(direct.starts_with("203.0.113.22:"), "{direct}");
    ours.direct("a", SOON)?;
    let disco = a.run(&["ping", "--c", "3", &our_address.to_string()])?;
    assert!(disco.contains("pong from ours"), "{disco}");
    Ok(())
}

#[test]
fn blocked_udp_goes_by_our_derp() -> anyhow::Result<()> {
    if stock::skipped("blocked_udp_goes_by_our_derp", &["tailscale", "tailscaled"]) {
        return Ok(());
    }
    let sites = Sites::build()?;
    let server = Server::start(&sites.server, sites.lab.folder(), &[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    sites.nats[0].block_udp(true)?;
    let a = sites.stock(&sites.a, &server)?;
    let ours = sites.node(&server)?;
    a.up(&key, &[])?;
    ours.up(&key, &[])?;
    let address = until("a knows ours", SOON, || a.peer_address("ours").ok())?;
    answered(&a, address)?;
    assert_eq!(a.peer("ours")?["CurAddr"], "");
    Ok(())
}

#[test]
fn policy_and_removal_reach_stock_clients() -> anyhow::Result<()> {
    if stock::skipped("policy_and_removal_reach_stock_clients", &["tailscale", "tailscaled"]) {
        return Ok(());
    }
    let sites = Sites::build()?;
    let policy = sites.lab.folder().join("policy.hujson");
    std::fs::write(&policy, r#"{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:8000"]}]}"#)?;
    let server = Server::start(&sites.server, sites.lab.folder(), &["--policy", &policy.to_string_lossy()])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let a = sites.stock(&sites.a, &server)?;
    let ours = sites.node(&server)?;
    a.up(&key, &[])?;
    ours.up(&key, &[])?;
    let their_address = until("ours knows a", SOON, || ours.peer_address("a").ok())?;
    let our_address = until("a knows ours", SOON, || a.peer_address("ours").ok())?;
    let serve = |host: &Namespace, port: u16, text: &str| {
        let mut command = host.command("socat")?;
        host.start(
            text,
            command.args([format!("TCP-LISTEN:{port},fork,reuseaddr"), format!("SYSTEM:echo {text}")]),
        )
    };
    let _servers = [
        serve(a.host(), 8000, "open")?,
        serve(a.host(), 9000, "shut")?,
        serve(ours.host(), 8000, "open")?,
        serve(ours.host(), 9000, "shut")?,
    ];
    let ask = |from: &Namespace, address: IpAddr, port: u16| {
        from.sh(&format!("socat -T 2 - TCP:{address}:{port},connect-timeout=2 < /dev/null"))
    };
    for (from, address) in [(ours.host(), their_address), (a.host(), our_address)] {
        let open = || ask(from, address, 8000).ok().filter(|text| text.trim() == "open");
        until(&format!("the allowed port answers {}", from.name()), SOON, open)?;
        assert!(ask(from, address, 9000).is_err(), "{} reaches a port that is denied", from.name());
    }

    let remove = |name: &str| {
        let nodes = server.admin_json(&["nodes", "list"])?;
        let listed = nodes.as_array().context("a list")?;
        let id = listed.iter().find(|node| node["name"] == name).context("it is listed")?["id"].to_string();
        server.admin(&["nodes", "delete", &id])
    };
    let b = sites.stock(&sites.b, &server)?;
    b.up(&key, &[])?;
    until("ours knows b", SOON, || ours.peer("b").ok())?;
    remove("b")?;
    until("our node forgets the stock client", SOON, || ours.peer("b").is_err().then_some(()))?;
    remove("ours")?;
    until("the stock client forgets our node", SOON, || a.peer("ours").is_err().then_some(()))?;
    assert!(ask(a.host(), our_address, 8000).is_err(), "a removed node is reached");
    Ok(())
}
