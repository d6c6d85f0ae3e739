//! STUN ahead of the stack: Tailscale's own client is answered by the program, and by the socket where it is not.

use std::time::Duration;

use lab::{Internet, Lab, Server, stock, until};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn stunc_is_answered_by_xdp_and_by_the_socket_behind_it() -> anyhow::Result<()> {
    if stock::skipped("stunc_is_answered_by_xdp_and_by_the_socket_behind_it", &["stunc"]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let internet = Internet::new(&lab)?;
    let (host, client) = (internet.host(&lab, "server", 10)?, internet.host(&lab, "client", 31)?);
    // As a card and a switch would: sums are complete on the wire, and the switch's port takes frames.
    client.sh("ethtool -K wan tx off")?;
    let stunc = stock::program("stunc").map(|path| path.display().to_string()).unwrap_or_default();
    let ask = || client.sh(&format!("{stunc} 203.0.113.10 2>&1"));
    let mut server = Server::start(&host, lab.folder(), &["--xdp", "on"])?;
    until("the server says that the port takes no frames", SOON, || {
        server.process.log().contains("its other end takes no frames").then_some(())
    })?;
    assert!(ask()?.contains("stun addr: 203.0.113.31"), "by the socket");
    internet.switch().sh("ethtool -K p10 gro on")?;
    // A change that the server sees; the feature alone is not told.
    host.ip("addr add 203.0.113.110/24 dev wan")?;
    until("the server serves the device by XDP", SOON, || {
        server.process.log().contains("STUN is answered ahead of the stack").then_some(())
    })?;
    let program = || host.sh("ip -d link show wan").map(|text| text.contains("prog/xdp"));
    assert!(program()?, "attached");
    // The socket is deaf now, so only the program can answer.
    host.sh("nft add table inet deaf; nft 'add chain inet deaf input { type filter hook input priority 0; }'; nft add rule inet deaf input udp dport 3478 drop")?;
    assert!(ask()?.contains("stun addr: 203.0.113.31"), "by the program");

    // Killed, it leaves the program, which goes on; its successor takes it over; one that is stopped takes it away.
    server.process.kill()?;
    assert!(ask()?.contains("stun addr: 203.0.113.31"), "by the program alone");
    server.restart(&["--xdp", "on"])?;
    until("the successor serves the device", SOON, || {
        server.process.log().contains("STUN is answered ahead of the stack").then_some(())
    })?;
    assert!(ask()?.contains("stun addr: 203.0.113.31"), "by the adopted program");
    server.process.stop(Signal::SIGTERM)?;
    until("the program is gone", SOON, || program().is_ok_and(|there| !there).then_some(()))?;

    // In maintenance nobody answers.
    host.sh("nft delete table inet deaf")?;
    server.restart(&["--xdp", "on", "--drop-stun"])?;
    until("the server serves the device", SOON, || {
        server.process.log().contains("STUN is answered ahead of the stack").then_some(())
    })?;
    assert!(ask().is_err(), "dropped");
    Ok(())
}
