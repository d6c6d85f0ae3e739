//! Devices of the underlay that come, go and change while the node runs: each is steered on as well as it can be.

use lab::{Node, node, until};

use crate::{Bench, SOON};

#[test]
fn every_device_is_steered_on_as_its_driver_can_whenever_it_comes() -> anyhow::Result<()> {
    if lab::skipped("every_device_is_steered_on_as_its_driver_can_whenever_it_comes") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let key = server.auth_key("alice", &[])?;
    let flags = ["--steer", "xdp"].map(str::to_owned).into();
    let node = bench.node_on(&bench.host, &server, node::Options { flags, ..node::Options::default() })?;
    node.up(&key, &[])?;
    steers(&node, "wan", "xdp", "")?;
    assert!(is_native(&node, "wan")?);
    assert!(node.run(&["status"])?.contains("# Steering: wan by xdp"));

    for command in [
        "link add late0 type veth peer name late1",
        "addr add 198.51.100.1/24 dev late0",
        "link set late0 up",
    ] {
        node.host().ip(command)?;
    }
    steers(&node, "late0", "xdp", "")?;
    for command in ["link set late0 down", "link set late0 name early0", "link set early0 up"] {
        node.host().ip(command)?;
    }
    steers(&node, "early0", "xdp", "")?;
    assert!(is_native(&node, "early0")?);
    for command in ["link add br0 type bridge", "addr add 198.51.100.129/25 dev br0", "link set br0 up"] {
        node.host().ip(command)?;
    }
    steers(&node, "br0", "tc", "no native XDP")?;
    // What has a VLAN on top of it may get that VLAN's frames without their tags.
    if node.host().ip("link add link early0 name early0.7 type vlan id 7").is_ok() {
        steers(&node, "early0", "tc", "VLAN")?;
        assert!(!is_native(&node, "early0")?);
    } else {
        println!("SKIPPED: a VLAN device on top: this kernel has none");
    }
    assert!(is_native(&node, "wan")?, "what did not change was left alone");
    node.run(&["down"])?;
    assert!(!is_native(&node, "wan")?, "nothing is left");
    Ok(())
}

/// XDP on a veth would cost its other end's segmentation offload, and nothing here needs it.
#[test]
fn by_default_a_veth_is_steered_on_in_tc_and_a_restart_may_change_that() -> anyhow::Result<()> {
    if lab::skipped("by_default_a_veth_is_steered_on_in_tc_and_a_restart_may_change_that") {
        return Ok(());
    }
    let bench = Bench::build()?;
    let server = bench.server(&[])?;
    let key = server.auth_key("alice", &[])?;
    bench.host.ip("route add default via 203.0.113.10")?;
    let mut node = bench.node(&server)?;
    node.up(&key, &[])?;
    steers(&node, "wan", "tc", "veth")?;
    for (flag, steering) in [("xdp", "xdp"), ("tc", "tc")] {
        node.process.kill()?;
        node.set_flags(&["--steer", flag]);
        node.relaunch()?;
        node.ready()?;
        steers(&node, "wan", steering, if steering == "tc" { "asked for" } else { "" })?;
        assert_eq!(is_native(&node, "wan")?, steering == "xdp");
    }
    Ok(())
}

fn steers(node: &Node<'_>, device: &str, steering: &str, why: &str) -> anyhow::Result<()> {
    until(&format!("{device} is steered on by {steering}"), SOON, || {
        let status = node.status().ok()?;
        let devices = status["Underpass"]["Devices"].as_array()?;
        let found = devices.iter().find(|found| found["Name"] == device)?;
        let is_so = found["Steering"] == steering && found["Why"].as_str()?.contains(why);
        is_so.then_some(())
    })
    .map_err(|error| error.context(node.run(&["status"]).unwrap_or_default()).context(node.process.log()))
}

/// Whether there is an XDP program on the device, in its driver.
fn is_native(node: &Node<'_>, device: &str) -> anyhow::Result<bool> {
    let link: serde_json::Value =
        serde_json::from_str(&node.host().sh(&format!("ip -j link show {device}"))?)?;
    Ok(link[0]["xdp"]["mode"] == 1)
}
