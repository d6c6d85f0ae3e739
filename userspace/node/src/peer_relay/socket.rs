//! The relay's UDP sockets, one a family, which tell by which of our addresses a packet came and send from there.
//!
//! A client knows the relay by one address, and so does its NAT: an answer from another would be lost. Deliberately not
//! here: what packets mean.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmsg,
    setsockopt, sockopt,
};
use relay_core::Leg;
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::sockets::set_bypass_mark;

/// Relayed packets fit the usual MTU; a probe of a larger one may be as long as this.
const LONGEST: usize = 9216;
/// Packets taken by one system call.
const BATCH: usize = 32;
/// Room for a burst while other sockets are served.
const BUFFER: usize = 4 << 20;

/// One socket.
pub(super) struct RelaySocket {
    socket: UdpSocket,
}

impl RelaySocket {
    /// Binds `port` of one family; 0 lets the kernel choose.
    ///
    /// # Errors
    /// When the port is in use, or the family is not there.
    pub(super) fn open(ipv6: bool, port: u16) -> io::Result<Self> {
        let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, None)?;
        let any: IpAddr = if ipv6 {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            Ipv4Addr::UNSPECIFIED.into()
        };
        set_bypass_mark(&socket)?;
        // Beyond what ordinary users get; without the right for that the usual size serves.
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            socket.set_recv_buffer_size(BUFFER)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(any, port).into())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())? })
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        self.socket.local_addr().map(|addr| addr.port())
    }

    /// Waits for packets and hands on what is there, at most [`BATCH`]. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is broken.
    pub(super) async fn receive(&self) -> io::Result<Vec<(Leg, Vec<u8>)>> {
        loop {
            let batch = self.socket.async_io(Interest::READABLE, || receive_batch(&self.socket)).await;
            match batch {
                Ok(batch) if batch.is_empty() => {}
                // ICMP told of a client that is gone: not our trouble.
                Err(error) if is_from_icmp(&error) => {}
                batch => return batch,
            }
        }
    }

    /// Sends one packet from our address that the client knows. What the network does not take is lost, as on any way.
    pub(super) fn send(&self, to: Leg, packet: &[u8]) {
        let address = SockaddrStorage::from(to.remote);
        let sent = match to.local {
            Some(IpAddr::V4(local)) if to.remote.is_ipv4() => {
                let source = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(local).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.send_with(&[ControlMessage::Ipv4PacketInfo(&source)], &address, packet)
            }
            Some(IpAddr::V6(local)) if to.remote.is_ipv6() => {
                let source = libc::in6_pktinfo {
                    ipi6_ifindex: 0,
                    ipi6_addr: libc::in6_addr { s6_addr: local.octets() },
                };
                self.send_with(&[ControlMessage::Ipv6PacketInfo(&source)], &address, packet)
            }
            _ => self.send_with(&[], &address, packet),
        };
        if let Err(error) = sent {
            tracing::trace!(to = %to.remote, %error, "a relayed packet was not sent");
        }
    }

    fn send_with(
        &self,
        control: &[ControlMessage<'_>],
        to: &SockaddrStorage,
        packet: &[u8],
    ) -> nix::Result<()> {
        let fd = self.socket.as_raw_fd();
        sendmsg(fd, &[IoSlice::new(packet)], control, MsgFlags::MSG_DONTWAIT, Some(to)).map(drop)
    }
}

fn is_from_icmp(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EMSGSIZE | libc::EPROTO)
    )
}

fn receive_batch(socket: &UdpSocket) -> io::Result<Vec<(Leg, Vec<u8>)>> {
    let mut buffers = vec![[0u8; LONGEST]; BATCH];
    let mut slices: Vec<[IoSliceMut<'_>; 1]> =
        buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(control));
    let received =
        recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
    let batch = received.filter_map(|message| {
        let remote = address(message.address.as_ref()?)?;
        let local = message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(info.ipi6_addr.s6_addr.into())),
            _ => None,
        });
        Some((Leg { remote, local }, message.iovs().flatten().copied().collect()))
    });
    Ok(batch.collect())
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), v6.port()))
}
