//! What the shell tells the node: plain values, already decoded from sockets, netlink and the local API.
//!
//! Deliberately not here: datagrams and map responses, which come as bytes and as `wire` structs.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use ipnet::IpNet;
use types::{DiscoPrivate, NodePublic};

/// What a node is from its first to its last moment.
pub struct Config {
    /// The interface's public key. A rotated key is a new `Node`.
    pub node_key: NodePublic,
    /// Opens and seals DISCO; kept over restarts, because a new key costs every peer a netmap round trip.
    pub disco: DiscoPrivate,
    /// The UDP port WireGuard listens on, which DISCO and STUN use as well.
    pub wireguard_port: u16,
    /// The UDP port of the loopback socket that stands for every DERP peer (see [`crate::slots`]).
    pub derp_loopback_port: u16,
}

/// Both clocks read at one moment: the core has none, and needs the calendar for key expiry and handshake ages.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The monotonic clock's reading.
    pub now: Instant,
    /// The calendar's reading.
    pub wall: SystemTime,
}

impl Clock {
    /// The calendar's reading at `now`.
    pub fn wall_at(&self, now: Instant) -> SystemTime {
        self.wall + now.saturating_duration_since(self.now)
    }
}

/// What the user asked for (`ipn/prefs.go`), as far as the core decides on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefs {
    /// Be part of the network. While false nothing is sent and [`crate::Desired::up`] is false.
    pub want_running: bool,
    /// Use the subnet routes that peers serve (`--accept-routes`); never default routes.
    pub accept_routes: bool,
    /// What this node offers to serve: [`crate::filter::Filter::local`], except default routes.
    pub advertise_routes: Vec<IpNet>,
    /// Refuse every inbound connection.
    pub shields_up: bool,
    /// Hide peers' addresses behind this node's on the way to its subnets (`--snat-subnet-routes`).
    pub snat_subnet_routes: bool,
}

impl Default for Prefs {
    /// Tailscale's defaults on Linux, before the first `up`.
    fn default() -> Self {
        Self {
            want_running: false,
            accept_routes: false,
            advertise_routes: Vec::new(),
            shields_up: false,
            snat_subnet_routes: true,
        }
    }
}

/// What this machine's router offers and has granted. `None` flags: it was not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortMapping {
    /// Where the outside reaches WireGuard's port.
    pub external: Option<SocketAddr>,
    /// The router speaks UPnP.
    pub upnp: Option<bool>,
    /// The router speaks NAT-PMP.
    pub nat_pmp: Option<bool>,
    /// The router speaks PCP.
    pub pcp: Option<bool>,
}

/// One peer of the WireGuard device as a dump shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPeer {
    /// Its public key.
    pub key: NodePublic,
    /// Where the kernel would send now.
    pub endpoint: Option<SocketAddr>,
    /// Bytes received and authenticated since the peer was added.
    pub rx_bytes: u64,
    /// Bytes sent, handshakes included, since the peer was added.
    pub tx_bytes: u64,
    /// When the last handshake was completed.
    pub last_handshake: Option<SystemTime>,
}

/// What became of the connection to a DERP region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DerpState {
    /// The region accepted us: frames flow.
    Connected,
    /// Anything but a packet was heard: a keep-alive, a pong.
    Alive,
    /// The connection ended or could not be made; the shell goes on trying until [`crate::Event::CloseDerp`].
    Disconnected {
        /// Why, for people.
        reason: String,
    },
    /// The region says that this peer is not connected to it.
    PeerGone(NodePublic),
}
