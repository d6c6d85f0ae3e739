//! The stock `tailscale` command drives our node.

use std::time::Duration;

use lab::{Internet, Lab, Node, Server, node, stock, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_stock_command_line_drives_our_node() -> anyhow::Result<()> {
    if stock::skipped("the_stock_command_line_drives_our_node", &["tailscale"]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let internet = Internet::new(&lab)?;
    let server_host = internet.host(&lab, "server", 10)?;
    let (first, second) = (internet.host(&lab, "one", 31)?, internet.host(&lab, "two", 32)?);
    let server = Server::start(&server_host, lab.folder(), &[])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    let options = node::Options { certificate: Some(server.certificate()), ..node::Options::default() };
    let one = Node::start(&first, lab.folder(), lab.tag(), options.clone())?;
    let two = Node::start(&second, lab.folder(), lab.tag(), options)?;
    two.up(&key, &[])?;

    let tailscale = |arguments: &[&str]| -> anyhow::Result<(bool, String)> {
        let output = stock::command_line(&first, &one.socket(), arguments)?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    };
    let succeed = |arguments: &[&str]| -> anyhow::Result<String> {
        let (ok, text) = tailscale(arguments)?;
        anyhow::ensure!(ok, "tailscale {arguments:?}: {text}\n{}", one.process.log());
        Ok(text)
    };
    let url = Server::url();
    succeed(&[
        "up",
        "--login-server",
        &url,
        "--auth-key",
        &key,
        "--hostname",
        "one",
        "--accept-dns=false",
        "--timeout=30s",
    ])?;
    let status: Value = serde_json::from_str(&succeed(&["status", "--json"])?)?;
    assert_eq!(status["BackendState"], "Running", "{status}");
    assert!(succeed(&["status"])?.contains("two"));
    let address = two.address(false)?.to_string();
    until("the peer is known", SOON, || one.peer_address("two").ok())?;
    let pong = succeed(&["ping", "--until-direct=false", "--c", "2", &address])?;
    assert!(pong.contains("pong from two"), "{pong}");
    assert_eq!(succeed(&["ip", "-4"])?.trim(), one.address(false)?.to_string());
    assert!(succeed(&["whois", &address])?.contains("two"));
    succeed(&["set", "--hostname", "renamed"])?;
    until("the new name arrives at the peer", SOON, || two.peer("renamed").ok())?;
    assert!(succeed(&["netcheck"])?.contains("UDP: true"));
    succeed(&["down"])?;
    let status: Value = serde_json::from_str(&tailscale(&["status", "--json"])?.1)?;
    assert_eq!(status["BackendState"], "Stopped");
    succeed(&["up"])?;
    until("running again", SOON, || (one.status().ok()?["BackendState"] == "Running").then_some(()))?;
    succeed(&["logout"])?;
    until("logged out", SOON, || (one.status().ok()?["BackendState"] == "NeedsLogin").then_some(()))?;
    Ok(())
}
