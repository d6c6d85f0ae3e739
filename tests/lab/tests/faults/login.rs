//! Faults on the way into the network: keys, URLs, clocks, a server that dies.

use std::path::PathBuf;

use lab::{Node, Server, node, until};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair};

use crate::{Bench, SOON, complains, listening, warns};

#[test]
fn auth_keys_that_do_not_admit_say_why() -> anyhow::Result<()> {
    if lab::skipped("auth_keys_that_do_not_admit_say_why") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let node = bench.node(&server)?;
    let up = |key: &str| {
        node.cli(&["up", "--login-server", &Server::url(), "--auth-key", key, "--timeout", "10s"])
    };
    complains(&up("underpass-auth-nonsense")?, &["key is not known to this server", "complete"]);
    let revoked = server.auth_key("alice", &["--reusable"])?;
    let keys = server.admin_json(&["keys", "list"])?;
    server.admin(&["keys", "revoke", &keys[0]["id"].to_string()])?;
    complains(&up(&revoked)?, &["revoked", "ask for a new one"]);
    let expired = server.auth_key("alice", &["--expires", "1ms"])?;
    complains(&up(&expired)?, &["expired at", "ask for a new one"]);
    let used = server.auth_key("alice", &[])?;
    let other = bench.node_on(&bench.other, &server, node::Options::default())?;
    other.up(&used, &[])?;
    complains(&up(&used)?, &["already been used (1 of 1 uses)", "ask for a new one"]);
    node.up(&server.auth_key("alice", &[])?, &[])?;
    let health = node.status()?["Health"].clone();
    assert_eq!(health.as_array().map(Vec::len), Some(0), "a warning outlived its cause: {health}");
    Ok(())
}

#[test]
fn a_wrong_server_url_is_named() -> anyhow::Result<()> {
    if lab::skipped("a_wrong_server_url_is_named") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let node = bench.node(&server)?;
    let up = |url: &str| {
        node.cli(&["up", "--login-server", url, "--auth-key", "underpass-auth-x", "--timeout", "5s"])
    };
    complains(&up("https://203.0.113.10:4")?, &["203.0.113.10 port 4", "refused", "Check the URL"]);
    complains(&up("nonsense")?, &["nonsense"]);
    // TLS where plain HTTP is spoken.
    let _plain = bench.another_server("http://203.0.113.10:8080", 8080, &["--tls", "off"])?;
    complains(&up("https://203.0.113.10:8080")?, &["203.0.113.10", "does not speak TLS", "http"]);
    // Something that is no control server at all.
    let page = bench.file("page", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
    let mut socat = bench.host.command("socat")?;
    socat.args(["TCP-LISTEN:8081,fork,reuseaddr".to_owned(), format!("SYSTEM:cat {}", page.display())]);
    let _web = bench.host.start("web", &mut socat)?;
    listening(&bench.host, 8081)?;
    complains(&up("http://127.0.0.1:8081")?, &["127.0.0.1:8081", "not a control server", "--login-server"]);
    Ok(())
}

#[test]
fn plain_http_where_tls_is_spoken_is_named() -> anyhow::Result<()> {
    if lab::skipped("plain_http_where_tls_is_spoken_is_named") {
        return Ok(());
    }
    let bench = Bench::build()?;
    // Not on port 443: there a node tries TLS by itself when plain HTTP fails, as stock clients do.
    let _server = bench.another_server("https://203.0.113.10:8443", 8443, &[])?;
    let node = Node::start(&bench.host, bench.lab.folder(), bench.lab.tag(), node::Options::default())?;
    let output = node.cli(&[
        "up",
        "--login-server",
        "http://203.0.113.10:8443",
        "--auth-key",
        "x",
        "--timeout",
        "5s",
    ])?;
    complains(&output, &["does not speak plain HTTP", "https"]);
    Ok(())
}

#[test]
fn an_untrusted_certificate_is_named_with_the_remedy() -> anyhow::Result<()> {
    if lab::skipped("an_untrusted_certificate_is_named_with_the_remedy") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let key = server.auth_key("alice", &[])?;
    let node = Node::start(&bench.host, bench.lab.folder(), bench.lab.tag(), node::Options::default())?;
    let output =
        node.cli(&["up", "--login-server", &Server::url(), "--auth-key", &key, "--timeout", "5s"])?;
    complains(&output, &["certificate of 203.0.113.10 is not trusted", "SSL_CERT_FILE"]);
    Ok(())
}

/// Words before a program that shift its clock by `days`; none, with the line that counts as skipped, without libfaketime.
fn shifted_clock(test: &str, days: i32) -> Option<Vec<String>> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().filter_map(Result::ok);
    let library = folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.is_file());
    let Some(library) = library else {
        println!("SKIPPED: {test}: libfaketime not found (package faketime)");
        return None;
    };
    let words = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME={days:+}d"),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    Some(words.into())
}

#[test]
fn a_clock_off_by_a_year_works_and_is_told() -> anyhow::Result<()> {
    let name = "a_clock_off_by_a_year_works_and_is_told";
    if lab::skipped(name) {
        return Ok(());
    }
    let (Some(ahead), Some(behind)) = (shifted_clock(name, 366), shifted_clock(name, -366)) else {
        return Ok(());
    };
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let shifted = |wrapper| node::Options { wrapper, ..node::Options::default() };
    let node = bench.node_on(&bench.host, &server, shifted(ahead))?;
    let other = bench.node_on(&bench.other, &server, shifted(behind))?;
    node.up(&key, &[])?;
    other.up(&key, &[])?;
    for node in [&node, &other] {
        warns(node, &["clock", "316", "set it"])?;
    }
    let address = until("the peer is known", SOON, || node.peer_address("o").ok())?;
    until("two years apart, packets pass", SOON, || node.ping(address).then_some(()))?;
    Ok(())
}

#[test]
fn a_certificate_of_another_time_speaks_of_the_clock() -> anyhow::Result<()> {
    let name = "a_certificate_of_another_time_speaks_of_the_clock";
    if lab::skipped(name) {
        return Ok(());
    }
    let Some(behind) = shifted_clock(name, -366) else { return Ok(()) };
    let bench = Bench::build()?;
    let (certificate, key) = certificate_from_this_year(&bench)?;
    let server = bench.server(&["--tls", &format!("{},{}", certificate.display(), key.display())])?;
    let auth_key = server.auth_key("alice", &[])?;
    let options =
        node::Options { wrapper: behind, certificate: Some(certificate), ..node::Options::default() };
    let node = bench.node_on(&bench.host, &server, options)?;
    let url = Server::url();
    let output = node.cli(&["up", "--login-server", &url, "--auth-key", &auth_key, "--timeout", "5s"])?;
    complains(&output, &["203.0.113.10 is not valid at this machine's time", "Check the clock"]);
    Ok(())
}

/// A certificate for the server that was not valid a year ago, as PEM files.
fn certificate_from_this_year(bench: &Bench) -> anyhow::Result<(PathBuf, PathBuf)> {
    let year = i32::from(jiff::Zoned::now().year());
    let mut params = CertificateParams::new(["203.0.113.10".to_owned()])?;
    params.not_before = rcgen::date_time_ymd(year, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + 2, 1, 1);
    let pair = KeyPair::generate()?;
    let certificate = params.self_signed(&pair)?;
    Ok((bench.file("cert.pem", &certificate.pem())?, bench.file("key.pem", &pair.serialize_pem())?))
}

#[test]
fn a_server_killed_during_registration_costs_the_node_nothing() -> anyhow::Result<()> {
    if lab::skipped("a_server_killed_during_registration_costs_the_node_nothing") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let mut server = bench.server(&[])?;
    let key = server.auth_key("alice", &[])?;
    let node = bench.node(&server)?;
    // The server's kernel accepts the connection; the server itself never gets to answer.
    server.process.signal(Signal::SIGSTOP);
    let url = Server::url();
    let arguments = ["up", "--login-server", &url, "--auth-key", &key, "--timeout", "30s"];
    let output = std::thread::scope(|scope| {
        let up = scope.spawn(|| node.cli(&arguments));
        let connected = || {
            let sockets = node.host().sh("ss -Htn state established dport = :443").ok()?;
            (!sockets.is_empty()).then_some(())
        };
        until("the registration has begun", SOON, connected)?;
        server.process.kill()?;
        up.join().map_err(|_| anyhow::anyhow!("the waiting command panicked"))?
    })?;
    complains(&output, &["control server", "203.0.113.10", "The node keeps trying"]);
    server.restart(&[])?;
    until("the node is in", SOON, || (node.status().ok()?["BackendState"] == "Running").then_some(()))
        .map_err(|error| error.context(node.process.log()))?;
    assert_eq!(server.admin_json(&["nodes", "list"])?.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn an_expired_node_with_a_key_in_its_configuration_comes_back_by_itself() -> anyhow::Result<()> {
    if lab::skipped("an_expired_node_with_a_key_in_its_configuration_comes_back_by_itself") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let url = Server::url();
    let text = format!(r#"{{"version":"alpha0","ServerURL":"{url}","AuthKey":"{key}","Enabled":true}}"#);
    let config = bench.file("node.hujson", &text)?.display().to_string();
    let options = node::Options { flags: vec!["--config".into(), config], ..node::Options::default() };
    let node = bench.node_on(&bench.host, &server, options)?;
    let running = || {
        let status = node.status().ok()?;
        (status["BackendState"] == "Running").then(|| status["Self"]["PublicKey"].to_string())
    };
    let before = until("the node is up", SOON, running)
        .map_err(|error| error.context(node.process.log()).context(server.process.log()))?;
    let nodes = server.admin_json(&["nodes", "list"])?;
    server.admin(&["nodes", "expire", &nodes[0]["id"].to_string()])?;
    until("it is up with a new key", SOON, || running().filter(|now| *now != before))
        .map_err(|error| error.context(node.process.log()))?;
    let after = server.admin_json(&["nodes", "list"])?;
    assert_eq!(after.as_array().map(Vec::len), Some(1), "it is the same node: {after}");
    assert_eq!(after[0]["addresses"], nodes[0]["addresses"]);
    Ok(())
}
