//! Peer relays between stock Tailscale and us, both ways: hard NATs in front of both clients leave no direct path.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lab::{Internet, Lab, Namespace, Nat, Node, Server, Stock, node, stock, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(90);
const PROGRAMS: [&str; 2] = ["tailscale", "tailscaled"];

/// Everybody reaches everybody, and may relay by machines with the tag.
const POLICY: &str = r#"{
    "tagOwners": {"tag:relay": ["alice@"]},
    "grants": [
        {"src": ["*"], "dst": ["*"], "ip": ["*"]},
        {"src": ["*"], "dst": ["tag:relay"], "app": {"tailscale.com/cap/relay": []}},
    ],
}"#;

/// Server and relays in public, two clients behind hard NATs.
struct Sites {
    lab: Lab,
    server: Namespace,
    relays: [Namespace; 2],
    a: Namespace,
    b: Namespace,
    _nats: [Nat; 2],
    _internet: Internet,
}

impl Sites {
    fn build() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let internet = Internet::new(&lab)?;
        let server = internet.host(&lab, "server", 10)?;
        let relays = [internet.host(&lab, "r1", 31)?, internet.host(&lab, "r2", 32)?];
        let mut nat_a = internet.hard_nat(&lab, "nat-a", 21, 0)?;
        let mut nat_b = internet.hard_nat(&lab, "nat-b", 22, 128)?;
        let (a, b) = (nat_a.host(&lab, "a")?, nat_b.host(&lab, "b")?);
        Ok(Self { lab, server, relays, a, b, _nats: [nat_a, nat_b], _internet: internet })
    }

    /// The server with the policy; an auth key of a user's machine and one of a relay.
    fn serve(&self) -> anyhow::Result<(Server<'_>, String, String)> {
        let policy = self.lab.folder().join("policy.hujson");
        std::fs::write(&policy, POLICY)?;
        let server =
            Server::start(&self.server, self.lab.folder(), &["--policy", &policy.to_string_lossy()])?;
        let key = server.auth_key("alice", &["--reusable"])?;
        let tagged = server.auth_key("alice", &["--reusable", "--tags", "tag:relay"])?;
        Ok((server, key, tagged))
    }

    fn node<'lab>(&'lab self, host: &'lab Namespace, server: &Server<'_>) -> anyhow::Result<Node<'lab>> {
        let options = node::Options { certificate: Some(server.certificate()), ..node::Options::default() };
        Node::start(host, self.lab.folder(), self.lab.tag(), options)
    }

    fn stock<'lab>(&'lab self, host: &'lab Namespace, server: &Server<'_>) -> anyhow::Result<Stock<'lab>> {
        Stock::start(host, self.lab.folder(), self.lab.tag(), &server.certificate())
    }
}

/// Either kind of client.
trait Client {
    fn name(&self) -> &str;
    fn peer(&self, name: &str) -> anyhow::Result<Value>;
    fn ping(&self, address: IpAddr) -> bool;
    fn log(&self) -> String;

    fn address_of(&self, name: &str) -> Option<IpAddr> {
        self.peer(name).ok()?["TailscaleIPs"][0].as_str()?.parse().ok()
    }

    /// Waits until it reaches `name` through a relay at `relay`, while packets keep the path in use; returns the place.
    fn relayed(&self, name: &str, relay: &str) -> anyhow::Result<String> {
        let what = format!("{} reaches {name} through the relay {relay}", self.name());
        let address = until(&format!("{} knows {name}", self.name()), SOON, || self.address_of(name))?;
        until(&what, SOON, || {
            self.ping(address);
            let place = self.peer(name).ok()?["PeerRelay"].as_str()?.to_owned();
            place.starts_with(relay).then_some(place)
        })
        .map_err(|error| error.context(self.log()))
    }

    /// How many of `count` echoes were not answered.
    fn lost(&self, name: &str, count: usize) -> usize {
        let address = self.address_of(name).expect("it is known by now");
        (0..count).filter(|_| !self.ping(address)).count()
    }
}

impl Client for Stock<'_> {
    fn name(&self) -> &str {
        self.host().name()
    }
    fn peer(&self, name: &str) -> anyhow::Result<Value> {
        Stock::peer(self, name)
    }
    fn ping(&self, address: IpAddr) -> bool {
        Stock::ping(self, address)
    }
    fn log(&self) -> String {
        self.process.log()
    }
}

impl Client for Node<'_> {
    fn name(&self) -> &str {
        self.host().name()
    }
    fn peer(&self, name: &str) -> anyhow::Result<Value> {
        Node::peer(self, name)
    }
    fn ping(&self, address: IpAddr) -> bool {
        Node::ping(self, address)
    }
    fn log(&self) -> String {
        self.process.log()
    }
}

/// What our relay says of its one session.
fn one_session(relay: &Node<'_>) -> anyhow::Result<Value> {
    until("the relay has one open session", SOON, || {
        let report = relay.status().ok()?["Underpass"]["PeerRelay"].clone();
        (report["Open"] == 1).then_some(report)
    })
}

/// Bytes that a relay has forwarded so far.
fn forwarded(relay: &Node<'_>) -> anyhow::Result<u64> {
    let metrics = relay.run(&["metrics"])?;
    let lines =
        metrics.lines().filter(|line| line.starts_with("tailscaled_peer_relay_forwarded_bytes_total{"));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

#[test]
fn stock_clients_meet_on_our_relay() -> anyhow::Result<()> {
    if stock::skipped("stock_clients_meet_on_our_relay", &PROGRAMS) {
        return Ok(());
    }
    let sites = Sites::build()?;
    let (server, key, tagged) = sites.serve()?;
    let relay = sites.node(&sites.relays[0], &server)?;
    relay.up(&tagged, &[])?;
    // The stock command drives it.
    let set = stock::command_line(relay.host(), &relay.socket(), &["set", "--relay-server-port=7777"])?;
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let (a, b) = (sites.stock(&sites.a, &server)?, sites.stock(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    let told = |error: anyhow::Error| error.context(relay.process.log());
    let place = a.relayed("b", "203.0.113.31:7777:vni:").map_err(told)?;
    assert_eq!(b.relayed("a", "203.0.113.31:7777:vni:").map_err(told)?, place);
    assert_eq!(a.lost("b", 10), 0);
    let pong = a.run(&["ping", "--c", "3", "--until-direct=false", &a.peer_address("b")?.to_string()])?;
    assert!(pong.contains(&format!("via peer-relay({place})")), "{pong}");

    let report = one_session(&relay)?;
    assert!(report["Sessions"][0]["Client1"]["PacketsTx"].as_u64() > Some(10), "{report}");
    let sessions = stock::command_line(relay.host(), &relay.socket(), &["debug", "peer-relay-sessions"])?;
    let text = String::from_utf8_lossy(&sessions.stdout);
    assert!(sessions.status.success() && text.contains("203.0.113.2"), "{text}");
    let metrics = relay.run(&["metrics"])?;
    assert!(metrics.contains("tailscaled_peer_relay_endpoints{state=\"open\"} 1"), "{metrics}");
    let counted = |line: &&str| {
        line.starts_with(
            "tailscaled_peer_relay_forwarded_packets_total{transport_in=\"udp4\",transport_out=\"udp4\"}",
        )
    };
    let forwarded =
        metrics.lines().find(counted).and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    assert!(forwarded > Some(20), "{metrics}");
    assert!(relay.run(&["status"])?.contains("# Peer relay: 203.0.113.31:7777"));
    Ok(())
}

#[test]
fn our_node_and_a_stock_client_meet_on_a_stock_relay() -> anyhow::Result<()> {
    if stock::skipped("our_node_and_a_stock_client_meet_on_a_stock_relay", &PROGRAMS) {
        return Ok(());
    }
    let sites = Sites::build()?;
    let (server, key, tagged) = sites.serve()?;
    let relay = sites.stock(&sites.relays[0], &server)?;
    relay.up(&tagged, &[])?;
    relay.run(&["set", "--relay-server-port=7777"])?;
    let (a, b) = (sites.node(&sites.a, &server)?, sites.stock(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    let place = a.relayed("b", "203.0.113.31:7777:vni:")?;
    assert_eq!(b.relayed("a", "203.0.113.31:7777:vni:").map_err(|error| error.context(a.log()))?, place);
    assert_eq!((a.lost("b", 10), b.lost("a", 10)), (0, 0));
    assert!(a.run(&["status"])?.contains(&format!("peer-relay {place}")));
    let pong = a.run(&["ping", "--c", "3", "--until-direct=false", &a.peer_address("b")?.to_string()])?;
    assert!(pong.contains(&place), "{pong}");
    Ok(())
}

#[test]
fn two_of_ours_meet_on_our_relay_and_leave_a_dead_one() -> anyhow::Result<()> {
    if stock::skipped("two_of_ours_meet_on_our_relay_and_leave_a_dead_one", &[]) {
        return Ok(());
    }
    let sites = Sites::build()?;
    let (server, key, tagged) = sites.serve()?;
    let mut relays = Vec::new();
    for host in &sites.relays {
        let relay = sites.node(host, &server)?;
        relay.up(&tagged, &["--relay-server-port=7777"])?;
        relays.push(relay);
    }
    let (a, b) = (sites.node(&sites.a, &server)?, sites.node(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    let place = a.relayed("b", "203.0.113.3")?;
    b.relayed("a", "203.0.113.3")?;
    assert_eq!(a.lost("b", 10), 0);

    assert!(place.starts_with("203.0.113.3"), "{place}");
    // Both are bound before one dies: the one that packets take now.
    for relay in &relays {
        one_session(relay)?;
    }
    let before = (forwarded(&relays[0])?, forwarded(&relays[1])?);
    assert_eq!(a.lost("b", 8), 0);
    let grown = (forwarded(&relays[0])? - before.0, forwarded(&relays[1])? - before.1);
    let (used, other) = if grown.0 > grown.1 { (0, 1) } else { (1, 0) };
    relays[used].host().ip("link set wan down")?;
    let died = Instant::now();
    let address = a.address_of("b").expect("b is known");
    until("packets pass again", SOON, || a.ping(address).then_some(()))?;
    let took = died.elapsed();
    assert!(took < Duration::from_secs(4), "packets pass again after {took:?}");
    println!("a dead relay was left after {took:?}");
    a.relayed("b", &format!("203.0.113.3{}:7777", other + 1))?;
    Ok(())
}

/// A restart of the relay's controller: pairs stay bound, by the same numbers.
#[test]
fn a_restarted_relay_adopts_its_sessions() -> anyhow::Result<()> {
    if stock::skipped("a_restarted_relay_adopts_its_sessions", &PROGRAMS) {
        return Ok(());
    }
    let sites = Sites::build()?;
    let (server, key, tagged) = sites.serve()?;
    let mut relay = sites.node(&sites.relays[0], &server)?;
    relay.up(&tagged, &["--relay-server-port=7777"])?;
    let (a, b) = (sites.stock(&sites.a, &server)?, sites.stock(&sites.b, &server)?);
    a.up(&key, &[])?;
    b.up(&key, &[])?;
    let place = a.relayed("b", "203.0.113.31:7777:vni:")?;
    b.relayed("a", "203.0.113.31:7777:vni:")?;
    let before = one_session(&relay)?;
    until("the session is written down", SOON, || {
        let text = std::fs::read_to_string(relay.state().join("relay.json")).ok()?;
        text.contains("\"vni\"").then_some(())
    })?;
    relay.process.kill()?;
    relay.relaunch()?;
    relay.ready()?;
    let after = one_session(&relay)?;
    assert_eq!(after["Sessions"][0]["VNI"], before["Sessions"][0]["VNI"]);
    assert_eq!(a.lost("b", 10), 0);
    assert_eq!(a.peer("b")?["PeerRelay"], place);
    Ok(())
}
