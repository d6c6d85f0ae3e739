//! The acts: build the stage, join, find each other, move data, kill a controller.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use lab::{Internet, Lab, Namespace, Nat, Node, Process, Server, node, until};

use crate::figures::{Figures, millis};
use crate::table::Table;

/// The underlay, before anything of ours runs on it.
pub(crate) struct Stage {
    server: Namespace,
    gateway: Namespace,
    lan: Namespace,
    a: Namespace,
    b: Namespace,
    _nats: [Nat; 2],
    _internet: Internet,
}

impl Stage {
    pub(crate) fn build(lab: &Lab) -> anyhow::Result<Self> {
        println!(
            "a small Internet in namespaces (tag {}): server, two sites behind NATs, a gateway with a LAN",
            lab.tag()
        );
        let internet = Internet::new(lab)?;
        let server = internet.host(lab, "server", 10)?;
        let gateway = internet.host(lab, "gw", 40)?;
        let mut nat_a = internet.nat(lab, "nat-a", 21, 0)?;
        let mut nat_b = internet.nat(lab, "nat-b", 22, 128)?;
        let (a, b) = (nat_a.host(lab, "a")?, nat_b.host(lab, "b")?);
        let lan = lab::internet::lan(lab, &gateway, "lan-host")?;
        Ok(Self { server, gateway, lan, a, b, _nats: [nat_a, nat_b], _internet: internet })
    }
}

/// The prefix behind the gateway.
const LAN: &str = "198.51.100.0/24";
/// The host in it.
const LAN_HOST: &str = "198.51.100.2";

/// Everything, from an empty network to the verdict.
pub(crate) fn play(stage: &Stage, lab: &Lab) -> anyhow::Result<bool> {
    let mut figures = Figures::default();
    let start = Instant::now();
    let server = Server::start(&stage.server, lab.folder(), &[])?;
    figures.note("server: start to first answer", millis(start.elapsed()));
    let key = server.auth_key("alice", &["--reusable"])?;
    let options = node::Options { certificate: Some(server.certificate()), ..node::Options::default() };
    let launch = |host| Node::start(host, lab.folder(), lab.tag(), options.clone());
    let (a, b, mut gateway) = (launch(&stage.a)?, launch(&stage.b)?, launch(&stage.gateway)?);

    println!("\nact 1: join");
    join(&a, &key, &["--accept-routes"], &mut figures)?;
    join(&b, &key, &["--accept-routes"], &mut figures)?;
    join(&gateway, &key, &["--advertise-routes", LAN], &mut figures)?;
    approve(&server, &gateway)?;
    println!("{}", server.admin(&["nodes", "list"])?);

    println!("act 2: from DERP to direct");
    find_each_other(&a, &b, &gateway, &mut figures)?;

    println!("\nact 3: real TCP");
    throughput(&a, &stage.b, &b.address(false)?.to_string(), "TCP a -> b, both behind NATs", &mut figures)?;
    throughput(&a, &stage.lan, LAN_HOST, "TCP a -> gateway -> LAN host", &mut figures)?;

    println!("\nact 4: the gateway's controller is killed under traffic");
    kill_controller(&a, &mut gateway, &mut figures)?;
    let mut table = Table::default();
    table.show(&[&a, &b, &gateway]);
    let kept = figures.verdict();
    Ok(kept)
}

fn join(node: &Node<'_>, key: &str, extra: &[&str], figures: &mut Figures) -> anyhow::Result<()> {
    let start = Instant::now();
    node.up(key, extra)?;
    let name = node.host().name();
    figures.note(&format!("{name}: `up` to Running, first join"), millis(start.elapsed()));
    let backend = node.status()?["Underpass"]["Wireguard"].as_str().unwrap_or("?").to_owned();
    println!("  {name}: {} (WireGuard: {backend})", node.address(false)?);
    Ok(())
}

fn approve(server: &Server<'_>, gateway: &Node<'_>) -> anyhow::Result<()> {
    let nodes = server.admin_json(&["nodes", "list"])?;
    let nodes = nodes.as_array().cloned().unwrap_or_default();
    let entry =
        nodes.iter().find(|node| node["name"] == gateway.host().name()).context("the gateway is listed")?;
    server.admin(&["nodes", "approve-routes", &entry["id"].to_string(), LAN]).map(drop)
}

fn find_each_other(
    a: &Node<'_>,
    b: &Node<'_>,
    gateway: &Node<'_>,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let mut table = Table::default();
    let address = until("a knows b", Duration::from_secs(10), || a.peer_address("b").ok())?;
    let start = Instant::now();
    until("the first ping from a to b", Duration::from_secs(15), || a.ping(address).then_some(()))?;
    figures.note("first packet a -> b answered after", millis(start.elapsed()));
    for (from, to) in [(a, "b"), (b, "a"), (a, "gw"), (b, "gw"), (gateway, "a"), (gateway, "b")] {
        let start = Instant::now();
        let address = until("peers know each other", Duration::from_secs(10), || from.peer_address(to).ok())?;
        let direct = until("a direct path", Duration::from_secs(20), || {
            from.ping(address);
            table.show(&[a, b, gateway]);
            let path = from.peer(to).ok()?["CurAddr"].as_str()?.to_owned();
            (!path.is_empty()).then_some(path)
        });
        let name = format!("{} -> {to}: time to direct", from.host().name());
        figures.judge(
            &name,
            direct.as_ref().map_or("never".to_owned(), |_| millis(start.elapsed())),
            direct.is_ok(),
        );
    }
    table.show(&[a, b, gateway]);
    table.leave();
    let text = a.host().sh(&format!("ping -q -i 0.01 -c 200 {address}"))?;
    let rtt = text.lines().last().and_then(|line| line.split('/').nth(4)).unwrap_or("?");
    figures.note("round trip a -> b, mean of 200", format!("{rtt} ms"));
    Ok(())
}

fn throughput(
    from: &Node<'_>,
    to: &Namespace,
    address: &str,
    what: &str,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let _server: Process = to.start("iperf3", to.command("iperf3")?.args(["-s", "-1"]))?;
    let probe = format!("iperf3 -J -t 3 -c {address}");
    let report = until("iperf3 connects", Duration::from_secs(15), || from.host().sh(&probe).ok())?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_default() / 1e6;
    println!("  {what}: {rate:.0} Mbit/s");
    figures.judge(what, format!("{rate:.0} Mbit/s"), rate > 1.0);
    Ok(())
}

/// 1,000 echoes a second for six seconds from a to the LAN host; the controller dies after one, comes back after three.
fn kill_controller(a: &Node<'_>, gateway: &mut Node<'_>, figures: &mut Figures) -> anyhow::Result<()> {
    let command = format!("ping -q -i 0.001 -c 6000 -W 1 {LAN_HOST}");
    let traffic =
        a.host().command("sh")?.args(["-c", &command]).stdout(std::process::Stdio::piped()).spawn()?;
    let received = || a.peer("gw").ok()?["RxBytes"].as_u64();
    let baseline = received().unwrap_or_default();
    until("traffic runs", Duration::from_secs(10), || (received()? > baseline + 50_000).then_some(()))?;
    gateway.process.kill()?;
    println!("  SIGKILL; packets keep moving without it ...");
    let at_death = received().unwrap_or_default();
    until("packets move while the controller is dead", Duration::from_secs(10), || {
        (received()? > at_death + 100_000).then_some(())
    })?;
    let start = Instant::now();
    gateway.relaunch()?;
    until("the new controller is Running", Duration::from_secs(20), || {
        (gateway.status().ok()?["BackendState"] == "Running").then_some(())
    })?;
    figures.note("gateway: restarted controller Running after", millis(start.elapsed()));
    let output = traffic.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |word: &str| -> Option<u32> {
        let line = text.lines().find(|line| line.contains("packets transmitted"))?;
        line.split(", ").find(|part| part.contains(word))?.split_whitespace().next()?.parse().ok()
    };
    let (sent, back) =
        (number("transmitted").context("ping reports")?, number("received").context("ping reports")?);
    println!("  sent {sent}, answered {back}");
    figures.judge(
        "packets lost across SIGKILL and restart",
        format!("{} of {sent}", sent - back),
        sent == back,
    );
    Ok(())
}

/// How to look around by hand.
pub(crate) fn explain(stage: &Stage, lab: &Lab, underpass: &Path) {
    let folder = lab.folder().display();
    let underpass = underpass.display();
    println!("\neverything is still running; try:");
    println!("  {underpass} admin --socket {folder}/server/admin.sock nodes list");
    for host in [&stage.a, &stage.b, &stage.gateway] {
        let enter = format!("nsenter --net={}", host.path().display());
        println!("  {enter} {underpass} status --socket {folder}/node-{}/node.sock", host.name());
    }
    let enter = format!("nsenter --net={}", stage.a.path().display());
    println!("  {enter} ping {LAN_HOST}");
    println!("  logs: {folder}/*.log");
}
