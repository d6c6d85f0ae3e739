//! Tailscale's own tools against our server: `tsp` registers and streams, `stunc` and `derpprobe` measure the relay; and our
//! node on Tailscale's coordination server for tests.

use std::time::Duration;

use lab::{Internet, Lab, Node, Server, node, stock, until};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn tsp_registers_and_streams_a_map() -> anyhow::Result<()> {
    if stock::skipped("tsp_registers_and_streams_a_map", &["tsp"]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let internet = Internet::new(&lab)?;
    let (server_host, client) = (internet.host(&lab, "server", 10)?, internet.host(&lab, "client", 31)?);
    let server = Server::start(&server_host, lab.folder(), &[])?;
    let key = server.auth_key("alice", &[])?;
    let tsp = stock::program("tsp").map(|path| path.display().to_string()).unwrap_or_default();
    let dir = lab.folder().display();
    let certificate = server.certificate().display().to_string();
    let url = Server::url();
    let run =
        |line: &str| client.sh(&format!("cd {dir} && SSL_CERT_FILE={certificate} {tsp} -s {url} {line}"));
    run("new-node -o node.json")?;
    run(&format!("register -n node.json --auth-key {key} --hostname tsp"))?;
    let map = run("map -n node.json")?;
    assert!(map.contains("\"Node\""), "{map}");
    assert!(map.contains("\"DERPMap\""), "{map}");
    Ok(())
}

#[test]
fn stunc_and_derpprobe_find_our_relay_in_order() -> anyhow::Result<()> {
    if stock::skipped("stunc_and_derpprobe_find_our_relay_in_order", &["stunc", "derpprobe"]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let internet = Internet::new(&lab)?;
    let (server_host, client) = (internet.host(&lab, "server", 10)?, internet.host(&lab, "client", 31)?);
    let server = Server::start(&server_host, lab.folder(), &[])?;
    let stunc = stock::program("stunc").map(|path| path.display().to_string()).unwrap_or_default();
    let seen = client.sh(&format!("{stunc} 203.0.113.10 2>&1"))?;
    assert!(seen.contains("203.0.113.31"), "{seen}");

    // derpprobe's own keys are in no network, so the relay must refuse its data; what it may see is TLS and STUN.
    let map = lab.folder().join("derp.json");
    let pem = std::fs::read_to_string(server.certificate())?;
    assert!(pem.starts_with("-----BEGIN CERTIFICATE"), "{pem}");
    std::fs::write(
        &map,
        r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"up","RegionName":"up","Nodes":[{"Name":"900a","RegionID":900,
        "HostName":"203.0.113.10","IPv4":"203.0.113.10","DERPPort":443,"STUNPort":3478}]}}}"#,
    )?;
    let derpprobe = stock::program("derpprobe").map(|path| path.display().to_string()).unwrap_or_default();
    let output = client.shell(&format!(
        "SSL_CERT_FILE={} {derpprobe} -once -derp-map file://{} -tls-interval 1s -stun-interval 1s -mesh-interval 0 2>&1",
        server.certificate().display(),
        map.display()
    ))?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("good: "), "{text}");
    assert!(!text.contains("bad: "), "{text}");
    Ok(())
}

#[test]
fn our_node_joins_tailscales_test_server_with_a_hundred_peers() -> anyhow::Result<()> {
    if stock::skipped("our_node_joins_tailscales_test_server_with_a_hundred_peers", &["testcontrol", "tsp"]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let host = lab.namespace("node")?;
    let testcontrol = stock::program("testcontrol").unwrap_or_default();
    let _control = host.start("testcontrol", host.command(testcontrol)?.args(["-nfake", "100"]))?;
    let node = Node::start(&host, lab.folder(), lab.tag(), node::Options::default())?;
    let up = |timeout: &str| {
        node.run(&[
            "up",
            "--login-server",
            "http://127.0.0.1:9911",
            "--auth-key",
            "any",
            "--timeout",
            timeout,
        ])
    };
    until("testcontrol listens", SOON, || {
        host.sh("ss -Hltn sport = :9911").ok().filter(|text| !text.is_empty())
    })?;
    up("30s").map_err(|error| error.context(node.process.log()))?;
    let count = || node.status().ok()?["Peer"].as_object().map(serde_json::Map::len);
    until("a hundred peers are known", SOON, || (count()? >= 100).then_some(()))
        .map_err(|error| error.context(node.process.log()))?;
    let before = count();

    // Another node registers, and the stream tells it.
    let tsp = stock::program("tsp").unwrap_or_default();
    let tsp = format!("cd {} && {} -s http://127.0.0.1:9911", lab.folder().display(), tsp.display());
    host.sh(&format!("{tsp} new-node -o late.json"))?;
    host.sh(&format!("{tsp} register -n late.json --auth-key tskey-any --hostname late"))?;
    until("the stream tells of a node that came later", SOON, || (count() > before).then_some(()))
        .map_err(|error| error.context(node.process.log()))
}
