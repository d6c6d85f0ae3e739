//! Packets lost when the controller is killed at 1,000 packets a second and started again a second later. Ours and the peer
//! take turns.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use lab::{Namespace, Process, Server, Stock, until};

use crate::row::{Aim, Row};
use crate::stage::Stage;

/// Echoes a run: eight seconds' worth.
const ECHOES: u32 = 8000;
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn run(runs: usize) -> anyhow::Result<Vec<Row>> {
    let runs = runs.min(3);
    let stage = Stage::build()?;
    let server = stage.server()?;
    let key = server.auth_key("bench", &["--reusable"])?;
    let machines = [stage.machine("client", 31)?, stage.machine("ours", 32)?, stage.machine("stock", 33)?];
    let client = stage.ours(&machines[0], server.certificate())?;
    client.up(&key, &[])?;

    let mut node = stage.ours(&machines[1], server.certificate())?;
    node.up(&key, &[])?;
    client.direct("ours", DEADLINE)?;
    node.direct("client", DEADLINE)?;
    let target = node.address(false)?;
    let mut joined = join_stock(&stage, &machines, &server, &key).map(|joined| (joined, Vec::new()));
    let mut ours = Vec::new();
    for _ in 0..runs {
        ours.push(lost(&machines[0], target, || {
            node.process.kill()?;
            pause(&machines[0])?;
            node.relaunch()
        })?);
        node.ready()?;
        joined = joined.and_then(|((mut stock, target), mut losses)| {
            losses.push(lost(&machines[0], target, || {
                stock.process.kill()?;
                pause(&machines[0])?;
                let again = stage.stock(&machines[2], server.certificate()).map_err(anyhow::Error::msg)?;
                stock = again;
                Ok(())
            })?);
            reached(&machines[0], target)?;
            Ok(((stock, target), losses))
        });
    }

    Ok(vec![Row::new(
        "kill",
        format!("packets lost of {ECHOES} on controller SIGKILL + restart"),
        "packets",
        &ours,
        ("tailscaled 1.102.5", joined.map(|(_, losses)| losses).map_err(|error| format!("{error:#}"))),
        Aim::AtMost(0.0),
    )])
}

/// The stock node, and its address as the client reaches it.
fn join_stock<'lab>(
    stage: &'lab Stage,
    machines: &'lab [Namespace; 3],
    server: &Server<'_>,
    key: &str,
) -> anyhow::Result<(Stock<'lab>, IpAddr)> {
    let node = stage.stock(&machines[2], server.certificate()).map_err(anyhow::Error::msg)?;
    node.up(key, &[])?;
    let target = until("the client knows the stock node", DEADLINE, || {
        node.status().ok()?["Self"]["TailscaleIPs"][0].as_str()?.parse::<IpAddr>().ok()
    })?;
    reached(&machines[0], target)?;
    Ok((node, target))
}

fn reached(client: &Namespace, target: IpAddr) -> anyhow::Result<()> {
    let ping = format!("ping -c 1 -W 1 {target}");
    until("the client reaches the stock node", DEADLINE, || client.sh(&ping).ok()).map(drop)
}

/// Sends [`ECHOES`] echoes to `target` and does `interrupt` while they run.
fn lost(
    from: &Namespace,
    target: IpAddr,
    interrupt: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let command = format!("ping -q -i 0.001 -c {ECHOES} -W 2 {target}");
    let mut traffic: Process = from.start("echoes", from.command("sh")?.args(["-c", &command]))?;
    let log_before = traffic.log().len();
    pause(from)?;
    interrupt()?;
    until("the echoes end", DEADLINE, || traffic.ended())?;
    let report = traffic.log().split_off(log_before.min(traffic.log().len()));
    let line =
        report.lines().rev().find(|line| line.contains("packets transmitted")).context("ping reports")?;
    let number = |word: &str| -> Option<f64> {
        line.split(", ").find(|part| part.contains(word))?.split_whitespace().next()?.parse().ok()
    };
    Ok(number("transmitted").context("sent")? - number("received").context("received")?)
}

/// One second of the scenario itself: kill one second in, restart one second later.
fn pause(host: &Namespace) -> anyhow::Result<()> {
    host.sh("sleep 1").map(drop)
}
