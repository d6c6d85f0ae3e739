//! A gateway with two uplinks, each behind a NAT of its own: it finds paths by both, prefers what its routes prefer, and moves
//! a peer under traffic when a cable is pulled or goes silent. None of the machine's own routes is touched.

use std::time::Duration;

use anyhow::Context;
use lab::{Internet, Lab, Namespace, Nat, Node, Server, node, until};

const SOON: Duration = Duration::from_secs(60);
/// What a switch may cost on a machine that other tests load as well; two seconds are asserted in virtual time
/// (`node-core/tests/sim/uplinks.rs`), and tailscale's trust alone is 6.5 s.
const LIMIT: Duration = Duration::from_secs(4);
/// Between the pings that measure it.
const EVERY_MS: u32 = 50;

struct Site {
    lab: Lab,
    _internet: Internet,
    server_host: Namespace,
    wans: [Nat; 2],
    cable: String,
    gateway: Namespace,
    peer: Namespace,
}

impl Site {
    fn build() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let internet = Internet::new(&lab)?;
        let server_host = internet.host(&lab, "server", 10)?;
        let mut wans = [internet.nat(&lab, "wan1", 21, 0)?, internet.nat(&lab, "wan2", 22, 128)?];
        let gateway = lab.namespace("gw")?;
        let cable = wans[0].plug(&gateway, "wan1", 100)?;
        wans[1].plug(&gateway, "wan2", 200)?;
        let peer = internet.host(&lab, "peer", 50)?;
        Ok(Self { lab, _internet: internet, server_host, wans, cable, gateway, peer })
    }

    fn node<'lab>(&'lab self, host: &'lab Namespace, server: &Server<'_>) -> anyhow::Result<Node<'lab>> {
        let options = node::Options { certificate: Some(server.certificate()), ..node::Options::default() };
        Node::start(host, self.lab.folder(), self.lab.tag(), options)
    }
}

/// Pings `to` from `from` while `fault` happens, and returns how long nothing was answered, by the pings lost.
fn outage(from: &Node<'_>, to: &str, fault: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let address = from.peer_address(to)?;
    let mut ping = from.host().command("ping")?;
    ping.args(["-i", &format!("0.{EVERY_MS:03}"), "-w", "9", "-q", &address.to_string()]);
    let mut ping = from.host().start("ping", &mut ping)?;
    std::thread::scope(|_| fault())?;
    until("the pings have ended", SOON, || ping.ended())?;
    let log = ping.log();
    let numbers: Vec<u32> = log
        .lines()
        .rfind(|line| line.contains("packets transmitted"))
        .with_context(|| log.clone())?
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    let (sent, received) = (numbers[0], numbers[1]);
    if received <= 60 {
        let paths = from.run(&["debug", "paths"])?;
        anyhow::bail!("the path never came back:\n{paths}\n{}", from.process.log());
    }
    Ok(Duration::from_millis(u64::from((sent - received) * EVERY_MS)))
}

/// Where the peer sends to now, by its own word.
fn reaches_gateway_at(peer: &Node<'_>) -> anyhow::Result<String> {
    Ok(peer.peer("gw")?["CurAddr"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_pulled_cable_moves_the_peer_to_the_other_uplink() -> anyhow::Result<()> {
    if lab::skipped("a_pulled_cable_moves_the_peer_to_the_other_uplink") {
        return Ok(());
    }
    let site = Site::build()?;
    let server = Server::start(&site.server_host, site.lab.folder(), &[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let (gateway, peer) = (site.node(&site.gateway, &server)?, site.node(&site.peer, &server)?);
    gateway.up(&key, &[])?;
    peer.up(&key, &[])?;
    let routes = site.gateway.ip("route show table main")?;
    until("the peers know each other", SOON, || {
        gateway.peer_address("peer").ok().zip(peer.peer_address("gw").ok())
    })?;
    gateway.direct("peer", SOON).map_err(|error| error.context(gateway.process.log()))?;
    peer.direct("gw", SOON)?;
    until("both uplinks have found the peer", SOON, || {
        gateway.ping(gateway.peer_address("peer").ok()?);
        let paths = gateway.run(&["debug", "paths", "peer"]).ok()?;
        let answers = |uplink: &str| paths.lines().any(|line| line.contains(uplink) && line.contains("ms "));
        (answers("wan1") && answers("wan2")).then_some(())
    })
    .map_err(|error| error.context(gateway.run(&["debug", "paths"]).unwrap_or_default()))?;
    let pinned = || site.gateway.ip("route show table 53");
    assert!(pinned()?.contains("203.0.113.50 via 192.0.2.1 dev wan1"), "{}", pinned()?);

    for (from, to) in [(&gateway, "peer"), (&peer, "gw")] {
        // The other end of the cable goes down: the gateway sees the carrier go.
        let router = site.wans[0].router();
        let pulled = outage(from, to, || router.ip(&format!("link set {} down", site.cable)).map(drop))?;
        println!("pulled, pings from {}: {pulled:?}", from.host().name());
        assert!(pulled <= LIMIT, "a pulled cable cost {pulled:?}");
        assert!(
            pinned()?.contains("203.0.113.50 via 192.0.2.129 dev wan2") || pinned()?.is_empty(),
            "{}",
            pinned()?
        );
        assert!(reaches_gateway_at(&peer)?.starts_with("203.0.113.22:"), "{}", reaches_gateway_at(&peer)?);
        router.ip(&format!("link set {} up", site.cable))?;
        until("the preferred uplink is used again", SOON, || {
            from.ping(from.peer_address(to).ok()?);
            pinned().ok()?.contains("dev wan1").then_some(())
        })?;

        // Nothing passes, and nothing tells so.
        let silence = "nft 'table inet cut { chain f { type filter hook forward priority -20; drop; }; }'";
        let silent = outage(from, to, || router.sh(silence).map(drop))?;
        println!("silent, pings from {}: {silent:?}", from.host().name());
        assert!(silent <= LIMIT, "a silent uplink cost {silent:?}");
        assert!(pinned()?.contains("dev wan2"), "{}", pinned()?);
        router.sh("nft delete table inet cut")?;
        until("the preferred uplink is used again", 2 * SOON, || {
            from.ping(from.peer_address(to).ok()?);
            pinned().ok()?.contains("dev wan1").then_some(())
        })?;
    }
    assert_eq!(site.gateway.ip("route show table main")?, routes, "the machine's own routes");
    gateway.run(&["down"])?;
    assert_eq!(pinned()?, "");
    Ok(())
}
