//! Pings inside the tunnel: ICMP echo, answered by the peer's operating system, and TSMP, answered by its node software.
//!
//! Raw sockets on the overlay device, which only see what the packet filter let in. TSMP is IP protocol 99: `p` and eight bytes
//! ask, `o` and the same eight answer, and a port behind them may name the PeerAPI; `a` tells a DISCO key (tailscale
//! `net/packet/tsmp.go`).
//! Deliberately not here: DISCO pings (`node-core`), and who is pinged.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use types::DiscoPublic;

use crate::event_loop::Input;

/// How long a pong may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// IP protocol number of TSMP: "any private encryption scheme".
const TSMP: i32 = 99;
/// First bytes of a TSMP ping and of its answer.
const TSMP_PING: u8 = b'p';
const TSMP_PONG: u8 = b'o';
/// First byte of a DISCO key that a peer tells; the 32 bytes of the key follow.
const TSMP_DISCO_KEY: u8 = b'a';
/// ICMP types of an echo request and its reply (RFC 792, RFC 4443).
const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);
/// Our pings and pongs are a few bytes; what is longer is of no interest.
const LONGEST: usize = 256;

/// Sends one ICMP echo to `to` through `device` and waits for its reply.
///
/// # Errors
/// When no reply comes in time, or the socket is refused.
pub(crate) async fn icmp_ping(device: &str, to: IpAddr, token: [u8; 8]) -> io::Result<Duration> {
    let (protocol, (request, reply)) = match to {
        IpAddr::V4(_) => (Protocol::ICMPV4, ECHO_V4),
        IpAddr::V6(_) => (Protocol::ICMPV6, ECHO_V6),
    };
    let socket = Tunnel::open(device, to.is_ipv6(), protocol)?;
    // The kernel fills in ICMPv6's checksum, which needs the addresses (RFC 3542).
    let mut packet = [request, 0, 0, 0].to_vec();
    packet.extend_from_slice(&token);
    let checksum = super::datagram::checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    let is_reply = |payload: &[u8]| payload.first() == Some(&reply) && payload.get(4..12) == Some(&token[..]);
    socket.round_trip(&packet, to, is_reply).await
}

/// Sends one TSMP ping to `to` through `device` and waits for its pong.
///
/// # Errors
/// When no pong comes in time, or the socket is refused.
pub(crate) async fn tsmp_ping(device: &str, to: IpAddr, token: [u8; 8]) -> io::Result<Duration> {
    let socket = Tunnel::open(device, to.is_ipv6(), TSMP.into())?;
    let mut packet = vec![TSMP_PING];
    packet.extend_from_slice(&token);
    let is_pong =
        |payload: &[u8]| payload.first() == Some(&TSMP_PONG) && payload.get(1..9) == Some(&token[..]);
    socket.round_trip(&packet, to, is_pong).await
}

/// Tells the peer at `to` our DISCO key.
///
/// # Errors
/// When the socket is refused, or there is no way to `to`.
pub(crate) async fn tell_disco_key(device: &str, to: IpAddr, key: DiscoPublic) -> io::Result<()> {
    let mut packet = vec![TSMP_DISCO_KEY];
    packet.extend_from_slice(key.as_bytes());
    Tunnel::open(device, to.is_ipv6(), TSMP.into())?.send(&packet, to).await
}

/// Answers peers' TSMP pings for as long as `device` is there, and hands on the DISCO keys they tell.
///
/// # Errors
/// Always, in the end: why the sockets are of no use any more.
pub(crate) async fn answer_tsmp(device: &str, inputs: &mpsc::Sender<Input>) -> io::Result<()> {
    let v4 = Tunnel::open(device, false, TSMP.into())?;
    match Tunnel::open(device, true, TSMP.into()) {
        Ok(v6) => tokio::select! {
            end = v4.answer(inputs) => end,
            end = v6.answer(inputs) => end,
        },
        Err(_) => v4.answer(inputs).await,
    }
}

/// A raw socket of one family and protocol, bound to the overlay device.
struct Tunnel {
    /// A raw socket all the same: only calls that every datagram socket knows are made.
    socket: UdpSocket,
    ipv6: bool,
}

impl Tunnel {
    fn open(device: &str, ipv6: bool, protocol: Protocol) -> io::Result<Self> {
        let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.bind_device(Some(device.as_bytes()))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, ipv6 })
    }

    async fn round_trip(
        &self,
        packet: &[u8],
        to: IpAddr,
        is_answer: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Duration> {
        let start = Instant::now();
        self.send(packet, to).await?;
        let answered = async {
            loop {
                let (from, payload) = self.receive().await?;
                if from == to && is_answer(&payload) {
                    return Ok(start.elapsed());
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn answer(&self, inputs: &mpsc::Sender<Input>) -> io::Result<()> {
        loop {
            let (from, payload) = self.receive().await?;
            if let [TSMP_DISCO_KEY, told @ ..] = payload.as_slice()
                && let Some(key) = told.first_chunk()
            {
                // A loop that has ended needs no key.
                _ = inputs.send(Input::DiscoKey(from, DiscoPublic::from_bytes(*key))).await;
                continue;
            }
            if payload.len() < 9 || payload[0] != TSMP_PING {
                continue;
            }
            let mut pong = vec![TSMP_PONG];
            pong.extend_from_slice(&payload[1..9]);
            // No PeerAPI here: port 0.
            pong.extend_from_slice(&[0, 0]);
            // A peer that is gone again gets no answer; that is not our trouble.
            _ = self.send(&pong, from).await;
        }
    }

    async fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        self.socket.send_to(packet, SocketAddr::new(to, 0)).await.map(drop)
    }

    async fn receive(&self) -> io::Result<(IpAddr, Vec<u8>)> {
        let mut buffer = [0; LONGEST];
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).await?;
            if let Some(payload) = self.payload(&buffer[..length]) {
                return Ok((from.ip(), payload.to_vec()));
            }
        }
    }

    /// What follows the IP header, which only IPv4's raw sockets deliver (raw(7)).
    fn payload<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        if self.ipv6 {
            return Some(packet);
        }
        let header = usize::from(packet.first()? & 0x0f) * 4;
        packet.get(header..)
    }
}
