//! The two sockets every call goes through.

use netlink_packet_generic::GenlMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_wireguard::WireguardMessage;
use rtnetlink::sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};

use crate::Result;
use crate::socket::Socket;

/// Routing and generic netlink of one network namespace. Clones share the sockets.
#[derive(Clone)]
pub struct Handle {
    pub(crate) route: Socket<RouteNetlinkMessage>,
    pub(crate) wireguard: Socket<GenlMessage<WireguardMessage>>,
}

impl Handle {
    /// Opens both sockets in the network namespace of the calling thread; must run inside a tokio runtime.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub fn open() -> Result<Self> {
        Ok(Self { route: Socket::open(NETLINK_ROUTE)?, wireguard: Socket::open(NETLINK_GENERIC)? })
    }
}
