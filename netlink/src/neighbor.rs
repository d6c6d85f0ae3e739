//! Neighbors: which Ethernet address an IP address on a link has. Read only: the kernel resolves.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use crate::socket::Doing;
use crate::{Handle, Result};

/// How far the kernel trusts an entry (`NUD_*`, `linux/neighbour.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reachability {
    /// Usable: reachable, stale, delay, probe, permanent, noarp.
    Usable,
    /// Being resolved.
    Incomplete,
    /// Resolution failed.
    Failed,
}

/// One neighbor entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbor {
    /// Index of the link.
    pub link: u32,
    /// Its IP address.
    pub address: IpAddr,
    /// Its Ethernet address, once known.
    pub mac: Option<[u8; 6]>,
    /// How far the kernel trusts it.
    pub state: Reachability,
}

impl Handle {
    /// The neighbors of one link, or of all.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub async fn neighbors(&self, link: Option<u32>) -> Result<Vec<Neighbor>> {
        let doing = Doing { action: "list", object: &"neighbors" };
        let answers = self.route.dump(Message::GetNeighbour(NeighbourMessage::default()), doing).await?;
        let neighbors = answers.iter().filter_map(|answer| match answer {
            Message::NewNeighbour(message) => Neighbor::from_message(message),
            _ => None,
        });
        Ok(neighbors.filter(|neighbor| link.is_none_or(|link| link == neighbor.link)).collect())
    }
}

impl Neighbor {
    fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
            _ => None,
        })?;
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        });
        let state = match message.header.state {
            NeighbourState::Failed => Reachability::Failed,
            NeighbourState::Incomplete | NeighbourState::None => Reachability::Incomplete,
            _ => Reachability::Usable,
        };
        Some(Self { link: message.header.ifindex, address, mac, state })
    }
}
