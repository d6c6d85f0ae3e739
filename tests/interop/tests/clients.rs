//! Stock clients and our node on `underpass server`, each behind NATs.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use lab::{Internet, Lab, Namespace, Nat, Node, Server, Stock, node, stock, until};

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

    let b_address = until("a knows b", SOON, || a.peer_address("b").ok())?;
    let our_address = until("a knows ours", SOON, || a.peer_address("ours").ok())?;
    let a_address = until("ours knows a", SOON, || ours.peer_address("a").ok())?;
    answered(&a, b_address)?;
    answered(&a, our_address)?;
    until("our node reaches the stock client", SOON, || ours.ping(a_address).then_some(()))
        .map_err(|error| error.context(ours.process.log()))?;
    for name in ["b", "ours"] {
        until(&format!("a sees {name} online"), SOON, || {
            (a.peer(name).ok()?["Online"] == true).then_some(())
        })?;
    }

    let direct = until("the stock client has a direct path to our node", SOON, || {
        a.ping(our_address);
        let endpoint = a.peer("ours").ok()?["CurAddr"].as_str()?.to_owned();
        (!endpoint.is_empty()).then_some(endpoint)
    })
    .map_err(|error| error.context(format!("{}\n{}", ours.process.log(), a.process.log())))?;
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
    let a_address = until("ours knows a", SOON, || ours.peer_address("a").ok())?;
    let serve = |port: u16, text: &str| {
        let listen = format!("TCP-LISTEN:{port},fork,reuseaddr");
        let mut command = a.host().command("socat")?;
        a.host().start(text, command.args([listen, format!("SYSTEM:echo {text}")]))
    };
    let (_open, _shut) = (serve(8000, "open")?, serve(9000, "shut")?);
    let ask = |port: u16| {
        ours.host().sh(&format!("socat -T 2 - TCP:{a_address}:{port},connect-timeout=2 < /dev/null"))
    };
    until("the allowed port answers", SOON, || ask(8000).ok().filter(|text| text.trim() == "open"))?;
    assert!(ask(9000).is_err());

    let nodes = server.admin_json(&["nodes", "list"])?;
    let listed = nodes.as_array().context("a list")?;
    let id = listed.iter().find(|node| node["name"] == "ours").context("ours is listed")?["id"].to_string();
    server.admin(&["nodes", "delete", &id])?;
    until("the stock client forgets our node", SOON, || a.peer("ours").is_err().then_some(()))?;
    Ok(())
}
