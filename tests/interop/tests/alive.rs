//! A stock client's direct path to our node, while our controller is dead.

use std::collections::BTreeMap;
use std::time::Duration;

use dataplane::{Device, Programs, Steer, Steering};
use lab::{Internet, Lab, Namespace, Node, Server, Stock, node, stock, until};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// A stock client leaves a path five to eight seconds after the last pong; so long and a good while more the programs
/// answer alone.
#[test]
fn a_dead_controller_costs_a_stock_client_no_packet() -> anyhow::Result<()> {
    let name = "a_dead_controller_costs_a_stock_client_no_packet";
    if stock::skipped(name, &["tailscale", "tailscaled"]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let internet = Internet::new(&lab)?;
    let host = internet.host(&lab, "server", 10)?;
    let ours_host = internet.host(&lab, "ours", 12)?;
    let mut nat = internet.nat(&lab, "nat", 21, 0)?;
    let client_host = nat.host(&lab, "client")?;
    let _pass = Pass::on(internet.switch(), "p12")?;

    let server = Server::start(&host, lab.folder(), &[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let client = Stock::start(&client_host, lab.folder(), lab.tag(), &server.certificate())?;
    let options = node::Options {
        certificate: Some(server.certificate()),
        flags: vec!["--steer=xdp".into()],
        ..node::Options::default()
    };
    let mut ours = Node::start(&ours_host, lab.folder(), lab.tag(), options)?;
    client.up(&key, &[])?;
    ours.up(&key, &[])?;
    let address = until("the client knows our node", SOON, || client.peer_address("ours").ok())?;
    let direct = || {
        client.ping(address);
        let endpoint = client.peer("ours").ok()?["CurAddr"].as_str()?.to_owned();
        (!endpoint.is_empty()).then_some(endpoint)
    };
    until("the client has a direct path", SOON, direct).map_err(|error| error.context(ours.process.log()))?;
    until("the kernel answers its pings", SOON, || {
        client.ping(address);
        (answered(&ours)? > 0).then_some(())
    })
    .map_err(|error| error.context(ours.process.log()))?;

    ours.process.stop(Signal::SIGKILL)?;
    let seconds =
        std::env::var("UNDERPASS_DEAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(25_u32);
    let count = seconds * 10;
    let report = client_host.sh(&format!("ping -q -c {count} -i 0.1 -W 2 {address}"))?;
    println!("{report}");
    assert!(report.contains(&format!("{count} received")), "{report}");
    assert!(direct().is_some(), "still direct after {seconds} s");

    ours.relaunch()?;
    ours.ready()?;
    assert!(direct().is_some(), "and with the controller back");
    Ok(())
}

/// Of how many peers the programs answer the pings.
fn answered(node: &Node<'_>) -> Option<u64> {
    let status: Value = node.status().ok()?;
    status["Underpass"]["Answering"].as_u64()
}

/// What XDP sends back into a veth is taken up at its other end only where there is a program as well: ours, which knows no
/// port and lets everything pass.
struct Pass<'lab>(&'lab Namespace);

impl<'lab> Pass<'lab> {
    fn on(host: &'lab Namespace, device: &str) -> anyhow::Result<Self> {
        let attach = || -> anyhow::Result<()> {
            let ifindex = nix::net::if_::if_nametoindex(device)?;
            let found = Device { name: device.to_owned(), veth: true, mtu: 1500, ..Device::default() };
            let mut programs = Programs::load_or_adopt(PASS)?;
            let devices = BTreeMap::from([(ifindex, found)]);
            for (_, steered) in programs.steer(Steer::Xdp, &devices) {
                anyhow::ensure!(steered? == Steering::Xdp, "no XDP on {device}");
            }
            Ok(())
        };
        host.enter(attach)??;
        Ok(Self(host))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        _ = self.0.enter(|| Programs::remove_all(PASS));
    }
}

const PASS: &str = "pass";
