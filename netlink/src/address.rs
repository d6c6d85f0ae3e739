//! Addresses of links.

use ipnet::IpNet;

use crate::{Handle, Result};

/// One address with its prefix length on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address itself (host bits kept) and its prefix length.
    pub net: IpNet,
}

impl Handle {
    /// Every address of both families, of one link or of all.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub async fn addresses(&self, link: Option<u32>) -> Result<Vec<Address>> {
        Err(crate::Error::NoNft)
    }

    /// Adds an address; an IPv6 one is usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// `is_taken` when it is there already; `is_missing` when the link is not.
    pub async fn add_address(&self, address: &Address) -> Result<()> {
        Err(crate::Error::NoNft)
    }

    /// Removes an address.
    ///
    /// # Errors
    /// `is_missing` when it is not there.
    pub async fn remove_address(&self, address: &Address) -> Result<()> {
        Err(crate::Error::NoNft)
    }
}
