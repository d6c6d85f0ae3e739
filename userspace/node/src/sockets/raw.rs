//! Sends DISCO and STUN from the WireGuard port, although the kernel's WireGuard owns that port.
//!
//! Raw sockets take the whole packet, headers included, so connection tracking and NATs see one flow with the WireGuard
//! packets. The source address is the one the kernel would choose: a UDP socket with the same mark is connected to the
//! destination and asked for its name, which costs a route lookup and sends nothing. Where several uplinks lead somewhere,
//! each has sockets of its own, bound to the device: then the kernel takes a route and a source address of that device. These
//! sockets never receive.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::net::if_::if_indextoname;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, setsockopt, shutdown,
    socket, sockopt,
};

use node_core::{Path, Uplink};
use wire::disco::looks_like_disco;
use wire::geneve::{Header, Protocol};

use super::{datagram, set_bypass_mark};

/// Raw sockets by uplink and family, opened when they are first needed.
pub(crate) struct RawSender {
    /// By uplink, `None` for what follows the kernel's routes; and whether for IPv4.
    families: BTreeMap<(Option<Uplink>, bool), Family>,
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
        let families = BTreeMap::from([((None, true), Family::open(None, true)?)]);
        Ok(Self { families, port })
    }

    /// Sends one datagram, behind a Geneve header where the path leads through a peer relay; a full queue drops it, as the
    /// network might.
    ///
    /// # Errors
    /// When there is no route, no such device, or a firewall refuses.
    pub(crate) fn send(&mut self, path: Path, payload: &[u8]) -> io::Result<()> {
        let Some(vni) = path.vni else { return self.send_plain(path, payload) };
        let protocol = if looks_like_disco(payload) { Protocol::Disco } else { Protocol::WireGuard };
        let header = Header { control: false, protocol, vni }.encode();
        self.send_plain(path, &[&header, payload].concat())
    }

    fn send_plain(&mut self, path: Path, payload: &[u8]) -> io::Result<()> {
        let key = (path.uplink, path.remote.is_ipv4());
        let family = match self.families.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Family::open(path.uplink, path.remote.is_ipv4())?),
        };
        let sent = family.send(self.port, path.remote, payload);
        if sent.is_err() && path.uplink.is_some() {
            // The device may be gone, and another have its number one day.
            self.families.remove(&key);
        }
        sent
    }
}

impl Family {
    fn open(uplink: Option<Uplink>, v4: bool) -> io::Result<Self> {
        let (family, any): (_, IpAddr) = match v4 {
            true => (AddressFamily::Inet, Ipv4Addr::UNSPECIFIED.into()),
            false => (AddressFamily::Inet6, Ipv6Addr::UNSPECIFIED.into()),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let raw = socket(family, SockType::Raw, flags, SockProtocol::Raw)?;
        set_bypass_mark(&raw)?;
        let probe = UdpSocket::bind((any, 0))?;
        set_bypass_mark(&probe)?;
        if let Some(Uplink(index)) = uplink {
            let device = OsString::from_vec(if_indextoname(index)?.into_bytes());
            setsockopt(&raw, sockopt::BindToDevice, &device)?;
            setsockopt(&probe, sockopt::BindToDevice, &device)?;
        }
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
