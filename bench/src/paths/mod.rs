//! Paths: how soon a pair is direct, and how soon it leaves a path that died; ours beside a pair of tailscaled.
//!
//! Each run is a network of its own, so that nobody remembers anything. Outages are the longest gap between two answered
//! echoes of fifty a second. Ours and the peer take turns.

mod client;
mod echoes;

use std::time::{Duration, Instant};

use lab::{Namespace, Nat, until};

use crate::rig::{Effort, Kernel};
use crate::row::{Aim, Row, Samples};
use crate::stage::Stage;
use client::{Client, Kind};
use echoes::Echoes;

const PEER: &str = "tailscaled 1.102.5";
const DEADLINE: Duration = Duration::from_secs(60);

/// One run: a figure in seconds.
type Scenario = fn(Kind) -> anyhow::Result<f64>;

const SCENARIOS: [(&str, Scenario, Aim); 4] = [
    ("DERP to direct after the first packet, both behind port-restricted NATs", direct, Aim::AtMost(1.0)),
    ("outage when the NAT drops the direct path, which leaves DERP", cut, Aim::AtMost(2.0)),
    ("outage when one of two uplinks goes down", pulled, Aim::AtMost(2.0)),
    ("outage when the peer relay's machine dies, which leaves DERP", relay_dies, Aim::AtMost(2.0)),
];

pub(crate) fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (case, scenario, aim) in SCENARIOS {
        let mut sides: [Samples; 2] = [Ok(Vec::new()), Ok(Vec::new())];
        for _ in 0..effort.runs {
            for (side, kind) in sides.iter_mut().zip([Kind::Ours, Kind::Stock]) {
                let Ok(samples) = side else { continue };
                match scenario(kind) {
                    Ok(seconds) => samples.push(seconds),
                    Err(error) => *side = Err(format!("{error:#}")),
                }
                eprintln!("    {case}: {kind:?} {side:.3?} s");
            }
        }
        let [ours, stock] = sides;
        rows.push(Row::compare("paths", case, "s", ours, (PEER, stock), aim));
    }
    Ok(rows)
}

/// Two sites behind a NAT each, joined, silent.
struct Sites {
    stage: Stage,
    nats: [Nat; 2],
    hosts: [Namespace; 2],
}

impl Sites {
    fn build() -> anyhow::Result<Self> {
        let stage = Stage::build()?;
        let mut nats = [stage.nat("nat-a", 21, 0)?, stage.nat("nat-b", 22, 128)?];
        let hosts = [nats[0].host(&stage.lab, "a")?, nats[1].host(&stage.lab, "b")?];
        Ok(Self { stage, nats, hosts })
    }
}

/// From the first packet until both ends use the direct path.
fn direct(kind: Kind) -> anyhow::Result<f64> {
    let sites = Sites::build()?;
    let server = sites.stage.server()?;
    let [a, b] = Client::pair(&sites.stage, &sites.hosts, &server, kind)?;
    first_direct(&a, &b).map(|time| time.as_secs_f64())
}

fn first_direct(a: &Client<'_>, b: &Client<'_>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let _echoes = Echoes::start(a.host(), b.address()?)?;
    until("both ends are direct", DEADLINE, || (a.is_direct(b) && b.is_direct(a)).then_some(()))?;
    Ok(start.elapsed())
}

/// How long nothing comes back when the direct path dies.
fn cut(kind: Kind) -> anyhow::Result<f64> {
    let sites = Sites::build()?;
    let server = sites.stage.server()?;
    let [a, b] = Client::pair(&sites.stage, &sites.hosts, &server, kind)?;
    first_direct(&a, &b)?;
    let mut echoes = Echoes::start(a.host(), b.address()?)?;
    echoes.outage(|| sites.nats[0].block_udp(true))
}

/// Everybody may use everybody's relay.
const POLICY: &str = r#"{"grants": [
    {"src": ["*"], "dst": ["*"], "ip": ["*"]},
    {"src": ["*"], "dst": ["*"], "app": {"tailscale.com/cap/relay": [{}]}}
]}"#;

/// How long nothing comes back when the relay dies by which a pair behind hard NATs reaches each other.
fn relay_dies(kind: Kind) -> anyhow::Result<f64> {
    let sites = Sites::build()?;
    let server = sites.stage.server_with_policy(POLICY)?;
    for nat in &sites.nats {
        // Another port for every destination: neither end can tell the other where it will come from.
        nat.router().sh("nft flush chain inet nat postrouting && \
             nft add rule inet nat postrouting oifname wan masquerade random,fully-random")?;
    }
    let host = sites.stage.machine("relay", 33)?;
    // The switch takes what a program sends back, as one of metal does: a veth takes it only where it has a program itself.
    let mut kernel = Kernel::load()?;
    let _port = kernel.xdp("pass", sites.stage.switch(), "p33")?;
    let relay = Client::relay(&sites.stage, &host, &server, kind)?;
    let [a, b] = Client::pair(&sites.stage, &sites.hosts, &server, kind)?;
    let mut echoes = Echoes::start(a.host(), b.address()?)?;
    until("both ends use the peer relay", DEADLINE, || {
        (a.is_peer_relayed(&b) && b.is_peer_relayed(&a)).then_some(())
    })?;
    let outage = echoes.outage(|| host.ip("link set wan down").map(drop));
    drop(relay);
    outage
}

/// How long nothing comes back when the uplink goes down by which the pair is direct, and another one is there.
fn pulled(kind: Kind) -> anyhow::Result<f64> {
    let stage = Stage::build()?;
    let server = stage.server()?;
    let mut nat = stage.nat("nat-a", 21, 0)?;
    // Public by `wan`, and behind a NAT by `lan`, which has the default route.
    let hosts = [nat.host(&stage.lab, "a")?, stage.machine("b", 32)?];
    stage.plug(&hosts[0], 31)?;
    let [a, b] = Client::pair(&stage, &hosts, &server, kind)?;
    first_direct(&a, &b)?;
    let mut echoes = Echoes::start(a.host(), b.address()?)?;
    // With its routes, as a network manager takes them away when a cable is pulled.
    echoes.outage(|| hosts[0].ip("link set wan down").map(drop))
}
