//! Policy rules: which routing table a packet asks, by priority.

use ipnet::IpNet;

use crate::{Handle, Result};

/// Address family of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Firewall mark to match: `packet.mark & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The bits expected.
    pub value: u32,
    /// The bits looked at.
    pub mask: u32,
}

/// What happens to a packet that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The table of this number is asked; no match there goes on to the next rule.
    Table(u32),
    /// Drops in silence.
    Blackhole,
    /// Drops and answers "network unreachable".
    Unreachable,
    /// Drops and answers "administratively prohibited".
    Prohibit,
    /// An action this crate does not write (goto, nop), by its kernel number.
    Other(u8),
}

/// One policy rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Its family: a rule for both is two rules.
    pub family: Family,
    /// Position, lower first; several rules may share one.
    pub priority: u32,
    /// Matches this mark only.
    pub mark: Option<Mark>,
    /// Matches packets from here only.
    pub source: Option<IpNet>,
    /// Matches packets to here only.
    pub destination: Option<IpNet>,
    /// Matches packets that came in by the link of this name only.
    pub input: Option<String>,
    /// What then happens.
    pub action: Action,
    /// Who installed it, as in [`crate::Route::protocol`].
    pub protocol: u8,
}

impl Rule {
    /// A rule that asks `table` for every packet, protocol static.
    pub fn lookup(family: Family, priority: u32, table: u32) -> Self {
        Self {
            family,
            priority,
            mark: None,
            source: None,
            destination: None,
            input: None,
            action: Action::Table(table),
            protocol: 4,
        }
    }
}

impl Handle {
    /// Every rule of both families, by family and priority.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub async fn rules(&self) -> Result<Vec<Rule>> {
        Err(crate::Error::NoNft)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// `is_taken` when an equal one exists.
    pub async fn add_rule(&self, rule: &Rule) -> Result<()> {
        Err(crate::Error::NoNft)
    }

    /// Removes one rule equal to `rule`.
    ///
    /// # Errors
    /// `is_missing` when it is not there.
    pub async fn remove_rule(&self, rule: &Rule) -> Result<()> {
        Err(crate::Error::NoNft)
    }
}
