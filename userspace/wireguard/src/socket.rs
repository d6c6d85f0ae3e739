//! The UDP sockets of a device: one a family on one port, marked, with segmentation offload both ways.
//!
//! Bound without address reuse, so that a port in use is an error and never a shared port. Deliberately not here: what
//! the datagrams mean.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    SockaddrStorage, bind, recvmsg, sendmsg, setsockopt, shutdown, socket, sockopt,
};

/// Attempts to find a port that is free in both families when any will do.
const PORT_ATTEMPTS: u32 = 10;

/// UDP_MAX_SEGMENTS of kernels before 6.9; and all segments together must fit one IP packet.
const MAX_SEGMENTS: usize = 64;
const MAX_BYTES: usize = 65_000;

/// A burst of a fast sender must survive the time the receiving thread needs to be scheduled.
const BUFFER: usize = 4 << 20;

/// Both sockets.
pub(crate) struct Sockets {
    /// The port both have.
    pub(crate) port: u16,
    pub(crate) v4: Socket,
    /// `None` where the kernel has no IPv6.
    pub(crate) v6: Option<Socket>,
}

impl Sockets {
    /// Binds both families to `port`, 0 for any.
    pub(crate) fn bind(port: u16, mark: u32) -> io::Result<Self> {
        let mut attempts = if port == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            let v4 = Socket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), mark)?;
            let port = v4.inner.local_addr()?.port();
            match Socket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), mark) {
                Ok(v6) => return Ok(Self { port, v4, v6: Some(v6) }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
                    return Ok(Self { port, v4, v6: None });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Changes the mark of both.
    pub(crate) fn set_mark(&self, mark: u32) -> io::Result<()> {
        self.each().try_for_each(|socket| Ok(setsockopt(&socket.inner, sockopt::Mark, &mark)?))
    }

    /// Sends datagrams of one peer. A lost one is WireGuard's daily bread, so errors are not the caller's to handle.
    pub(crate) fn send(&self, packets: &[impl AsRef<[u8]>], to: SocketAddr) {
        let socket = if to.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        if let Some(socket) = socket {
            socket.send(packets, to);
        }
    }

    /// Wakes and ends whoever receives on these sockets.
    pub(crate) fn close(&self) {
        for socket in self.each() {
            socket.closed.store(true, Ordering::Release);
            // Fails with ENOTCONN on a socket without a peer and wakes its readers all the same (inet_shutdown).
            let _ = shutdown(socket.inner.as_raw_fd(), Shutdown::Both);
        }
    }

    fn each(&self) -> impl Iterator<Item = &Socket> {
        std::iter::once(&self.v4).chain(&self.v6)
    }
}

/// One family's socket.
pub(crate) struct Socket {
    inner: UdpSocket,
    closed: AtomicBool,
    /// Cleared for good when a device on the way cannot do it.
    segments: AtomicBool,
}

impl Socket {
    fn bind(address: SocketAddr, mark: u32) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        if address.is_ipv6() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        }
        if mark != 0 {
            setsockopt(&fd, sockopt::Mark, &mark)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        // Offload and larger buffers are wishes: a kernel that refuses works as well, slower.
        let _ = setsockopt(&fd, sockopt::UdpGroSegment, &true);
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &BUFFER);
        let _ = setsockopt(&fd, sockopt::SndBufForce, &BUFFER);
        Ok(Self {
            inner: UdpSocket::from(fd),
            closed: AtomicBool::new(false),
            segments: AtomicBool::new(true),
        })
    }

    /// Receives one datagram, or several of one sender that the kernel merged: (bytes, bytes of each, sender).
    /// `None` without waiting when nothing is there, or when the socket was closed.
    pub(crate) fn receive(&self, buffer: &mut [u8], wait: bool) -> Option<(usize, usize, SocketAddr)> {
        let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        let mut space = nix::cmsg_space!(i32);
        loop {
            let mut slices = [IoSliceMut::new(buffer)];
            let received =
                recvmsg::<SockaddrStorage>(self.inner.as_raw_fd(), &mut slices, Some(&mut space), flags);
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            let message = match received {
                Ok(message) => message,
                // An ICMP error of an earlier datagram, or a signal: the socket itself is well.
                Err(_) if wait => continue,
                Err(_) => return None,
            };
            let each = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|one| match one {
                    ControlMessageOwned::UdpGroSegments(bytes) => {
                        usize::try_from(bytes).ok().filter(|n| *n > 0)
                    }
                    _ => None,
                })
            });
            if let Some(from) = message.address.as_ref().and_then(to_std) {
                return Some((message.bytes, each.unwrap_or(message.bytes.max(1)), from));
            }
        }
    }

    fn send(&self, packets: &[impl AsRef<[u8]>], to: SocketAddr) {
        let to = SockaddrStorage::from(to);
        let mut rest = packets;
        while let [first, ..] = rest {
            let count = if self.segments.load(Ordering::Relaxed) { run(rest) } else { 1 };
            let (now, later) = rest.split_at(count);
            let slices: Vec<_> = now.iter().map(|packet| IoSlice::new(packet.as_ref())).collect();
            let length = first.as_ref().len() as u16;
            let segments = [ControlMessage::UdpGsoSegments(&length)];
            let control: &[_] = if count > 1 { &segments } else { &[] };
            let sent = sendmsg(self.inner.as_raw_fd(), &slices, control, MsgFlags::empty(), Some(&to));
            if count > 1 && matches!(sent, Err(nix::Error::EIO | nix::Error::EINVAL)) {
                // The device cannot checksum, or its MTU is below a segment: one by one, and the same ones again.
                self.segments.store(false, Ordering::Relaxed);
                continue;
            }
            rest = later;
        }
    }
}

/// How many packets from the front may go as one super-packet: equal lengths, of which only the last may be shorter.
fn run(packets: &[impl AsRef<[u8]>]) -> usize {
    let length = packets.first().map_or(0, |first| first.as_ref().len());
    let most = (MAX_BYTES / length.max(1)).clamp(1, MAX_SEGMENTS);
    let equal = packets.iter().take(most).take_while(|packet| packet.as_ref().len() == length).count();
    match packets.get(equal) {
        Some(next) if equal < most && next.as_ref().len() < length => equal + 1,
        _ => equal.max(1),
    }
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from(*address));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::from(*address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_equal_lengths_and_one_shorter_at_its_end() {
        let lengths = |lengths: &[usize]| lengths.iter().map(|n| vec![0u8; *n]).collect::<Vec<_>>();
        assert_eq!(run(&lengths(&[100])), 1);
        assert_eq!(run(&lengths(&[100, 100, 60, 100])), 3);
        assert_eq!(run(&lengths(&[60, 100])), 1);
        assert_eq!(run(&lengths(&[1312; 100])), 49, "65,000 bytes at most");
        assert_eq!(run(&lengths(&[100; 100])), 64, "64 segments at most");
    }

    #[test]
    fn datagrams_sent_together_arrive_one_by_one_or_merged_with_their_length() {
        let (a, b) = (Sockets::bind(0, 0).unwrap(), Sockets::bind(0, 0).unwrap());
        assert_ne!(a.port, b.port);
        let packets = [vec![1u8; 200], vec![2; 200], vec![3; 50]];
        a.send(&packets, SocketAddr::from((Ipv4Addr::LOCALHOST, b.port)));
        let (mut buffer, mut got) = (vec![0; 65_536], Vec::new());
        while got.len() < 3 {
            let (bytes, each, from) = b.v4.receive(&mut buffer, true).unwrap();
            assert_eq!(from.port(), a.port);
            got.extend(buffer[..bytes].chunks(each).map(<[u8]>::to_vec));
        }
        assert_eq!(got, packets);
    }

    #[test]
    fn a_port_in_use_is_an_error_in_either_family() {
        let first = Sockets::bind(0, 0).unwrap();
        let error = Sockets::bind(first.port, 0).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn closing_wakes_a_waiting_receiver() {
        let sockets = std::sync::Arc::new(Sockets::bind(0, 0).unwrap());
        let waiting = std::sync::Arc::clone(&sockets);
        let thread = std::thread::spawn(move || waiting.v4.receive(&mut [0; 10], true));
        sockets.close();
        assert!(thread.join().unwrap().is_none());
    }
}
