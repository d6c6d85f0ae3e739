//! The controller's own UDP sockets, to which `steer` assigns the DISCO and STUN packets that came to the WireGuard port.
//!
//! Nothing is ever sent to their port from outside and nothing is sent from here; what arrives has its true source
//! address. Both sockets live as long as the daemon. Deliberately not here: telling DISCO from STUN (`node-core`).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt};
use tokio::io::unix::AsyncFd;

/// The longest DISCO message there is: a call-me-maybe with hundreds of endpoints, or a ping padded to the MTU.
const LONGEST: usize = 9216;
/// Datagrams taken in one turn, so that a flood of one socket does not starve the others.
const BATCH: usize = 64;

/// One received UDP payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Who sent it.
    pub(crate) from: SocketAddr,
    /// What is inside UDP.
    pub(crate) payload: Vec<u8>,
}

/// The two sockets, on one port.
pub(crate) struct Controller {
    v4: AsyncFd<UdpSocket>,
    v6: Option<AsyncFd<UdpSocket>>,
    port: u16,
}

impl Controller {
    /// Binds both families to one port of the kernel's choice.
    ///
    /// # Errors
    /// When no port is free in both families.
    pub(crate) fn open() -> io::Result<Self> {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = v4.local_addr()?.port();
        let v6 = match open_v6(port) {
            Ok(socket) => Some(socket),
            Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => None,
            Err(error) => return Err(error),
        };
        v4.set_nonblocking(true)?;
        Ok(Self { v4: AsyncFd::new(v4)?, v6: v6.map(AsyncFd::new).transpose()?, port })
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

fn open_v6(port: u16) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    let any = SockaddrIn6::from(std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0));
    bind(socket.as_raw_fd(), &any)?;
    Ok(socket.into())
}

async fn receive(socket: &AsyncFd<UdpSocket>) -> io::Result<Vec<Datagram>> {
    loop {
        let mut ready = socket.readable().await?;
        let mut batch = Vec::new();
        let mut buffer = [0; LONGEST];
        while batch.len() < BATCH {
            match socket.get_ref().recv_from(&mut buffer) {
                Ok((length, from)) => batch.push(Datagram { from, payload: buffer[..length].to_vec() }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !batch.is_empty() {
            return Ok(batch);
        }
    }
}
