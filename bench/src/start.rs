//! Daemon start to first packet, already registered: the machine boots, and the first echo comes back through the tunnel.
//!
//! Each sample is a boot: a new network namespace, where neither the process nor anything that it left is there, on kept
//! state. Ours and the peer take turns.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::{Namespace, Stock, until};

use crate::row::{Aim, Row};
use crate::stage::Stage;

const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn run(runs: usize) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::build()?;
    let server = stage.server()?;
    let key = server.auth_key("bench", &["--reusable"])?;
    let machine = stage.machine("peer", 31)?;
    let peer = stage.ours(&machine, server.certificate())?;
    peer.up(&key, &[])?;
    let target = peer.address(false)?;

    join_ours(&stage, server.certificate(), &key, target)?;
    let mut stock = join_stock(&stage, server.certificate(), &key, target).map(|()| Vec::new());
    let mut ours = Vec::new();
    for _ in 0..runs {
        let machine = stage.machine("ours", 32)?;
        ours.push(boot(&machine, target, || stage.boot(&machine, server.certificate()))?);
        stock = stock.and_then(|mut samples| {
            let machine = stage.machine("stock", 33)?;
            samples.push(boot(&machine, target, || stock_daemon(&stage, &machine, server.certificate()))?);
            Ok(samples)
        });
    }
    Ok(vec![Row::new(
        "start",
        "daemon start to first packet, already registered",
        "ms",
        &ours,
        ("tailscaled 1.102.5", stock.map_err(|error| format!("{error:#}"))),
        Aim::AtMost(50.0),
    )])
}

/// Milliseconds from `start` to the first answered echo.
fn boot<N>(
    machine: &Namespace,
    target: IpAddr,
    start: impl FnOnce() -> anyhow::Result<N>,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let _node = start()?;
    echo(machine, target)?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn join_ours(stage: &Stage, certificate: PathBuf, key: &str, target: IpAddr) -> anyhow::Result<()> {
    let machine = stage.machine("ours", 32)?;
    let node = stage.ours(&machine, certificate)?;
    node.up(key, &[])?;
    echo(&machine, target)?;
    // A second after it changed: a machine that boots has been up for longer than that.
    until("the netmap is cached", DEADLINE, || node.state().join("netmap.json").exists().then_some(()))
}

fn join_stock(stage: &Stage, certificate: PathBuf, key: &str, target: IpAddr) -> anyhow::Result<()> {
    let machine = stage.machine("stock", 33)?;
    let node = stock_daemon(stage, &machine, certificate)?;
    node.up(key, &[])?;
    echo(&machine, target)
}

fn stock_daemon<'lab>(
    stage: &'lab Stage,
    machine: &'lab Namespace,
    certificate: PathBuf,
) -> anyhow::Result<Stock<'lab>> {
    stage.stock(machine, certificate).map_err(anyhow::Error::msg)
}

/// Returns when the first echo has come back; asks every 10 ms, and again at once while there is no route yet.
fn echo(machine: &Namespace, target: IpAddr) -> anyhow::Result<()> {
    machine
        .sh(&format!("for i in $(seq 2000); do ping -q -i 0.01 -c 1 -w 5 {target} && exit 0; done; exit 1"))
        .map(drop)
}
