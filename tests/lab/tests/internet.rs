//! The lab itself: its NATs translate, and drop what nobody asked for.

use lab::{Internet, Lab};

#[test]
fn a_nat_preserves_ports_and_drops_strangers() -> anyhow::Result<()> {
    if lab::skipped("a_nat_preserves_ports_and_drops_strangers") {
        return Ok(());
    }
    let lab = Lab::new()?;
    let internet = Internet::new(&lab)?;
    let public = internet.host(&lab, "public", 10)?;
    let mut nat = internet.nat(&lab, "nat", 21, 0)?;
    let inside = nat.host(&lab, "inside")?;
    inside.sh("ping -c 1 -W 2 203.0.113.10")?;

    let seen = public.enter(|| -> std::io::Result<std::net::UdpSocket> {
        let socket = std::net::UdpSocket::bind("203.0.113.10:7000")?;
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        Ok(socket)
    })??;
    inside.enter(|| std::net::UdpSocket::bind("192.0.2.2:41641")?.send_to(b"x", "203.0.113.10:7000"))??;
    let (_, from) = seen.recv_from(&mut [0; 8])?;
    assert_eq!(from.to_string(), "203.0.113.21:41641");

    let stranger = public.enter(|| std::net::UdpSocket::bind("203.0.113.10:7001"))??;
    let inside_socket = inside.enter(|| std::net::UdpSocket::bind("192.0.2.2:41641"))??;
    inside_socket.set_read_timeout(Some(std::time::Duration::from_millis(300)))?;
    stranger.send_to(b"y", "203.0.113.21:41641")?;
    assert!(inside_socket.recv_from(&mut [0; 8]).is_err(), "a stranger's packet passed the NAT");
    seen.send_to(b"z", "203.0.113.21:41641")?;
    assert_eq!(inside_socket.recv_from(&mut [0; 8])?.0, 1);
    Ok(())
}
