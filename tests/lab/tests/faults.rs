//! What goes wrong in the hands of a person, each with one clear message: what, where, what to do.

use std::process::Output;

use lab::{Internet, Lab, Namespace, Node, Server, node};

struct Bench {
    lab: Lab,
    server_host: Namespace,
    host: Namespace,
    _internet: Internet,
}

impl Bench {
    fn build() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let internet = Internet::new(&lab)?;
        let server_host = internet.host(&lab, "server", 10)?;
        let host = internet.host(&lab, "n", 50)?;
        Ok(Self { lab, server_host, host, _internet: internet })
    }

    fn node(&self, server: &Server<'_>) -> anyhow::Result<Node<'_>> {
        let options = node::Options { certificate: Some(server.certificate()), ..node::Options::default() };
        Node::start(&self.host, self.lab.folder(), self.lab.tag(), options)
    }
}

/// A failed command says all of `words` on standard error, and its status is not 0.
#[track_caller]
fn complains(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it succeeded: {}", String::from_utf8_lossy(&output.stdout));
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[test]
fn auth_keys_that_do_not_admit_say_why() -> anyhow::Result<()> {
    if lab::skipped("auth_keys_that_do_not_admit_say_why") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = Server::start(&bench.server_host, bench.lab.folder(), &[])?;
    let node = bench.node(&server)?;
    let up = |key: &str| {
        node.cli(&["up", "--login-server", &Server::url(), "--auth-key", key, "--timeout", "10s"])
    };
    complains(&up("underpass-auth-nonsense")?, &["key"]);
    let listed = server.auth_key("alice", &["--reusable"])?;
    let keys = server.admin_json(&["keys", "list"])?;
    server.admin(&["keys", "revoke", &keys[0]["id"].to_string()])?;
    complains(&up(&listed)?, &["revoked"]);
    let expired = server.auth_key("alice", &["--expires", "1ms"])?;
    complains(&up(&expired)?, &["expired"]);
    let good = server.auth_key("alice", &[])?;
    node.up(&good, &[])?;
    Ok(())
}

#[test]
fn a_wrong_server_url_is_named() -> anyhow::Result<()> {
    if lab::skipped("a_wrong_server_url_is_named") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = Server::start(&bench.server_host, bench.lab.folder(), &[])?;
    let node = bench.node(&server)?;
    let up = |url: &str| {
        node.cli(&["up", "--login-server", url, "--auth-key", "underpass-auth-x", "--timeout", "5s"])
    };
    complains(&up("https://203.0.113.10:4")?, &["203.0.113.10 port 4", "refused"]);
    // A server without TLS behind a URL that promises it.
    let plain = bench.lab.folder().join("plain");
    let mut command = bench.server_host.command(lab::underpass()?)?;
    command.arg("server").arg("--state").arg(&plain).arg("--socket").arg(plain.join("s"));
    command.args([
        "--url",
        "http://203.0.113.10:8080",
        "--listen",
        "203.0.113.10:8080",
        "--stun",
        "203.0.113.10:3479",
    ]);
    let _plain = bench.server_host.start("plain", command.args(["--tls", "off"]))?;
    let listening = || bench.server_host.sh("ss -Hltn sport = :8080").ok().filter(|text| !text.is_empty());
    lab::until("the plain server listens", std::time::Duration::from_secs(20), listening)?;
    complains(&up("https://203.0.113.10:8080")?, &["203.0.113.10", "does not speak TLS", "http"]);
    complains(&up("nonsense")?, &["nonsense"]);
    Ok(())
}

#[test]
fn a_port_in_use_and_a_taken_device_are_named() -> anyhow::Result<()> {
    if lab::skipped("a_port_in_use_and_a_taken_device_are_named") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let _server = Server::start(&bench.server_host, bench.lab.folder(), &[])?;
    let again = bench.lab.folder().join("again");
    let mut second = bench.server_host.command(lab::underpass()?)?;
    second.arg("server").arg("--state").arg(&again).args([
        "--url",
        &Server::url(),
        "--listen",
        "203.0.113.10:443",
    ]);
    complains(&second.arg("--socket").arg(again.join("s")).output()?, &["203.0.113.10:443", "in use"]);

    bench.host.ip("link add taken type bridge")?;
    let mut node = bench.host.command(lab::underpass()?)?;
    node.args(["node", "--device", "taken", "--state"]).arg(bench.lab.folder().join("t"));
    complains(&node.arg("--socket").arg(bench.lab.folder().join("t.sock")).output()?, &["taken", "--device"]);
    Ok(())
}

#[test]
fn a_policy_with_an_error_names_line_and_field() -> anyhow::Result<()> {
    if lab::skipped("a_policy_with_an_error_names_line_and_field") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let policy = bench.lab.folder().join("policy.hujson");
    std::fs::write(&policy, "{\n  \"acls\": [],\n  \"postures\": {}\n}\n")?;
    let mut server = bench.server_host.command(lab::underpass()?)?;
    server.arg("server").arg("--state").arg(bench.lab.folder().join("s")).args(["--url", &Server::url()]);
    server.args(["--listen", "203.0.113.10:443"]).arg("--socket").arg(bench.lab.folder().join("s.sock"));
    complains(&server.arg("--policy").arg(&policy).output()?, &["3", "postures"]);
    Ok(())
}

#[test]
fn a_torn_state_file_is_never_replaced_silently() -> anyhow::Result<()> {
    if lab::skipped("a_torn_state_file_is_never_replaced_silently") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = Server::start(&bench.server_host, bench.lab.folder(), &[])?;
    let mut node = bench.node(&server)?;
    node.up(&server.auth_key("alice", &[])?, &[])?;
    let before = node.address(false)?;
    node.process.kill()?;
    let file = node.state().join("underpass.state");
    let whole = std::fs::read(&file)?;
    std::fs::write(&file, &whole[..whole.len() / 2])?;
    node.relaunch()?;
    node.ready()?;
    lab::until("the previous generation is used", std::time::Duration::from_secs(20), || {
        (node.address(false).ok()? == before).then_some(())
    })?;
    Ok(())
}

#[test]
fn without_root_the_node_says_what_it_needs() -> anyhow::Result<()> {
    if lab::skipped("without_root_the_node_says_what_it_needs") {
        return Ok(());
    }
    let bench = Bench::build()?;
    // A copy that the unprivileged user can execute and a folder that is hers.
    let folder = bench.lab.folder().join("nobody");
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(lab::underpass()?, folder.join("underpass"))?;
    bench.host.sh(&format!(
        "chmod 755 {}; chown -R 65534:65534 {}",
        bench.lab.folder().display(),
        folder.display()
    ))?;
    let mut node = bench.host.command("setpriv")?;
    node.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(folder.join("underpass"));
    node.arg("node").arg("--state").arg(folder.join("state")).arg("--socket").arg(folder.join("s"));
    complains(&node.output()?, &["root"]);
    Ok(())
}
