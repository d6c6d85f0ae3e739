//! The controller's own UDP sockets, to which `steer` assigns the DISCO and STUN packets that came to the WireGuard port.
//!
//! Nothing is ever sent to their port from outside and nothing is sent from here; what arrives has its true source
//! address and device. Both sockets live as long as the daemon. Deliberately not here: telling DISCO from STUN (`node-core`).

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use node_core::{Path, Uplink};
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The longest DISCO message there is: a call-me-maybe with hundreds of endpoints, or a ping padded to the MTU.
const LONGEST: usize = 9216;
/// Datagrams taken in one turn, so that a flood of one socket does not starve the others.
const BATCH: usize = 64;

/// One received UDP payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Who sent it, and on which device it arrived.
    pub(crate) path: Path,
    /// What is inside UDP.
    pub(crate) payload: Vec<u8>,
}

/// The two sockets, on one port.
pub(crate) struct Controller {
    v4: UdpSocket,
    v6: Option<UdpSocket>,
    port: u16,
}

impl Controller {
    /// Binds both families to one port of the kernel's choice.
    ///
    /// # Errors
    /// When no port is free in both families.
    pub(crate) fn open() -> io::Result<Self> {
        let v4 = bind(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, 0).into())?;
        let port = v4.local_addr()?.port();
        let v6 = match bind(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
            Ok(socket) => Some(socket),
            // A machine without IPv6.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6, port })
    }

    /// The port both are bound to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits for datagrams and takes what is there, at most [`BATCH`]. Cancel-safe.
    ///
    /// # Errors
    /// When a socket is broken.
    pub(crate) async fn receive(&self) -> io::Result<Vec<Datagram>> {
        let Some(v6) = &self.v6 else { return receive(&self.v4).await };
        tokio::select! {
            batch = receive(&self.v4) => batch,
            batch = receive(v6) => batch,
        }
    }
}

fn bind(domain: Domain, addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    // Where a NAT is loaded, it takes an assigned socket away again from the first packet of a flow, because the socket is
    // not connected to the packet's sender; transparent sockets are left alone (`nf_nat_ipv4_local_in`).
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    } else {
        socket.set_ip_transparent_v4(true)?;
    }
    match domain {
        Domain::IPV6 => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        _ => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

async fn receive(socket: &UdpSocket) -> io::Result<Vec<Datagram>> {
    loop {
        socket.readable().await?;
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            match socket.try_io(Interest::READABLE, || receive_one(socket)) {
                Ok(datagram) => batch.push(datagram),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !batch.is_empty() {
            return Ok(batch);
        }
    }
}

fn receive_one(socket: &UdpSocket) -> io::Result<Datagram> {
    let mut buffer = [0; LONGEST];
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let device = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_ifindex),
        _ => None,
    });
    let address = |from: SockaddrStorage| {
        let v4 = from.as_sockaddr_in().map(|from| SocketAddr::from(SocketAddrV4::from(*from)));
        v4.or(from.as_sockaddr_in6().map(|from| SocketAddr::from(SocketAddrV6::from(*from))))
    };
    let remote = received.address.and_then(address).ok_or(ErrorKind::InvalidData)?;
    let length = received.bytes;
    let path = Path { uplink: device.map(Uplink), ..Path::direct(remote) };
    Ok(Datagram { path, payload: buffer[..length].to_vec() })
}
