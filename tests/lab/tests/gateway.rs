//! Subnet routers and exit nodes in the lab: real nodes, a real LAN, with and without the programs' short way.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::{Internet, Lab, Namespace, Nat, Node, Server, node, until};

const SOON: Duration = Duration::from_secs(60);
const LAN: &str = "198.51.100.0/24";
const LAN_HOST: &str = "198.51.100.2";
const OUTER: &str = "198.51.100.1";

/// A server, a site behind a NAT, a gateway with a LAN.
struct Site {
    lab: Lab,
    _internet: Internet,
    _nat: Nat,
    server: Namespace,
    site: Namespace,
    gateway: Namespace,
    lan: Namespace,
}

impl Site {
    fn build() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let internet = Internet::new(&lab)?;
        let server = internet.host(&lab, "server", 10)?;
        let mut nat = internet.nat(&lab, "nat-a", 21, 0)?;
        let site = nat.host(&lab, "a")?;
        let gateway = internet.host(&lab, "gw", 40)?;
        let lan = lab::internet::lan(&lab, &gateway, "lan")?;
        Ok(Self { lab, _internet: internet, _nat: nat, server, site, gateway, lan })
    }

    fn server(&self) -> anyhow::Result<Server<'_>> {
        Server::start(&self.server, self.lab.folder(), &[])
    }

    fn node<'lab>(
        &'lab self,
        host: &'lab Namespace,
        server: &Server<'_>,
        flags: &[&str],
    ) -> anyhow::Result<Node<'lab>> {
        let options = node::Options {
            certificate: Some(server.certificate()),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..node::Options::default()
        };
        Node::start(host, self.lab.folder(), self.lab.tag(), options)
    }

    /// The site's node and the gateway, both up, the LAN within reach.
    fn joined<'lab>(
        &'lab self,
        server: &Server<'_>,
        gateway_flags: &[&str],
        up: &[&str],
    ) -> anyhow::Result<(Node<'lab>, Node<'lab>)> {
        let key = server.auth_key("alice", &["--reusable"])?;
        let a = self.node(&self.site, server, &[])?;
        let gateway = self.node(&self.gateway, server, gateway_flags)?;
        gateway.up(&key, &[&["--advertise-routes", LAN][..], up].concat())?;
        a.up(&key, &["--accept-routes"])?;
        let nodes = server.admin_json(&["nodes", "list"])?;
        server.admin(&["nodes", "approve-routes", &nodes[0]["id"].to_string(), LAN])?;
        let host = LAN_HOST.parse()?;
        until("the LAN answers", SOON, || a.ping(host).then_some(()))
            .map_err(|error| error.context(format!("{}\n{}", a.process.log(), gateway.process.log())))?;
        Ok((a, gateway))
    }
}

/// Who the LAN's host says has connected to it.
fn seen_by_lan(site: &Site, from: &Node<'_>) -> anyhow::Result<String> {
    let command = "socat TCP-LISTEN:8000,fork,reuseaddr SYSTEM:'echo $SOCAT_PEERADDR; cat'";
    let _server = site.lan.start("who", site.lan.command("sh")?.args(["-c", command]))?;
    until("the LAN's host tells whom it sees", SOON, || {
        let ask = format!("echo hello | socat -T 2 - TCP:{LAN_HOST}:8000,connect-timeout=2");
        let answer = from.host().sh(&ask).ok()?;
        answer.contains("hello").then(|| answer.lines().next().unwrap_or_default().trim().to_owned())
    })
}

/// Packets of a program under a reason, by the metrics.
fn counted(node: &Node<'_>, program: &str, reason: &str) -> u64 {
    let metrics = node.run(&["metrics"]).unwrap_or_default();
    let is_it =
        |line: &&str| line.contains(&format!("\"{program}\"")) && line.contains(&format!("\"{reason}\""));
    let value = metrics.lines().find(is_it).and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or(0)
}

/// Pings the LAN `count` times and says how many were answered.
fn pings(from: &Node<'_>, count: u32) -> anyhow::Result<String> {
    from.host().sh(&format!("ping -q -i 0.01 -c {count} -W 2 {LAN_HOST} || true"))
}

#[test]
fn a_lan_is_reached_by_the_short_way_hidden_behind_the_gateway() -> anyhow::Result<()> {
    if lab::skipped("a_lan_is_reached_by_the_short_way_hidden_behind_the_gateway") {
        return Ok(());
    }
    let site = Site::build()?;
    let server = site.server()?;
    let (a, gateway) = site.joined(&server, &[], &[])?;
    ensure!(seen_by_lan(&site, &a)? == OUTER, "the LAN sees the gateway only");
    let status = gateway.run(&["status"])?;
    ensure!(status.contains("fast path on"), "{status}");
    let before = (counted(&gateway, "from_tunnel", "forwarded"), counted(&gateway, "to_tunnel", "forwarded"));
    let answered = pings(&a, 100)?;
    ensure!(answered.contains(" 0% packet loss"), "{answered}");
    let after = (counted(&gateway, "from_tunnel", "forwarded"), counted(&gateway, "to_tunnel", "forwarded"));
    ensure!(after.0 >= before.0 + 90 && after.1 >= before.1 + 90, "{before:?} {after:?}");
    Ok(())
}

#[test]
fn a_lan_that_knows_the_way_back_sees_the_peers_themselves() -> anyhow::Result<()> {
    if lab::skipped("a_lan_that_knows_the_way_back_sees_the_peers_themselves") {
        return Ok(());
    }
    let site = Site::build()?;
    let server = site.server()?;
    let (a, gateway) = site.joined(&server, &[], &["--snat-subnet-routes=false"])?;
    let own = until("a has an address", SOON, || gateway.peer_address("a").ok())?;
    ensure!(seen_by_lan(&site, &a)? == own.to_string(), "the LAN sees the peer");
    ensure!(counted(&gateway, "from_tunnel", "forwarded") > 0, "by the short way");
    Ok(())
}

#[test]
fn without_the_short_way_all_is_the_same_but_slower() -> anyhow::Result<()> {
    if lab::skipped("without_the_short_way_all_is_the_same_but_slower") {
        return Ok(());
    }
    let site = Site::build()?;
    let server = site.server()?;
    let (a, gateway) = site.joined(&server, &["--fastpath", "off"], &[])?;
    ensure!(seen_by_lan(&site, &a)? == OUTER, "the LAN sees the gateway only");
    let status = gateway.run(&["status"])?;
    ensure!(status.contains("fast path off"), "{status}");
    ensure!(counted(&gateway, "from_tunnel", "forwarded") == 0, "nothing takes the short way");
    Ok(())
}

/// Rows 1 and 9 of the fault list: the controller is dead, the ruleset flushed, and packets move, still hidden.
#[test]
fn row_9_a_flushed_ruleset_loses_nothing_and_is_put_back_within_a_second() -> anyhow::Result<()> {
    if lab::skipped("row_9_a_flushed_ruleset_loses_nothing_and_is_put_back_within_a_second") {
        return Ok(());
    }
    let site = Site::build()?;
    let server = site.server()?;
    let (a, mut gateway) = site.joined(&server, &[], &[])?;
    let table = || site.gateway.sh("nft list tables").is_ok_and(|tables| tables.contains("underpass_"));
    ensure!(table(), "there is no table to flush");
    site.gateway.sh("nft flush ruleset")?;
    until("the table is back", Duration::from_secs(1), || table().then_some(()))?;
    // A part of it, and the rest stays.
    let list = "nft list tables | grep underpass_ | cut -d' ' -f2-";
    site.gateway.sh(&format!("nft flush chain $({list}) served"))?;
    let rules = || site.gateway.sh(&format!("nft list chain $({list}) served")).unwrap_or_default();
    until("the rule is back", Duration::from_secs(1), || rules().contains("masquerade").then_some(()))?;

    gateway.process.kill()?;
    site.gateway.sh("nft flush ruleset")?;
    let answered = pings(&a, 200)?;
    ensure!(answered.contains(" 0% packet loss"), "{answered}");
    ensure!(seen_by_lan(&site, &a)? == OUTER, "a new connection is hidden as well");
    gateway.relaunch()?;
    until("the table is back after a restart", SOON, || table().then_some(()))?;
    let answered = pings(&a, 50)?;
    ensure!(answered.contains(" 0% packet loss"), "{answered}");
    Ok(())
}

#[test]
fn down_leaves_the_forwarding_switch_as_it_was() -> anyhow::Result<()> {
    if lab::skipped("down_leaves_the_forwarding_switch_as_it_was") {
        return Ok(());
    }
    let site = Site::build()?;
    site.gateway.sh("echo 0 > /proc/sys/net/ipv4/ip_forward")?;
    let server = site.server()?;
    let (_a, gateway) = site.joined(&server, &[], &[])?;
    let switch = || site.gateway.sh("cat /proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    ensure!(switch().trim() == "1");
    gateway.run(&["down"]).context("down")?;
    ensure!(switch().trim() == "0", "it was off before");
    let left =
        site.gateway.sh("nft list ruleset; ip rule; ls /sys/fs/bpf/underpass/*/ 2>/dev/null || true")?;
    ensure!(!left.contains("underpass_") && !left.contains(gateway.device()), "{left}");
    Ok(())
}
