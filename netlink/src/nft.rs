//! One nftables table, owned as a whole: replaced atomically, removed, looked for, through the `nft` command.
//!
//! `nft` reads the ruleset from its standard input in its own language; no shell is involved. A flush by somebody else
//! is seen with [`Table::exists`] and cured with [`Table::replace`]. Deliberately not here: the content, which is the
//! caller's text.

use crate::Result;

/// nftables family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6 together.
    Inet,
    /// IPv4 only.
    Ip,
    /// IPv6 only.
    Ip6,
}

/// A table by family and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    family: Family,
    name: String,
}

impl Table {
    /// Names a table; nothing is created. `name` must be letters, digits and underscores.
    pub fn new(family: Family, name: &str) -> Self { Self { family, name: name.into() } }

    /// Makes the table consist of exactly `body` (what stands between its braces), in one transaction.
    ///
    /// # Errors
    /// [`crate::Error::NoNft`], or [`crate::Error::Nft`] with nft's own message; the old table then stays as it was.
    pub async fn replace(&self, body: &str) -> Result<()> {
        Err(crate::Error::NoNft)
    }

    /// Removes the table; absent already is fine.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub async fn remove(&self) -> Result<()> {
        Err(crate::Error::NoNft)
    }

    /// Whether the table is there.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub async fn exists(&self) -> Result<bool> {
        Err(crate::Error::NoNft)
    }
}
