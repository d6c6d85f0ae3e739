//! Sets of addresses as sorted, disjoint ranges: what a policy's terms resolve to.
//!
//! Both families share one number line each; a range never crosses from one family to the other. Text forms are those
//! of a packet filter's `SrcIPs` (tailscale `tailcfg.FilterRule`): address, prefix, or `first-last`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A set of IPv4 and IPv6 addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpSet {
    /// Sorted, disjoint, not adjacent; inclusive ends.
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl IpSet {
    /// Whether there is no address in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Adds every address of `net`.
    pub fn insert(&mut self, net: IpNet) {
        self.insert_range(net.network(), net.broadcast());
    }

    /// Adds `first..=last`; nothing when they are of two families or in the wrong order.
    pub fn insert_range(&mut self, first: IpAddr, last: IpAddr) {
        if first.is_ipv4() == last.is_ipv4() && first <= last {
            merge(self.family_mut(first), (number(first), number(last)));
        }
    }

    /// Removes every address of `net`.
    pub fn remove(&mut self, net: IpNet) {
        let (first, last) = (number(net.network()), number(net.broadcast()));
        let ranges = self.family_mut(net.network());
        let cut = |&(low, high): &(u128, u128)| {
            let below = (low < first).then(|| (low, high.min(first.saturating_sub(1))));
            let above = (high > last).then(|| (low.max(last.saturating_add(1)), high));
            [below, above]
        };
        *ranges = ranges.iter().flat_map(cut).flatten().collect();
    }

    /// Adds every address of `other`.
    pub fn extend(&mut self, other: &Self) {
        for &range in &other.v4 {
            merge(&mut self.v4, range);
        }
        for &range in &other.v6 {
            merge(&mut self.v6, range);
        }
    }

    /// Whether `addr` is in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.overlaps(addr.into())
    }

    /// Whether any address of `net` is in it.
    pub fn overlaps(&self, net: IpNet) -> bool {
        let (first, last) = (number(net.network()), number(net.broadcast()));
        let ranges = if net.network().is_ipv4() { &self.v4 } else { &self.v6 };
        let after = ranges.partition_point(|&(_, high)| high < first);
        ranges.get(after).is_some_and(|&(low, _)| low <= last)
    }

    /// Each range as a filter spells it, IPv4 first, ascending.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        let v4 = self.v4.iter().map(|&(low, high)| text(v4(low), v4(high)));
        let v6 = self.v6.iter().map(|&(low, high)| text(v6(low), v6(high)));
        v4.chain(v6)
    }

    /// The ranges, IPv4 first, ascending, inclusive ends.
    pub fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let v4 = self.v4.iter().map(|&(low, high)| (v4(low), v4(high)));
        v4.chain(self.v6.iter().map(|&(low, high)| (v6(low), v6(high))))
    }

    fn family_mut(&mut self, addr: IpAddr) -> &mut Vec<(u128, u128)> {
        if addr.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

impl FromIterator<IpNet> for IpSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let mut set = Self::default();
        for net in nets {
            set.insert(net);
        }
        set
    }
}

/// Adds a range and joins all it touches.
fn merge(ranges: &mut Vec<(u128, u128)>, (mut low, mut high): (u128, u128)) {
    let start = ranges.partition_point(|&(_, end)| end.saturating_add(1) < low);
    let end = ranges.partition_point(|&(begin, _)| begin <= high.saturating_add(1));
    for &(begin, finish) in &ranges[start..end.max(start)] {
        low = low.min(begin);
        high = high.max(finish);
    }
    ranges.splice(start..end.max(start), [(low, high)]);
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

fn v4(number: u128) -> IpAddr {
    Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into()
}

fn v6(number: u128) -> IpAddr {
    Ipv6Addr::from_bits(number).into()
}

/// An address, a prefix where the range is one, otherwise `first-last`.
fn text(first: IpAddr, last: IpAddr) -> String {
    if first == last {
        return first.to_string();
    }
    let width: u32 = if first.is_ipv4() { 32 } else { 128 };
    let differing = 128 - (number(first) ^ number(last)).leading_zeros();
    let length = u8::try_from(width.saturating_sub(differing)).unwrap_or(0);
    match IpNet::new(first, length) {
        Ok(net) if net.network() == first && net.broadcast() == last => net.to_string(),
        _ => format!("{first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nets: &[&str]) -> IpSet {
        nets.iter().map(|net| net.parse::<IpNet>().unwrap()).collect()
    }

    fn check(set: &IpSet, texts: &[&str]) {
        assert_eq!(set.texts().collect::<Vec<_>>(), texts);
    }

    #[test]
    fn touching_and_overlapping_ranges_become_one() {
        check(&set(&["10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/25"]), &["10.0.0.0/23"]);
        check(&set(&["10.0.0.2/32", "10.0.0.1/32", "10.0.0.3/32"]), &["10.0.0.1-10.0.0.3"]);
        check(&set(&["10.0.0.1/32", "10.0.0.3/32"]), &["10.0.0.1", "10.0.0.3"]);
        check(&set(&["0.0.0.0/0", "::/0"]), &["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn a_hole_leaves_two_ranges_as_the_reference_spells_them() {
        let mut overlay = set(&["100.64.0.0/10", "fd7a:115c:a1e0::/48"]);
        overlay.remove("100.115.92.0/23".parse().unwrap());
        check(
            &overlay,
            &["100.64.0.0-100.115.91.255", "100.115.94.0-100.127.255.255", "fd7a:115c:a1e0::/48"],
        );
        overlay.remove("::/0".parse().unwrap());
        overlay.remove("0.0.0.0/0".parse().unwrap());
        assert!(overlay.is_empty());
    }

    #[test]
    fn families_do_not_mix() {
        let mut mixed = set(&["0.0.0.1/32", "::1/128"]);
        check(&mixed, &["0.0.0.1", "::1"]);
        mixed.insert_range("0.0.0.9".parse().unwrap(), "::9".parse().unwrap());
        check(&mixed, &["0.0.0.1", "::1"]);
        assert!(mixed.contains("::1".parse().unwrap()) && !mixed.contains("::2".parse().unwrap()));
    }

    #[test]
    fn overlap_needs_one_common_address() {
        let set = set(&["10.33.0.0/16"]);
        assert!(set.overlaps("10.0.0.0/8".parse().unwrap()));
        assert!(set.overlaps("10.33.7.1/32".parse().unwrap()));
        assert!(!set.overlaps("10.34.0.0/16".parse().unwrap()));
    }
}
