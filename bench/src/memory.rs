//! Resident memory: a node in a small and in a large network, a server idle and with a thousand nodes.

use std::time::Duration;

use lab::{Internet, Lab, Node, Stock, node, stock, until};

use crate::crowd;
use crate::row::{Aim, Row};
use crate::stage::Stage;

const DEADLINE: Duration = Duration::from_secs(120);
/// Fake peers of Tailscale's test coordination server.
const FAKES: usize = 1000;

pub(crate) fn run() -> anyhow::Result<Vec<Row>> {
    let mut rows = small()?;
    rows.extend(large()?);
    rows.push(crowded()?);
    Ok(rows)
}

/// A network of four: the node and three peers; and the server that runs it.
fn small() -> anyhow::Result<Vec<Row>> {
    let stage = Stage::build()?;
    let server = stage.server()?;
    let idle = mib(server.process.resident_kib()?);
    let key = server.auth_key("bench", &["--reusable"])?;
    let machines = [
        stage.machine("x", 31)?,
        stage.machine("y", 32)?,
        stage.machine("ours", 33)?,
        stage.machine("stock", 34)?,
    ];
    let [x, y, ours] = [0, 1, 2].map(|index: usize| stage.ours(&machines[index], server.certificate()));
    let (x, y, ours) = (x?, y?, ours?);
    for node in [&x, &y, &ours] {
        node.up(&key, &[])?;
    }
    let stock = stage.stock(&machines[3], server.certificate()).and_then(|node| {
        node.up(&key, &[]).map_err(|error| format!("{error:#}"))?;
        let knows = || (node.status().ok()?["Peer"].as_object()?.len() == 3).then_some(());
        until("the stock node knows its peers", DEADLINE, knows).map_err(|error| format!("{error:#}"))?;
        Ok(vec![mib(node.process.resident_kib().map_err(|error| format!("{error:#}"))?)])
    });
    until("our node knows its peers", DEADLINE, || {
        (ours.status().ok()?["Peer"].as_object()?.len() >= 2).then_some(())
    })?;
    let node = mib(ours.process.resident_kib()?);
    let headscale = || Err("45-50 MB idle, measured by hand: not on the Go module proxy".to_owned());
    Ok(vec![
        Row::new("memory", "node, 3 peers", "MiB", &[node], ("tailscaled 1.102.5", stock), Aim::AtMost(20.0)),
        Row::new("memory", "server, idle", "MiB", &[idle], ("headscale", headscale()), Aim::AtMost(20.0)),
    ])
}

/// The same two nodes on Tailscale's own test server with a thousand fake peers.
fn large() -> anyhow::Result<Vec<Row>> {
    let Some(testcontrol) = stock::program("testcontrol") else {
        eprintln!("memory: 1,000 fake peers need testcontrol (Go): not found");
        return Ok(Vec::new());
    };
    let lab = Lab::new()?;
    let internet = Internet::new(&lab)?;
    let hosts = [internet.host(&lab, "ours", 31)?, internet.host(&lab, "stock", 32)?];
    for host in &hosts {
        // Without a default route tailscaled takes the machine for offline and pauses its control client, loopback or not.
        host.ip("route add default via 203.0.113.1")?;
    }
    let serve = |host: &lab::Namespace| -> anyhow::Result<lab::Process> {
        let server =
            host.start("testcontrol", host.command(&testcontrol)?.args(["-nfake", &FAKES.to_string()]))?;
        until("testcontrol listens", DEADLINE, || {
            host.sh("ss -Hltn sport = :9911").ok().filter(|text| !text.is_empty())
        })?;
        Ok(server)
    };
    let url = "http://127.0.0.1:9911";
    let _servers = [serve(&hosts[0])?, serve(&hosts[1])?];
    let ours = Node::start(&hosts[0], lab.folder(), lab.tag(), node::Options::default())?;
    ours.run(&["up", "--login-server", url, "--auth-key", "any"])?;
    until("our node knows all", DEADLINE, || {
        (ours.status().ok()?["Peer"].as_object()?.len() >= FAKES).then_some(())
    })?;
    let node = mib(ours.process.resident_kib()?);
    let peer = Stock::start(
        &hosts[1],
        lab.folder(),
        lab.tag(),
        std::path::Path::new("/etc/ssl/certs/ca-certificates.crt"),
    )
    .and_then(|stock| {
        stock.run(&[
            "up",
            "--login-server",
            url,
            "--auth-key",
            "any",
            "--accept-dns=false",
            "--timeout=60s",
        ])?;
        until("it knows all", DEADLINE, || {
            (stock.status().ok()?["Peer"].as_object()?.len() >= FAKES).then_some(())
        })?;
        Ok(vec![mib(stock.process.resident_kib()?)])
    })
    .map_err(|error| format!("{error:#}"));
    Ok(vec![Row::new(
        "memory",
        "node, 1,000 peers",
        "MiB",
        &[node],
        ("tailscaled 1.102.5", peer),
        Aim::AtMost(40.0),
    )])
}

/// A server with a thousand registered nodes.
fn crowded() -> anyhow::Result<Row> {
    let stage = Stage::build()?;
    let server = stage.server()?;
    let key = server.auth_key("bench", &["--reusable"])?;
    let machine = stage.machine("crowd", 31)?;
    let certificate = std::fs::read(server.certificate())?;
    machine.enter(|| crowd::register(FAKES, &lab::Server::url(), &key, &certificate))??;
    let listed = server.admin_json(&["nodes", "list"])?.as_array().map_or(0, Vec::len);
    anyhow::ensure!(listed == FAKES, "{listed} nodes are registered, not {FAKES}");
    let resident = mib(server.process.resident_kib()?);
    let peer = ("headscale", Err("not on the Go module proxy; 50 MB idle, by hand".to_owned()));
    Ok(Row::new("memory", "server, 1,000 registered nodes", "MiB", &[resident], peer, Aim::AtMost(100.0)))
}

#[expect(clippy::cast_precision_loss, reason = "a process has far less than 2^52 KiB")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
