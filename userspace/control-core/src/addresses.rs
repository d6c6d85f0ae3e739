//! Overlay addresses: which a new node gets.
//!
//! IPv4 is the scarce family, so it leads: the next free address after the last one given, round the range, and IPv6 is
//! the same number in the network's own range. An address is not given again while its node lives, and as late as
//! possible after that. Deliberately not here: persistence; what is taken is read from the nodes at every start.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use types::overlay::{CGNAT, CHROMEOS, SERVICE_V4, ULA};

/// A node's two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addresses {
    /// In 100.64.0.0/10.
    pub v4: Ipv4Addr,
    /// In fd7a:115c:a1e0::/48.
    pub v6: Ipv6Addr,
}

/// The addresses taken, and where the search goes on.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    taken: BTreeSet<Ipv4Addr>,
    last: Option<Ipv4Addr>,
}

impl Pool {
    /// Marks a living node's address as taken.
    pub fn take(&mut self, addresses: Addresses) {
        self.taken.insert(addresses.v4);
        self.last = self.last.max(Some(addresses.v4));
    }

    /// The node is gone.
    pub fn release(&mut self, addresses: Addresses) {
        self.taken.remove(&addresses.v4);
    }

    /// The pair that [`Pool::take`] should take next; `None` when the range is full.
    pub fn next(&self) -> Option<Addresses> {
        let (first, last) = (CGNAT.network().to_bits(), CGNAT.broadcast().to_bits());
        let start = self.last.map_or(first, |addr| addr.to_bits() + 1);
        (start..=last).chain(first..start).map(Ipv4Addr::from_bits).find(|v4| self.free(*v4)).map(pair)
    }

    fn free(&self, v4: Ipv4Addr) -> bool {
        let edge = v4 == CGNAT.network() || v4 == CGNAT.broadcast();
        // Tailscale documents 100.100.0.0/24 and 100.100.100.0/24 as its service's own (the resolver is in the latter).
        let service = v4.octets()[..3] == SERVICE_V4.octets()[..3] || v4.octets()[..3] == [100, 100, 0];
        !edge && !service && !CHROMEOS.contains(&v4) && !self.taken.contains(&v4)
    }
}

/// The IPv6 address is the number within the IPv4 range plus 0x1_0000, so that `::53`, the resolver, is never a node's;
/// the reserved via, ephemeral and 4to6 ranges all have higher bits set and are never reached.
fn pair(v4: Ipv4Addr) -> Addresses {
    let offset = u128::from(v4.to_bits() - CGNAT.network().to_bits());
    Addresses { v4, v6: Ipv6Addr::from_bits(ULA.network().to_bits() + 0x1_0000 + offset) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::overlay;

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    /// A pool whose last given address is `last`.
    fn after(last: &str) -> Pool {
        let mut pool = Pool::default();
        pool.take(pair(v4(last)));
        pool
    }

    #[test]
    fn addresses_go_up_and_pair_up() {
        let mut pool = Pool::default();
        let one = pool.next().unwrap();
        pool.take(one);
        let two = pool.next().unwrap();
        assert_eq!((one.v4, two.v4), (v4("100.64.0.1"), v4("100.64.0.2")));
        assert_eq!(two.v6, "fd7a:115c:a1e0::1:2".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn a_released_address_rests_until_the_range_is_round() {
        let mut pool = after("100.64.0.1");
        pool.release(pair(v4("100.64.0.1")));
        assert_eq!(pool.next().unwrap().v4, v4("100.64.0.2"));
        pool.take(pair(v4("100.127.255.254")));
        assert_eq!(pool.next().unwrap().v4, v4("100.64.0.1"));
    }

    #[test]
    fn reserved_ranges_are_skipped() {
        for (last, next) in [
            ("100.115.91.255", "100.115.94.0"),
            ("100.100.99.255", "100.100.101.0"),
            ("100.99.255.255", "100.100.1.0"),
            ("100.127.255.254", "100.64.0.1"),
        ] {
            assert_eq!(after(last).next().unwrap().v4, v4(next), "after {last}");
        }
    }

    #[test]
    fn every_pair_is_in_the_overlay_and_no_v6_is_reserved() {
        let highest = pair(v4("100.127.255.254"));
        assert!(overlay::contains(highest.v6.into()));
        assert!(highest.v6 < "fd7a:115c:a1e0:b1a::".parse::<Ipv6Addr>().unwrap());
        assert!(pair(v4("100.64.0.0")).v6 > overlay::SERVICE_V6);
    }
}
