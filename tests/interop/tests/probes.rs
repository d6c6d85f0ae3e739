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

/// One of two relays of a region; nobody but the other one and a prober with the mesh key is admitted, for the verifier is
/// not there.
fn relay(
    host: &lab::Namespace,
    lab: &Lab,
    certificate: &std::path::Path,
    other: &str,
) -> anyhow::Result<lab::Process> {
    let mut command = host.command(lab::underpass()?)?;
    let state = lab.folder().join(format!("relay-{}", host.name()));
    command.arg("relay").arg("--state").arg(state);
    command.arg("--tls").arg(format!("{0},{0}", certificate.display()));
    command.args(["--verify-url", "http://127.0.0.1:9/verify", "--mesh-with", other, "--mesh-key-file"]);
    command.arg(lab.folder().join("mesh.key")).env("SSL_CERT_FILE", certificate);
    host.start("relay", &mut command)
}

#[test]
fn derpprobe_finds_the_mesh_of_two_relays_in_order() -> anyhow::Result<()> {
    if stock::skipped("derpprobe_finds_the_mesh_of_two_relays_in_order", &["derpprobe"]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let internet = Internet::new(&lab)?;
    let (one, two) = (internet.host(&lab, "one", 11)?, internet.host(&lab, "two", 12)?);
    let client = internet.host(&lab, "client", 31)?;
    let certificate = lab.folder().join("relays.pem");
    client.sh(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=relay \
         -addext subjectAltName=DNS:one.example,DNS:two.example -keyout {0}.key -out {0} 2>/dev/null && \
         cat {0}.key >> {0} && openssl rand -hex 32 > {1}/mesh.key",
        certificate.display(),
        lab.folder().display()
    ))?;
    // Each is told of both: a server leaves itself out.
    let both = "one.example/203.0.113.11,two.example/203.0.113.12";
    let relays = [relay(&one, &lab, &certificate, both)?, relay(&two, &lab, &certificate, both)?];
    for relay in &relays {
        until("the relays know each other", SOON, || {
            relay.log().contains("mesh with another server").then_some(())
        })
        .map_err(|error| error.context(relay.log()))?;
    }
    let node = |name: &str, host: &str, ip: &str| {
        format!(
            r#"{{"Name":"{name}","RegionID":901,"HostName":"{host}.example","IPv4":"{ip}","DERPPort":443}}"#
        )
    };
    let nodes = [node("901a", "one", "203.0.113.11"), node("901b", "two", "203.0.113.12")].join(",");
    let map = format!(
        r#"{{"Regions":{{"901":{{"RegionID":901,"RegionCode":"m","RegionName":"m","Nodes":[{nodes}]}}}}}}"#
    );
    std::fs::write(lab.folder().join("derp.json"), map)?;
    let derpprobe = stock::program("derpprobe").map(|path| path.display().to_string()).unwrap_or_default();
    let line = format!(
        "cd {} && SSL_CERT_FILE={} {derpprobe} -once -derp-map file://$PWD/derp.json -mesh-psk-file mesh.key \
         -tls-interval 0 -stun-interval 0 -mesh-interval 5s -spread=false 2>&1",
        lab.folder().display(),
        certificate.display()
    );
    // It gives the relays 100 ms to tell each other of its clients and sends once; a loaded machine may need a second try.
    let mut last = String::new();
    let content = until("derpprobe is content", SOON, || {
        last = client.shell(&line).map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).ok()?;
        let pairs = ["901a/901b", "901b/901a", "901a/901a", "901b/901b"];
        let good = |pair: &&str| last.contains(&format!("good: derp/m/{pair}"));
        (pairs.iter().all(good) && !last.contains("bad: ")).then_some(())
    });
    let logs = || relays.iter().map(lab::Process::log).collect::<Vec<_>>().join("\n");
    content.map_err(|error| error.context(format!("{last}\n{}", logs())))
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
