//! Links (network devices): list, create a kernel WireGuard, change, delete.
//!
//! Links are addressed by name where they are changed, because a name is what an operator reads in the error, and by
//! index where other objects point at them. Deliberately not here: other kinds of links to create.

use crate::{Handle, Result};

/// What drives a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The kernel's WireGuard.
    Wireguard,
    /// A TUN or TAP device of some process.
    Tun,
    /// The loopback device.
    Loopback,
    /// A driver without a kind: hardware, or a virtual machine's device.
    Physical,
    /// Any other kind in the kernel's word: "veth", "bridge", "vlan".
    Other(String),
}

/// One link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// What drives it.
    pub kind: Kind,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Up and with carrier (IFF_LOWER_UP).
    pub carrier: bool,
    /// Ethernet address; none on WireGuard and TUN devices.
    pub mac: Option<[u8; 6]>,
    /// Free text of the operator (`ip link set alias`).
    pub alias: Option<String>,
    /// Index of the bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
}

/// What to change of a link; `None` leaves as is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Administratively up or down.
    pub up: Option<bool>,
    /// Bytes of the largest packet.
    pub mtu: Option<u32>,
    /// Free text; the empty string removes it.
    pub alias: Option<String>,
}

impl Handle {
    /// Every link of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub async fn links(&self) -> Result<Vec<Link>> {
        Err(crate::Error::NoNft)
    }

    /// The link of that name, or `None`.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than absence.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        Err(crate::Error::NoNft)
    }

    /// The link of that index, or `None`.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than absence.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        Err(crate::Error::NoNft)
    }

    /// Creates a kernel WireGuard link, down and without keys. Its UDP socket will live in this handle's namespace.
    ///
    /// # Errors
    /// [`crate::Error::NoKernelWireguard`] when the kernel has no WireGuard; `is_taken` when the name exists.
    pub async fn create_wireguard(&self, name: &str) -> Result<Link> {
        Err(crate::Error::NoNft)
    }

    /// Changes what `change` names, in one message.
    ///
    /// # Errors
    /// `is_missing` when there is no such link.
    pub async fn set_link(&self, name: &str, change: &LinkChange) -> Result<()> {
        Err(crate::Error::NoNft)
    }

    /// Deletes a link; its addresses and routes go with it.
    ///
    /// # Errors
    /// `is_missing` when there is no such link.
    pub async fn delete_link(&self, name: &str) -> Result<()> {
        Err(crate::Error::NoNft)
    }
}
