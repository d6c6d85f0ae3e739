//! Sends DISCO and STUN from the WireGuard port, although the kernel's WireGuard owns that port.
//!
//! Raw sockets take the whole packet, headers included, so connection tracking and NATs see one flow with the WireGuard
//! packets. The source address is the one the kernel would choose: a UDP socket with the same mark is connected to the
//! destination and asked for its name, which costs a route lookup and sends nothing. These sockets never receive.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, shutdown, socket,
};

use node_core::Path;
use wire::disco::looks_like_disco;
use wire::geneve::{Header, Protocol};

use super::{datagram, set_bypass_mark};

/// Raw sockets of both families.
pub(crate) struct RawSender {
    v4: Family,
    /// `None` where the kernel has no IPv6.
    v6: Option<Family>,
    port: u16,
}

struct Family {
    raw: OwnedFd,
    /// Only ever asked which source address the kernel would take.
    probe: UdpSocket,
}

impl RawSender {
    /// Opens the sockets; packets leave from UDP port `port`.
    ///
    /// # Errors
    /// When raw sockets are refused: they need CAP_NET_RAW.
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let v4 = Family::open(AddressFamily::Inet, Ipv4Addr::UNSPECIFIED.into())?;
        let v6 = Family::open(AddressFamily::Inet6, Ipv6Addr::UNSPECIFIED.into()).ok();
        Ok(Self { v4, v6, port })
    }

    /// Sends one datagram, behind a Geneve header where the path leads through a peer relay; a full queue drops it, as the
    /// network might.
    ///
    /// # Errors
    /// When there is no route, or a firewall refuses.
    pub(crate) fn send(&self, path: Path, payload: &[u8]) -> io::Result<()> {
        let to = path.remote;
        let Some(vni) = path.vni else { return self.send_to(to, payload) };
        let protocol = if looks_like_disco(payload) { Protocol::Disco } else { Protocol::WireGuard };
        let header = Header { control: false, protocol, vni }.encode();
        self.send_to(to, &[&header, payload].concat())
    }

    fn send_to(&self, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let family = match to {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?,
        };
        family.send(self.port, to, payload)
    }
}

impl Family {
    fn open(family: AddressFamily, any: IpAddr) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let raw = socket(family, SockType::Raw, flags, SockProtocol::Raw)?;
        set_bypass_mark(&raw)?;
        let probe = UdpSocket::bind((any, 0))?;
        set_bypass_mark(&probe)?;
        // The probe is bound to a port for as long as we live; what strangers send there must not pile up.
        _ = shutdown(probe.as_fd().as_raw_fd(), nix::sys::socket::Shutdown::Read);
        Ok(Self { raw, probe })
    }

    fn send(&self, port: u16, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        self.probe.connect(to)?;
        let source = self.probe.local_addr()?.ip();
        let packet = datagram::build((source, port), (to.ip(), to.port()), payload)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "payload does not fit a datagram"))?;
        // A raw IPv6 socket takes the port for a protocol number and refuses any but zero.
        let destination = SockaddrStorage::from(SocketAddr::new(to.ip(), 0));
        match sendto(self.raw.as_raw_fd(), &packet, &destination, MsgFlags::empty()) {
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
