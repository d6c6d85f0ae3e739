//! The network that runs: real binaries behind real NATs, on this kernel's WireGuard or the embedded one
//! (`UNDERPASS_WIREGUARD=kernel|embedded`). Every wait is for a condition.

use std::time::Duration;

use anyhow::Context;
use lab::{Internet, Lab, Namespace, Nat, Node, Server, node, until};
use nix::sys::signal::Signal;

/// Server, two sites behind NATs, nothing of ours running but the server.
struct Sites {
    lab: Lab,
    server_host: Namespace,
    internet: Internet,
    nats: [Nat; 2],
    a: Namespace,
    b: Namespace,
}

impl Sites {
    fn build() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let internet = Internet::new(&lab)?;
        let server_host = internet.host(&lab, "server", 10)?;
        let mut nat_a = internet.nat(&lab, "nat-a", 21, 0)?;
        let mut nat_b = internet.nat(&lab, "nat-b", 22, 128)?;
        let (a, b) = (nat_a.host(&lab, "a")?, nat_b.host(&lab, "b")?);
        Ok(Self { lab, server_host, internet, nats: [nat_a, nat_b], a, b })
    }

    fn server(&self, extra: &[&str]) -> anyhow::Result<Server<'_>> {
        Server::start(&self.server_host, self.lab.folder(), extra)
    }

    fn node<'lab>(&'lab self, host: &'lab Namespace, server: &Server<'_>) -> anyhow::Result<Node<'lab>> {
        let options = node::Options { certificate: Some(server.certificate()), ..node::Options::default() };
        Node::start(host, self.lab.folder(), self.lab.tag(), options)
    }
}

/// Generous: the same tests run on an emulated processor.
const SOON: Duration = Duration::from_secs(60);

fn reachable(from: &Node<'_>, to: &str) -> anyhow::Result<()> {
    let address = until(&format!("{} knows {to}", from.host().name()), SOON, || from.peer_address(to).ok())?;
    until(&format!("{} reaches {to}", from.host().name()), SOON, || from.ping(address).then_some(()))
        .map_err(|error| error.context(from.process.log()))
}

#[test]
fn two_sites_behind_nats_go_from_derp_to_direct() -> anyhow::Result<()> {
    if lab::skipped("two_sites_behind_nats_go_from_derp_to_direct") {
        return Ok(());
    }
    let sites = Sites::build()?;
    let server = sites.server(&[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (a, b) = (sites.node(&sites.a, &server)?, sites.node(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    reachable(&a, "b")?;
    reachable(&b, "a")?;
    let endpoint = a.direct("b", SOON).map_err(|error| error.context(a.process.log()))?;
    assert!(endpoint.starts_with("203.0.113.22:"), "a reaches b at {endpoint}, not at its NAT");
    let endpoint = b.direct("a", SOON)?;
    assert!(endpoint.starts_with("203.0.113.21:"), "b reaches a at {endpoint}, not at its NAT");
    let v6 = b.address(true)?;
    until("IPv6 inside the tunnel", SOON, || a.ping(v6).then_some(()))?;
    let metrics = a.run(&["metrics"])?;
    assert!(metrics.contains("underpass_ebpf_packets_total"), "{metrics}");
    // What a kernel refuses is done without; the kernels of this suite refuse nothing.
    let log = a.process.log();
    assert!(!log.contains("done without"), "{log}");
    Ok(())
}

#[test]
fn blocked_udp_falls_back_to_derp_and_recovers() -> anyhow::Result<()> {
    if lab::skipped("blocked_udp_falls_back_to_derp_and_recovers") {
        return Ok(());
    }
    let sites = Sites::build()?;
    let server = sites.server(&[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (a, b) = (sites.node(&sites.a, &server)?, sites.node(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    a.direct("b", SOON)?;
    let address = a.peer_address("b")?;
    sites.nats[0].block_udp(true)?;
    until("the dead path is left", SOON, || {
        a.ping(address);
        (a.peer("b").ok()?["CurAddr"] == "").then_some(())
    })?;
    until("packets pass over DERP", SOON, || a.ping(address).then_some(()))?;
    sites.nats[0].block_udp(false)?;
    a.direct("b", SOON)?;
    assert!(a.ping(address));
    Ok(())
}

#[test]
fn a_firewall_that_drops_wireguard_drops_disco_too() -> anyhow::Result<()> {
    if lab::skipped("a_firewall_that_drops_wireguard_drops_disco_too") {
        return Ok(());
    }
    let sites = Sites::build()?;
    let public = sites.internet.host(&sites.lab, "pub", 50)?;
    public.sh(
        "nft 'table inet fw { chain in { type filter hook input priority 0; iifname wan udp dport 41641 drop; }; }'",
    )?;
    let server = sites.server(&[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (a, walled) = (sites.node(&sites.a, &server)?, sites.node(&public, &server)?);
    a.up(&key, &[])?;
    walled.up(&key, &[])?;
    reachable(&a, "pub")?;
    reachable(&walled, "a")?;
    assert_eq!(a.peer("pub")?["CurAddr"], "", "a path through the firewall is believed");
    public.sh("nft delete table inet fw")?;
    a.direct("pub", SOON)?;
    Ok(())
}

#[test]
fn a_gateway_serves_its_lan_until_its_route_is_withdrawn() -> anyhow::Result<()> {
    if lab::skipped("a_gateway_serves_its_lan_until_its_route_is_withdrawn") {
        return Ok(());
    }
    let sites = Sites::build()?;
    let gateway_host = sites.internet.host(&sites.lab, "gw", 40)?;
    let _lan = lab::internet::lan(&sites.lab, &gateway_host, "lan")?;
    let server = sites.server(&[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (a, gateway) = (sites.node(&sites.a, &server)?, sites.node(&gateway_host, &server)?);
    gateway.up(&key, &["--advertise-routes", "198.51.100.0/24"])?;
    a.up(&key, &["--accept-routes"])?;
    let nodes = server.admin_json(&["nodes", "list"])?;
    let id = nodes[0]["id"].to_string();
    assert!(
        !a.host().sh("ip route show table all")?.contains("198.51.100.0/24"),
        "an unapproved route is used"
    );
    server.admin(&["nodes", "approve-routes", &id, "198.51.100.0/24"])?;
    let lan_host = "198.51.100.2".parse()?;
    until("the LAN host answers through the gateway", SOON, || a.ping(lan_host).then_some(()))
        .map_err(|error| error.context(format!("{}\n{}", a.process.log(), gateway.process.log())))?;
    gateway.run(&["set", "--advertise-routes", ""])?;
    until("the route is withdrawn", SOON, || {
        let routes = a.host().sh("ip route show table all").ok()?;
        (!routes.contains("198.51.100.0/24")).then_some(())
    })
}

const POLICY: &str = r#"{
    // alice's nodes may reach port 8000 only
    "acls": [{"action": "accept", "proto": "tcp", "src": ["alice@"], "dst": ["alice@:8000"]}],
}"#;

#[test]
fn policy_is_enforced_in_the_kernel_and_counted() -> anyhow::Result<()> {
    if lab::skipped("policy_is_enforced_in_the_kernel_and_counted") {
        return Ok(());
    }
    let sites = Sites::build()?;
    let policy = sites.lab.folder().join("policy.hujson");
    std::fs::write(&policy, POLICY)?;
    let policy = policy.to_string_lossy().into_owned();
    let server = sites.server(&["--policy", &policy])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (a, b) = (sites.node(&sites.a, &server)?, sites.node(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    let address = until("a knows b", SOON, || a.peer_address("b").ok())?;
    let _open = b.host().start(
        "open",
        b.host().command("socat")?.args(["TCP-LISTEN:8000,fork,reuseaddr", "SYSTEM:echo open"]),
    )?;
    let _shut = b.host().start(
        "shut",
        b.host().command("socat")?.args(["TCP-LISTEN:9000,fork,reuseaddr", "SYSTEM:echo shut"]),
    )?;
    let ask =
        |port: u16| a.host().sh(&format!("socat -T 2 - TCP:{address}:{port},connect-timeout=2 < /dev/null"));
    let answer = until("the open port answers", SOON, || ask(8000).ok().filter(|text| !text.is_empty()))?;
    assert_eq!(answer.trim(), "open");
    assert!(ask(9000).is_err(), "a port that the policy does not name is reachable");
    let dropped = until("the drop is counted", SOON, || {
        let metrics = b.run(&["metrics"]).ok()?;
        metrics
            .lines()
            .find(|line| line.contains("from_tunnel") && line.contains("\"acl\"") && !line.ends_with(" 0"))
            .map(str::to_owned)
    });
    dropped.with_context(|| b.run(&["metrics"]).unwrap_or_default())?;
    Ok(())
}

#[test]
fn a_killed_controller_loses_no_packet() -> anyhow::Result<()> {
    if lab::skipped("a_killed_controller_loses_no_packet") {
        return Ok(());
    }
    let sites = Sites::build()?;
    let gateway_host = sites.internet.host(&sites.lab, "gw", 40)?;
    let server = sites.server(&[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (a, mut gateway) = (sites.node(&sites.a, &server)?, sites.node(&gateway_host, &server)?);
    a.up(&key, &[])?;
    gateway.up(&key, &[])?;
    a.direct("gw", SOON)?;
    gateway.direct("a", SOON)?;
    let address = a.peer_address("gw")?;
    let traffic = a
        .host()
        .command("sh")?
        .args(["-c", &format!("ping -q -i 0.001 -c 5000 -W 2 {address}")])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let received = || gateway_bytes(&a);
    let baseline = received().unwrap_or_default();
    until("traffic runs", SOON, || (received()? > baseline + 20_000).then_some(()))?;
    gateway.process.kill()?;
    let at_death = received().context("a still counts")?;
    until("packets move without the controller", SOON, || (received()? > at_death + 20_000).then_some(()))?;
    gateway.relaunch()?;
    until("the controller is back", SOON, || {
        (gateway.status().ok()?["BackendState"] == "Running").then_some(())
    })?;
    let text = String::from_utf8_lossy(&traffic.wait_with_output()?.stdout).into_owned();
    assert!(text.contains(" 0% packet loss"), "{text}");
    Ok(())
}

fn gateway_bytes(a: &Node<'_>) -> Option<u64> {
    a.peer("gw").ok()?["RxBytes"].as_u64()
}

#[test]
fn a_restart_without_control_answers_from_the_cached_netmap() -> anyhow::Result<()> {
    if lab::skipped("a_restart_without_control_answers_from_the_cached_netmap") {
        return Ok(());
    }
    let sites = Sites::build()?;
    let mut server = sites.server(&[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (a, mut b) = (sites.node(&sites.a, &server)?, sites.node(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    a.direct("b", SOON)?;
    b.direct("a", SOON)?;
    let address = a.peer_address("b")?;
    server.process.kill()?;
    b.process.kill()?;
    b.relaunch()?;
    b.ready()?;
    until("b is reached directly again, without control and without DERP", SOON, || {
        let answered = a.ping(address);
        (answered && a.peer("b").ok()?["CurAddr"] != "").then_some(())
    })?;
    server.restart(&[])?;
    until("b streams from the restarted server", SOON, || {
        (b.status().ok()?["BackendState"] == "Running").then_some(())
    })?;
    Ok(())
}

#[test]
fn a_deleted_node_is_cut_off() -> anyhow::Result<()> {
    if lab::skipped("a_deleted_node_is_cut_off") {
        return Ok(());
    }
    let sites = Sites::build()?;
    let server = sites.server(&[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (a, b) = (sites.node(&sites.a, &server)?, sites.node(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    reachable(&a, "b")?;
    let address = a.peer_address("b")?;
    let nodes = server.admin_json(&["nodes", "list"])?;
    let b_id = nodes
        .as_array()
        .and_then(|nodes| nodes.iter().find(|node| node["name"] == "b"))
        .context("b is listed")?["id"]
        .to_string();
    server.admin(&["nodes", "delete", &b_id])?;
    until("a forgets b", SOON, || a.peer("b").is_err().then_some(()))?;
    assert!(!a.ping(address));
    Ok(())
}

#[test]
fn down_leaves_nothing_behind_and_up_again_needs_no_key() -> anyhow::Result<()> {
    if lab::skipped("down_leaves_nothing_behind_and_up_again_needs_no_key") {
        return Ok(());
    }
    let sites = Sites::build()?;
    let server = sites.server(&[])?;
    let key = server.auth_key("alice", &[])?;
    let before = inventory(&sites.a)?;
    let (mut a, b) = (sites.node(&sites.a, &server)?, sites.node(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&server.auth_key("alice", &[])?, &[])?;
    reachable(&a, "b")?;
    assert_ne!(inventory(&sites.a)?, before);
    a.run(&["down"])?;
    until("everything of ours is gone", SOON, || (inventory(&sites.a).ok()? == before).then_some(()))
        .with_context(|| format!("{}\nbefore:\n{before}", inventory(&sites.a).unwrap_or_default()))?;
    assert!(!pins(a.device()), "pins are left");
    a.run(&["up"])?;
    reachable(&a, "b")?;
    a.run(&["down"])?;
    a.process.stop(Signal::SIGTERM)?;
    assert_eq!(inventory(&sites.a)?, before);
    Ok(())
}

/// Devices, rules, routes and tables of a machine.
fn inventory(host: &Namespace) -> anyhow::Result<String> {
    host.sh("ip -br link; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; nft list tables")
}

fn pins(device: &str) -> bool {
    let versions = std::fs::read_dir("/sys/fs/bpf/underpass").into_iter().flatten().filter_map(Result::ok);
    let mut folders = versions
        .filter_map(|version| std::fs::read_dir(version.path()).ok())
        .flatten()
        .filter_map(Result::ok);
    folders.any(|folder| folder.file_name().to_string_lossy().starts_with(&format!("{device}@")))
}
