//! Frames: encode appends to a buffer, decode borrows from one.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use types::NodePublic;

use super::{Error, HEADER_LEN, MAGIC};

/// Why a server has no way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GoneReason {
    /// It was here and has disconnected.
    Disconnected,
    /// The server does not know it.
    NotHere,
    /// A reason this code does not know.
    Other(u8),
}

impl GoneReason {
    const fn number(self) -> u8 {
        match self {
            Self::Disconnected => 0,
            Self::NotHere => 1,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Disconnected,
            1 => Self::NotHere,
            other => Self::Other(other),
        }
    }
}

/// What a server says of a peer present in its region; bit flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresentFlags(pub u8);

impl PresentFlags {
    /// An ordinary client.
    pub const REGULAR: u8 = 1;
    /// Another server of the region.
    pub const MESH_PEER: u8 = 1 << 1;
    /// A prober.
    pub const PROBER: u8 = 1 << 2;
    /// A client that would rather be at another node of the region.
    pub const NOT_IDEAL: u8 = 1 << 3;
}

/// One frame. Who may send it is in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// [server] The greeting with the server's key.
    ServerKey(NodePublic),
    /// [client] Who connects, and nonce and box of a [`super::ClientInfo`].
    ClientInfo {
        /// The client's key, proven by the box.
        key: NodePublic,
        /// Nonce and box.
        sealed: &'a [u8],
    },
    /// [server] Nonce and box of a [`super::ServerInfo`].
    ServerInfo {
        /// Nonce and box.
        sealed: &'a [u8],
    },
    /// [client] A packet for a peer.
    SendPacket {
        /// For whom.
        destination: NodePublic,
        /// Opaque: WireGuard or DISCO.
        packet: &'a [u8],
    },
    /// [server] A packet from a peer.
    RecvPacket {
        /// Whose.
        source: NodePublic,
        /// Opaque.
        packet: &'a [u8],
    },
    /// [mesh] A packet between clients of two servers of a region.
    ForwardPacket {
        /// Whose.
        source: NodePublic,
        /// For whom.
        destination: NodePublic,
        /// Opaque.
        packet: &'a [u8],
    },
    /// [server] Nothing to say, but still here.
    KeepAlive,
    /// [client] Whether this server is the client's home.
    NotePreferred(bool),
    /// [server] A peer that sent us packets, or to whom we tried to send DISCO, is not here.
    PeerGone {
        /// Who.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
    /// [server, to mesh] A client is here.
    PeerPresent {
        /// Who.
        peer: NodePublic,
        /// From where; absent from old servers.
        address: Option<SocketAddr>,
        /// What kind; zero from old servers.
        flags: PresentFlags,
    },
    /// [mesh] Asks for [`Frame::PeerPresent`] and [`Frame::PeerGone`] of all clients.
    WatchConns,
    /// [mesh] Asks to disconnect a client.
    ClosePeer(NodePublic),
    /// [both] To be echoed.
    Ping([u8; 8]),
    /// [both] The echo.
    Pong([u8; 8]),
    /// [server] What is wrong with this connection; empty when all is well again.
    Health(Cow<'a, str>),
    /// [server] It restarts. Milliseconds on the wire.
    Restarting {
        /// Wait this long before connecting again.
        reconnect_in: Duration,
        /// And try for this long.
        try_for: Duration,
    },
    /// A frame of a newer protocol; ignore.
    Unknown(u8),
}

impl<'a> Frame<'a> {
    /// Appends header and body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        self.encode_body(out);
        let length = u32::try_from(out.len() - start - HEADER_LEN).expect("a frame is far below 4 GiB");
        out[start + 1..start + HEADER_LEN].copy_from_slice(&length.to_be_bytes());
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::ServerKey(_) => 0x01,
            Self::ClientInfo { .. } => 0x02,
            Self::ServerInfo { .. } => 0x03,
            Self::SendPacket { .. } => 0x04,
            Self::RecvPacket { .. } => 0x05,
            Self::KeepAlive => 0x06,
            Self::NotePreferred(_) => 0x07,
            Self::PeerGone { .. } => 0x08,
            Self::PeerPresent { .. } => 0x09,
            Self::ForwardPacket { .. } => 0x0a,
            Self::WatchConns => 0x10,
            Self::ClosePeer(_) => 0x11,
            Self::Ping(_) => 0x12,
            Self::Pong(_) => 0x13,
            Self::Health(_) => 0x14,
            Self::Restarting { .. } => 0x15,
            Self::Unknown(kind) => *kind,
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::ServerKey(key) => {
                out.extend_from_slice(&MAGIC);
                out.extend_from_slice(key.as_bytes());
            }
            Self::ClientInfo { key, sealed } => keyed(out, key, sealed),
            Self::ServerInfo { sealed } => out.extend_from_slice(sealed),
            Self::SendPacket { destination, packet } => keyed(out, destination, packet),
            Self::RecvPacket { source, packet } => keyed(out, source, packet),
            Self::ForwardPacket { source, destination, packet } => {
                out.extend_from_slice(source.as_bytes());
                keyed(out, destination, packet);
            }
            Self::KeepAlive | Self::WatchConns | Self::Unknown(_) => {}
            Self::NotePreferred(home) => out.push(u8::from(*home)),
            Self::PeerGone { peer, reason } => keyed(out, peer, &[reason.number()]),
            Self::PeerPresent { peer, address, flags } => encode_present(out, peer, *address, *flags),
            Self::ClosePeer(peer) => out.extend_from_slice(peer.as_bytes()),
            Self::Ping(data) | Self::Pong(data) => out.extend_from_slice(data),
            Self::Health(problem) => out.extend_from_slice(problem.as_bytes()),
            Self::Restarting { reconnect_in, try_for } => {
                out.extend_from_slice(&milliseconds(*reconnect_in).to_be_bytes());
                out.extend_from_slice(&milliseconds(*try_for).to_be_bytes());
            }
        }
    }

    /// One frame from its type and whole body.
    ///
    /// # Errors
    /// A body without its fixed fields, or a greeting that is not DERP's.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Self, Error> {
        Ok(match kind {
            0x01 => Self::decode_greeting(body)?,
            0x02 => take_key(body, "client info").map(|(key, sealed)| Self::ClientInfo { key, sealed })?,
            0x03 => Self::ServerInfo { sealed: body },
            0x04 => take_key(body, "send")
                .map(|(destination, packet)| Self::SendPacket { destination, packet })?,
            0x05 => take_key(body, "receive").map(|(source, packet)| Self::RecvPacket { source, packet })?,
            0x06 => Self::KeepAlive,
            0x07 => Self::NotePreferred(*body.first().ok_or(Error::Short("preferred"))? != 0),
            0x08 => {
                let (peer, rest) = take_key(body, "peer gone")?;
                // Old servers send no reason.
                let reason = rest.first().map_or(GoneReason::Disconnected, |n| GoneReason::from_number(*n));
                Self::PeerGone { peer, reason }
            }
            0x09 => Self::decode_present(body)?,
            0x0a => {
                let (source, rest) = take_key(body, "forward")?;
                let (destination, packet) = take_key(rest, "forward")?;
                Self::ForwardPacket { source, destination, packet }
            }
            0x10 => Self::WatchConns,
            0x11 => Self::ClosePeer(take_key(body, "close peer")?.0),
            0x12 => Self::Ping(*body.first_chunk().ok_or(Error::Short("ping"))?),
            0x13 => Self::Pong(*body.first_chunk().ok_or(Error::Short("pong"))?),
            0x14 => Self::Health(String::from_utf8_lossy(body)),
            0x15 => Self::decode_restarting(body)?,
            other => Self::Unknown(other),
        })
    }

    fn decode_greeting(body: &[u8]) -> Result<Self, Error> {
        let rest = body.strip_prefix(&MAGIC).ok_or(Error::Magic)?;
        take_key(rest, "server key").map(|(key, _)| Self::ServerKey(key))
    }

    fn decode_present(body: &[u8]) -> Result<Self, Error> {
        let (peer, rest) = take_key(body, "peer present")?;
        let Some((&[p0, p1], ip, rest)) = rest
            .split_first_chunk::<16>()
            .and_then(|(ip, r)| r.split_first_chunk::<2>().map(|(p, r)| (p, ip, r)))
        else {
            return Ok(Self::PeerPresent { peer, address: None, flags: PresentFlags::default() });
        };
        let ip = Ipv6Addr::from(*ip).to_canonical();
        let address = Some(SocketAddr::new(ip, u16::from_be_bytes([p0, p1])));
        let flags = PresentFlags(rest.first().copied().unwrap_or_default());
        Ok(Self::PeerPresent { peer, address, flags })
    }

    fn decode_restarting(body: &[u8]) -> Result<Self, Error> {
        let (&[a, b, c, d, e, f, g, h], _) = body.split_first_chunk().ok_or(Error::Short("restarting"))?;
        let duration = |bytes| Duration::from_millis(u32::from_be_bytes(bytes).into());
        Ok(Self::Restarting { reconnect_in: duration([a, b, c, d]), try_for: duration([e, f, g, h]) })
    }
}

fn keyed(out: &mut Vec<u8>, key: &NodePublic, rest: &[u8]) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(rest);
}

fn take_key<'a>(body: &'a [u8], frame: &'static str) -> Result<(NodePublic, &'a [u8]), Error> {
    let (key, rest) = body.split_first_chunk().ok_or(Error::Short(frame))?;
    Ok((NodePublic::from_bytes(*key), rest))
}

fn encode_present(out: &mut Vec<u8>, peer: &NodePublic, address: Option<SocketAddr>, flags: PresentFlags) {
    out.extend_from_slice(peer.as_bytes());
    let Some(address) = address else { return };
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&address.port().to_be_bytes());
    out.push(flags.0);
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
