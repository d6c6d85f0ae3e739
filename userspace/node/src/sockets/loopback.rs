//! The DERP loopback socket: one UDP socket that stands for every peer reached over DERP.
//!
//! A peer with slot n has the kernel endpoint 127.64.0.0 + n at this socket's port. What the kernel sends there tells its
//! peer by the destination address; what came over DERP is sent to the WireGuard port from that same address. The socket is
//! bound to `lo`, so nobody outside can speak for a peer. It keeps its port over restarts: the kernel's endpoints point to it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt,
    sockopt,
};
use node_core::Slot;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::set_bypass_mark;

/// Room for the largest packet WireGuard sends at the overlay MTU of 1280: 32 bytes of headers and 16 of padding more.
const LONGEST: usize = 2048;
/// Datagrams taken by one system call.
const BATCH: usize = 32;

/// A packet the kernel's WireGuard wants carried over DERP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FromKernel {
    /// To which peer.
    pub(crate) slot: Slot,
    /// An encrypted WireGuard packet.
    pub(crate) payload: Vec<u8>,
}

/// The socket.
pub(crate) struct Loopback {
    socket: UdpSocket,
    port: u16,
}

impl Loopback {
    /// Binds `port` on `lo`; 0 lets the kernel choose.
    ///
    /// # Errors
    /// When the port is in use.
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        setsockopt(&socket, sockopt::BindToDevice, &"lo".into())?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        set_bypass_mark(&socket)?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket: UdpSocket::from_std(socket)?, port })
    }

    /// The port of every peer's loopback endpoint.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits for packets of the kernel and takes what is there, at most [`BATCH`]. Packets that were not sent to a peer's
    /// address are left out. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is broken.
    pub(crate) async fn receive(&self) -> io::Result<Vec<FromKernel>> {
        loop {
            let batch = self.socket.async_io(Interest::READABLE, || receive_batch(&self.socket)).await?;
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    /// Delivers WireGuard packets, each of the peer with its slot, to the kernel's WireGuard: one system call for a run of one
    /// peer's. A full queue drops them.
    ///
    /// # Errors
    /// When the kernel refuses, as while the device is down.
    pub(crate) fn deliver(&self, packets: &[(Slot, Vec<u8>)], wireguard_port: u16) -> io::Result<()> {
        let to = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, wireguard_port));
        for run in packets.chunk_by(|(one, _), (next, _)| one == next) {
            let source = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(run[0].0.ip()).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&source)];
            let slices: Vec<[IoSlice<'_>; 1]> = run.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
            let space = Some(nix::cmsg_space!(libc::in_pktinfo));
            let mut headers = MultiHeaders::<SockaddrIn>::preallocate(run.len(), space);
            let addresses = vec![Some(to); run.len()];
            let fd = self.socket.as_raw_fd();
            match sendmmsg(fd, &mut headers, &slices, addresses, control, MsgFlags::empty()) {
                Ok(_) | Err(nix::errno::Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn receive_batch(socket: &UdpSocket) -> io::Result<Vec<FromKernel>> {
    let mut buffers = vec![[0u8; LONGEST]; BATCH];
    let mut slices: Vec<[IoSliceMut<'_>; 1]> =
        buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let control = nix::cmsg_space!(libc::in_pktinfo);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, Some(control));
    let received =
        recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
    let batch = received.filter_map(|message| {
        let slot = message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Slot::from_ip(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))))
            }
            _ => None,
        })?;
        let payload = message.iovs().next()?.to_vec();
        Some(FromKernel { slot, payload })
    });
    Ok(batch.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// `lo` of a namespace of our own; `None`, and a line that says so, without the right to make one.
    fn own_namespace() -> bool {
        use nix::sched::{CloneFlags, unshare};
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            println!("SKIPPED: a network namespace needs root");
            return false;
        }
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("the `ip` command").success());
        true
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            tokio::time::timeout(Duration::from_secs(5), future).await.expect("no packet within 5 s")
        })
    }

    #[test]
    fn a_packet_tells_its_peer_by_the_loopback_address_both_ways() {
        if !own_namespace() {
            return;
        }
        block_on(async {
            let loopback = Loopback::open(0).unwrap();
            let kernel = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let peer = Ipv4Addr::new(127, 64, 3, 7);
            let slot = Slot::from_ip(peer.into()).unwrap();

            kernel.send_to(b"stray", (Ipv4Addr::LOCALHOST, loopback.port())).await.unwrap();
            kernel.send_to(b"to the peer", (peer, loopback.port())).await.unwrap();
            let received = loopback.receive().await.unwrap();
            assert_eq!(received, [FromKernel { slot, payload: b"to the peer".to_vec() }]);

            let other = Slot::from_ip(Ipv4Addr::new(127, 64, 3, 8).into()).unwrap();
            let packets: Vec<(Slot, Vec<u8>)> = [(slot, "one"), (slot, "two"), (other, "three")]
                .map(|(slot, text)| (slot, text.into()))
                .into();
            loopback.deliver(&packets, kernel.local_addr().unwrap().port()).unwrap();
            for (slot, expected) in packets {
                let mut buffer = [0; 64];
                let (length, from) = kernel.recv_from(&mut buffer).await.unwrap();
                assert_eq!(buffer[..length], expected);
                assert_eq!(from, (IpAddr::V4(slot.ip()), loopback.port()).into());
            }
        });
    }
}
