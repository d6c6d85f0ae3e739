//! Daemon start to first packet, already registered: the machine boots, and the first echo comes back through the tunnel.

use std::net::IpAddr;
use std::time::Instant;

use lab::{Namespace, Node, Server};

use crate::row::{Aim, Row};
use crate::stage::Stage;

pub(crate) fn run(runs: usize) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::build()?;
    let server = stage.server()?;
    let key = server.auth_key("bench", &["--reusable"])?;
    let machine = stage.machine("peer", 31)?;
    let peer = stage.ours(&machine, server.certificate())?;
    peer.up(&key, &[])?;
    let target = peer.address(false)?;
    let ours = ours(&stage, &server, &key, target, runs)?;
    let stock = stock(&stage, &server, &key, target, runs).map_err(|error| format!("{error:#}"));
    Ok(vec![Row::new(
        "start",
        "daemon start to first packet, already registered",
        "ms",
        &ours,
        ("tailscaled 1.102.5", stock),
        Aim::AtMost(50.0),
    )])
}

/// Each run is a boot: a new network namespace, where neither the process nor anything that it left is there, on kept state.
fn ours(
    stage: &Stage,
    server: &Server<'_>,
    key: &str,
    target: IpAddr,
    runs: usize,
) -> anyhow::Result<Vec<f64>> {
    let machine = stage.machine("ours", 32)?;
    let node = stage.ours(&machine, server.certificate())?;
    node.up(key, &[])?;
    echo(&machine, target)?;
    drop(node);
    drop(machine);
    let mut samples = Vec::new();
    for _ in 0..runs {
        let machine = stage.machine("ours", 32)?;
        let start = Instant::now();
        let _node: Node<'_> = stage.boot(&machine, server.certificate())?;
        echo(&machine, target)?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(samples)
}

fn stock(
    stage: &Stage,
    server: &Server<'_>,
    key: &str,
    target: IpAddr,
    runs: usize,
) -> anyhow::Result<Vec<f64>> {
    let machine = stage.machine("stock", 33)?;
    let node = stage.stock(&machine, server.certificate()).map_err(anyhow::Error::msg)?;
    node.up(key, &[])?;
    echo(&machine, target)?;
    drop(node);
    drop(machine);
    let mut samples = Vec::new();
    for _ in 0..runs {
        let machine = stage.machine("stock", 33)?;
        let start = Instant::now();
        let _node = stage.stock(&machine, server.certificate()).map_err(anyhow::Error::msg)?;
        echo(&machine, target)?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(samples)
}

/// Returns when the first echo has come back; asks every 10 ms, and again at once while there is no route yet.
fn echo(machine: &Namespace, target: IpAddr) -> anyhow::Result<()> {
    machine
        .sh(&format!("for i in $(seq 2000); do ping -q -i 0.01 -c 1 -w 5 {target} && exit 0; done; exit 1"))
        .map(drop)
}
