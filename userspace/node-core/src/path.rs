//! A path: by which of our uplinks, to which remote address, through which place on a peer relay.
//!
//! Plain values, compared and ordered, that the shell carries out as they are. Deliberately not here: how good a path is
//! (`score`), whether it works (`paths`), and DERP, which is no path of datagrams.

use std::fmt;
use std::net::SocketAddr;

use types::Vni;

/// A network device of the underlay by which datagrams may leave: its interface index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uplink(pub u32);

/// One way of UDP datagrams to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Where the datagram goes: the peer's address, or its relay's.
    pub remote: SocketAddr,
    /// The peer's place on a peer relay: datagrams carry a Geneve header with this number.
    pub vni: Option<Vni>,
    /// By which device it leaves, from that device's own address; `None` leaves it to the kernel's routes, which is always
    /// so where only one uplink leads to the remote.
    pub uplink: Option<Uplink>,
}

impl Path {
    /// Straight to `remote`, by whatever device the kernel's routes say.
    pub const fn direct(remote: SocketAddr) -> Self {
        Self { remote, vni: None, uplink: None }
    }

    /// Whether no peer relay is between.
    pub const fn is_direct(&self) -> bool {
        self.vni.is_none()
    }
}

/// As Tailscale shows it: `ip:port`, or `ip:port:vni:number`. The uplink's name is known to the shell only.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vni {
            Some(vni) => write!(f, "{}:vni:{vni}", self.remote),
            None => self.remote.fmt(f),
        }
    }
}
