//! What the node wants of the shell: drained by `poll_transmit` and `poll_event` after every input.
//!
//! Deliberately not here: the state the kernel should be in, which is [`crate::Desired`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use types::{DiscoPublic, NodePublic, RegionId};

use crate::endpoints::Endpoint;
use crate::path::Path;
use crate::slots::Slot;

/// Bytes to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// A UDP payload, to leave from the WireGuard port.
    Udp {
        /// By which uplink, to whom, and through which place on a relay.
        path: Path,
        /// DISCO, STUN, or WireGuard's handshake initiation once more.
        bytes: Vec<u8>,
    },
    /// A DERP packet. The region's connection may still be in the making: queue a few, drop the oldest.
    Derp {
        /// Through which region.
        region: RegionId,
        /// To whom.
        to: NodePublic,
        /// DISCO, or WireGuard's handshake initiation once more.
        bytes: Vec<u8>,
    },
}

/// What to do with a packet that came over DERP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromDerp {
    /// It was DISCO, or from a stranger: nothing to do.
    Consumed,
    /// WireGuard: deliver it to the kernel's WireGuard port, from this peer's loopback address.
    Deliver(Slot),
}

/// Where a packet goes that the kernel sent to a peer's loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// By DERP.
    Derp {
        /// Through which region.
        region: RegionId,
        /// To whom.
        to: NodePublic,
    },
    /// By the peer's trusted path, from the WireGuard port: the kernel will know it in a moment. By DERP it would move the
    /// peer's kernel to loopback as well, whose answer would move ours, and so on without end.
    Udp(Path),
}

/// Names one ping of [`crate::Node::ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingId(pub u64);

/// A way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// By UDP, direct or through a peer relay.
    Udp(Path),
    /// Through this region.
    Derp(RegionId),
}

/// Why a ping brought no pong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    /// No node of this network has that key or address.
    #[error("no matching peer")]
    UnknownPeer,
    /// Its node key has expired.
    #[error("peer's node key has expired")]
    Expired,
    /// No pong within five seconds by any way.
    #[error("no reply")]
    Timeout,
    /// There is neither an address nor a DERP region to try, or the peer does not speak DISCO.
    #[error("no UDP or DERP addr")]
    NoWay,
}

/// Something the shell acts upon or shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// [`crate::Desired::generation`] moved on: compare it with what is there and apply the difference.
    DesiredChanged,
    /// Set this one peer's endpoint in the kernel now, whatever was written before: the kernel may have moved it. Already
    /// part of [`crate::Desired`]; comes without a new generation, and only for peers the kernel was seen to have.
    SetEndpoint {
        /// Whose.
        peer: NodePublic,
        /// Its best address, or its loopback address.
        endpoint: SocketAddr,
    },
    /// Tell the kernel's programs of [`crate::Node::disco_peers`].
    DiscoPeersChanged,
    /// [`crate::Desired::relayed`] is another: have the programs follow before any endpoint that comes after.
    DetoursChanged,
    /// Tell the peer with this overlay address our DISCO key, inside the tunnel.
    TellDiscoKey(IpAddr),
    /// [`crate::Node::pinned_routes`] changed: put them into the table that only our own packets ask.
    PinsChanged,
    /// Dump the WireGuard device and call [`crate::Node::handle_kernel`].
    ObserveKernel,
    /// Our own candidates changed: report them to control, in this order.
    EndpointsChanged(Vec<Endpoint>),
    /// What netcheck found changed: report [`crate::Node::net_info`] to control. The home region, if any, is connected
    /// by an [`Event::ConnectDerp`] of its own.
    NetInfoChanged,
    /// A netcheck is over: [`crate::Node::report`] is new.
    NetcheckEnded,
    /// Open and keep a connection to this region; `home` says whether to declare it preferred.
    ConnectDerp {
        /// Which.
        region: RegionId,
        /// Peers look for us there.
        home: bool,
    },
    /// No longer needed.
    CloseDerp(RegionId),
    /// Look this name up and call [`crate::Node::handle_resolved`]: a STUN server without addresses in the map.
    Resolve(String),
    /// This peer's state changed, for logs and watchers.
    PathChanged {
        /// Whose.
        peer: NodePublic,
        /// The new way.
        via: Option<Via>,
    },
    /// The list of [`crate::Node::health`] changed.
    HealthChanged,
    /// The netmap changed: tell watchers, store [`crate::Node::cached_map`].
    NetmapChanged,
    /// A map response, or a part of it, could not be used; the rest was.
    BadMap(String),
    /// Our own node key has expired: log in again.
    KeyExpired,
    /// A peer that may do so asks our relay for a place. Answer with [`crate::Node::answer_allocation`], or not at all.
    AllocateRelay {
        /// Who asks.
        peer: NodePublic,
        /// By which DISCO key; one of the two.
        disco: DiscoPublic,
        /// For whom.
        clients: [DiscoPublic; 2],
        /// To be echoed.
        generation: u32,
    },
    /// The end of [`crate::Node::ping`].
    PingResult {
        /// Which.
        id: PingId,
        /// Round trip and way of the first pong.
        result: Result<Pong, PingError>,
    },
}

/// The answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// From sending to receiving.
    pub latency: Duration,
    /// By which way.
    pub via: Via,
}
