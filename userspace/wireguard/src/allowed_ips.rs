//! Which peer an overlay address belongs to: the longest prefix wins (WireGuard's cryptokey routing).
//!
//! One hash table a prefix length, tried from the longest: an overlay network has two or three lengths, so a lookup is
//! two or three probes whatever the number of peers.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

/// Prefixes of both families, each with one owner.
pub(crate) struct AllowedIps<T> {
    v4: Family<T>,
    v6: Family<T>,
}

/// By prefix length (stored as its complement, so that iteration starts with the longest), then by prefix.
type Family<T> = BTreeMap<u8, HashMap<IpAddr, T>>;

impl<T> Default for AllowedIps<T> {
    fn default() -> Self {
        Self { v4: Family::new(), v6: Family::new() }
    }
}

impl<T> AllowedIps<T> {
    /// Gives `net` to `owner`; returns the owner it had.
    pub(crate) fn insert(&mut self, net: IpNet, owner: T) -> Option<T> {
        let family = if net.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        family.entry(!net.prefix_len()).or_default().insert(net.network(), owner)
    }

    /// Takes `net` away from whoever has it.
    pub(crate) fn remove(&mut self, net: IpNet) -> Option<T> {
        let family = if net.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let table = family.get_mut(&!net.prefix_len())?;
        let owner = table.remove(&net.network());
        if table.is_empty() {
            family.remove(&!net.prefix_len());
        }
        owner
    }

    /// The owner of the longest prefix that contains `address`.
    pub(crate) fn find(&self, address: IpAddr) -> Option<&T> {
        let family = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        family.iter().find_map(|(length, table)| {
            let net = IpNet::new(address, !length).ok()?;
            table.get(&net.network())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, u32)]) -> AllowedIps<u32> {
        let mut table = AllowedIps::default();
        for (net, owner) in entries {
            table.insert(net.parse().unwrap(), *owner);
        }
        table
    }

    fn find(table: &AllowedIps<u32>, address: &str) -> Option<u32> {
        table.find(address.parse().unwrap()).copied()
    }

    #[test]
    fn the_longest_prefix_wins_in_each_family() {
        let table = table(&[("0.0.0.0/0", 1), ("100.64.0.0/10", 2), ("100.64.0.7/32", 3), ("fd7a::/48", 4)]);
        assert_eq!(find(&table, "100.64.0.7"), Some(3));
        assert_eq!(find(&table, "100.64.0.8"), Some(2));
        assert_eq!(find(&table, "192.0.2.1"), Some(1));
        assert_eq!(find(&table, "fd7a::1"), Some(4));
        assert_eq!(find(&table, "2001:db8::1"), None);
    }

    #[test]
    fn a_removed_prefix_uncovers_the_shorter_one() {
        let mut table = table(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2)]);
        assert_eq!(table.remove("10.1.0.0/16".parse().unwrap()), Some(2));
        assert_eq!(find(&table, "10.1.2.3"), Some(1));
        assert_eq!(table.remove("10.1.0.0/16".parse().unwrap()), None);
    }

    #[test]
    fn a_prefix_has_one_owner() {
        let mut table = table(&[("10.0.0.0/8", 1)]);
        assert_eq!(table.insert("10.0.0.0/8".parse().unwrap(), 2), Some(1));
        assert_eq!(find(&table, "10.0.0.1"), Some(2));
    }
}
