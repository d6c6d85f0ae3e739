//! Policies that cannot be used: the one in force stays.

use std::path::Path;

use lab::{Node, Server, until};
use nix::sys::signal::Signal;

use crate::{Bench, SOON, complains, warns};

/// Everybody may reach this TCP port, and nothing else.
fn only(port: u16) -> String {
    format!(r#"{{"acls": [{{"action": "accept", "proto": "tcp", "src": ["*"], "dst": ["*:{port}"]}}]}}"#)
}

#[test]
fn a_policy_with_an_error_names_line_and_field() -> anyhow::Result<()> {
    if lab::skipped("a_policy_with_an_error_names_line_and_field") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let policy = bench.file("policy.hujson", "{\n  \"acls\": [],\n  \"postures\": {}\n}\n")?;
    let output = bench.failed_server(&["--policy", &policy.to_string_lossy()])?;
    complains(&output, &["policy.hujson", "line 3", "postures"]);
    let absent = bench.lab.folder().join("absent.hujson");
    complains(
        &bench.failed_server(&["--policy", &absent.to_string_lossy()])?,
        &["absent.hujson", "--policy"],
    );
    Ok(())
}

/// Two nodes under a policy that opens port 8000, both ports served on the second.
struct Ports<'lab> {
    server: Server<'lab>,
    a: Node<'lab>,
    b: Node<'lab>,
    _listeners: [lab::Process; 2],
}

impl<'lab> Ports<'lab> {
    fn serve(bench: &'lab Bench, policy: &Path) -> anyhow::Result<Self> {
        let server = bench.server(&["--policy", &policy.to_string_lossy()])?;
        let key = server.auth_key("alice", &["--reusable"])?;
        let a = bench.node(&server)?;
        let b = bench.node_on(&bench.other, &server, lab::node::Options::default())?;
        a.up(&key, &[])?;
        b.up(&key, &[])?;
        let listen = |port: u16| {
            let mut socat = bench.other.command("socat")?;
            socat.args([format!("TCP-LISTEN:{port},fork,reuseaddr"), format!("SYSTEM:echo {port}")]);
            bench.other.start(&port.to_string(), &mut socat)
        };
        let ports = Self { server, a, b, _listeners: [listen(8000)?, listen(9000)?] };
        ports.reached(8000)?;
        assert!(!ports.reaches(9000));
        Ok(ports)
    }

    fn reaches(&self, port: u16) -> bool {
        let Ok(address) = self.a.peer_address("o") else { return false };
        let ask = format!("socat -T 2 - TCP:{address}:{port},connect-timeout=2 < /dev/null");
        self.a.host().sh(&ask).is_ok_and(|text| text.trim() == port.to_string())
    }

    fn reached(&self, port: u16) -> anyhow::Result<()> {
        until(&format!("port {port} answers"), SOON, || self.reaches(port).then_some(()))
            .map_err(|error| error.context(self.b.process.log()))
    }
}

#[test]
fn a_policy_that_cannot_be_read_again_leaves_the_old_one_in_force() -> anyhow::Result<()> {
    if lab::skipped("a_policy_that_cannot_be_read_again_leaves_the_old_one_in_force") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let policy = bench.file("policy.hujson", &only(8000))?;
    let ports = Ports::serve(&bench, &policy)?;
    std::fs::write(&policy, only(9000).replace("accept", "acept"))?;
    ports.server.process.signal(Signal::SIGHUP);
    let log = until("the server complains", SOON, || {
        Some(ports.server.process.log()).filter(|log| log.contains("policy in force is kept"))
    })?;
    assert!(
        log.contains("line 1") && log.contains("acls[0].action") && log.contains("policy.hujson"),
        "{log}"
    );
    assert!(ports.reaches(8000) && !ports.reaches(9000));
    std::fs::write(&policy, only(9000))?;
    ports.server.process.signal(Signal::SIGHUP);
    ports.reached(9000)?;
    assert!(!ports.reaches(8000));
    Ok(())
}

#[test]
fn a_filter_over_the_kernels_limit_is_refused_whole_and_told() -> anyhow::Result<()> {
    if lab::skipped("a_filter_over_the_kernels_limit_is_refused_whole_and_told") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let policy = bench.file("policy.hujson", &only(8000))?;
    let ports = Ports::serve(&bench, &policy)?;
    // No two of these 70,000 addresses can be joined; the limit is 65,536 prefixes.
    let sources = (0..70_000_u32).map(|n| std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * n));
    let sources: Vec<String> = sources.map(|address| format!("\"{address}\"")).collect();
    let rule = |sources: &str| {
        format!(r#"{{"action": "accept", "proto": "tcp", "src": [{sources}], "dst": ["*:9000"]}}"#)
    };
    let text = format!(r#"{{"acls": [{}, {}]}}"#, rule("\"*\""), rule(&sources.join(",")));
    std::fs::write(&policy, text)?;
    ports.server.process.signal(Signal::SIGHUP);
    warns(&ports.b, &["packet filter needs", "address prefixes", "65536", "previous filter stays in force"])?;
    assert!(ports.reaches(8000), "{}", ports.b.process.log());
    assert!(!ports.reaches(9000), "half of a filter is in force");
    std::fs::write(&policy, only(9000))?;
    ports.server.process.signal(Signal::SIGHUP);
    ports.reached(9000)?;
    assert!(!ports.reaches(8000));
    until("the warning is taken back", SOON, || {
        ports.b.status().ok()?["Health"].as_array().is_some_and(Vec::is_empty).then_some(())
    })
}
