//! Ports and names that somebody else has.

use std::net::UdpSocket;

use lab::Server;

use crate::{Bench, complains, ended};

#[test]
fn a_servers_port_in_use_is_named() -> anyhow::Result<()> {
    if lab::skipped("a_servers_port_in_use_is_named") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let _server = bench.server(&[])?;
    let output = bench.failed_server(&["--listen", "203.0.113.10:443", "--stun", "203.0.113.10:3480"])?;
    complains(&output, &["203.0.113.10:443", "in use", "--listen"]);
    let output = bench.failed_server(&["--listen", "203.0.113.10:444", "--stun", "203.0.113.10:3478"])?;
    complains(&output, &["203.0.113.10:3478", "in use", "--stun"]);
    Ok(())
}

#[test]
fn a_state_folder_in_use_is_named() -> anyhow::Result<()> {
    if lab::skipped("a_state_folder_in_use_is_named") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let node = bench.node(&server)?;
    let mut second = bench.host.command(lab::underpass()?)?;
    second.arg("node").arg("--state").arg(node.state()).args(["--port", "41642", "--device", "second"]);
    let output = ended(second.arg("--socket").arg(bench.lab.folder().join("second.sock")))?;
    complains(&output, &["state folder", "another node", "--state"]);
    let mut second = bench.server_host.command(lab::underpass()?)?;
    second.args(["server", "--url", &Server::url(), "--state"]).arg(bench.lab.folder().join("server"));
    let output = ended(second.arg("--socket").arg(bench.lab.folder().join("second.sock")))?;
    complains(&output, &["another underpass server", "state folder", "--state"]);
    Ok(())
}

#[test]
fn the_wireguard_port_in_use_is_named() -> anyhow::Result<()> {
    if lab::skipped("the_wireguard_port_in_use_is_named") {
        return Ok(());
    }
    let bench = Bench::build()?;
    for address in ["0.0.0.0:41641", "[::]:41641"] {
        let _other = bench.host.enter(|| UdpSocket::bind(address))??;
        let output = bench.failed_node(&["--device", bench.lab.tag()])?;
        complains(&output, &["UDP port 41641 is in use", "--port"]);
        assert_eq!(output.status.code(), Some(6));
    }
    Ok(())
}

#[test]
fn a_device_name_taken_is_named_and_the_device_untouched() -> anyhow::Result<()> {
    if lab::skipped("a_device_name_taken_is_named_and_the_device_untouched") {
        return Ok(());
    }
    let bench = Bench::build()?;
    bench.host.ip("link add taken type bridge")?;
    let before = bench.host.ip("link show taken")?;
    let output = bench.failed_node(&["--device", "taken"])?;
    complains(&output, &["device taken", "bridge", "--device", "ip link del taken"]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(bench.host.ip("link show taken")?, before);
    Ok(())
}
