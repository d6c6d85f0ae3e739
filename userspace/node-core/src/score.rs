//! Score: which of two confirmed addresses of a peer is better (tailscale `wgengine/magicsock/endpoint.go`, `betterAddr`).
//!
//! Points are percent: how much faster an address is than the slower of the two, plus what its kind is worth. Deliberately
//! not here: trust, which is time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// At or under this round trip nothing better is looked for.
pub(crate) const GOOD_ENOUGH: Duration = Duration::from_millis(5);

/// A confirmed address and the round trip last measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quality {
    pub(crate) addr: SocketAddr,
    pub(crate) latency: Duration,
}

/// Whether an address is of a kind, and the points of that kind.
type Worth = (fn(IpAddr) -> bool, i64);

/// What an address is worth by its kind. The first of the exclusive kinds that fits counts.
const KINDS: [Worth; 3] = [
    (|ip| ip.is_loopback(), 50),
    // The same segment for sure.
    (is_link_local, 30),
    // Costs nothing in a cloud, and is probably near.
    (is_private, 20),
];
/// IPv6 meets fewer NATs.
const IPV6: i64 = 10;
/// A first percent of gain is noise: changing for it would flap.
const NOISE: i64 = 1;

impl Quality {
    /// Whether to leave `current` for `self`.
    pub(crate) fn is_better_than(&self, current: &Self) -> bool {
        if self.addr == current.addr {
            return false;
        }
        let (ours, theirs) = (self.points(current), current.points(self));
        ours > theirs && !(ours <= NOISE && theirs == 0)
    }

    fn points(&self, other: &Self) -> i64 {
        let ip = self.addr.ip();
        let kind = KINDS.iter().find(|(fits, _)| fits(ip)).map_or(0, |(_, points)| *points);
        let family = if ip.is_ipv6() { IPV6 } else { 0 };
        self.gain(other) + kind + family
    }

    /// Percent by which this round trip is shorter.
    fn gain(&self, other: &Self) -> i64 {
        let (ours, theirs) = (self.latency.as_nanos(), other.latency.as_nanos());
        if ours >= theirs {
            return 0;
        }
        i64::try_from(100 - ours * 100 / theirs).unwrap_or(100)
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of tailscale's `TestBetterAddr` that concern direct addresses.
    #[test]
    fn better_is_faster_nearer_or_newer_by_more_than_noise() {
        const PUBLIC: &str = "1.2.3.4:555";
        const PUBLIC_2: &str = "5.6.7.8:999";
        const V6: &str = "[2001::5]:123";
        for (a, b, better) in [
            ((PUBLIC, 100), (PUBLIC, 100), false),
            ((PUBLIC, 200), (PUBLIC_2, 100), false),
            ((PUBLIC_2, 100), (PUBLIC, 200), true),
            ((PUBLIC, 100), (PUBLIC_2, 100), false),
            // One percent is noise.
            ((PUBLIC, 100), (PUBLIC_2, 101), false),
            ((PUBLIC, 90), (PUBLIC_2, 100), true),
            // IPv6 wins when about as fast, not when much slower.
            ((V6, 100), (PUBLIC, 100), true),
            ((V6, 105), (PUBLIC, 100), true),
            ((V6, 150), (PUBLIC, 100), false),
            // Private wins when about as fast.
            (("10.0.0.2:123", 100), ("1.2.3.4:555", 91), true),
            (("10.0.0.2:123", 100), ("1.2.3.4:555", 70), false),
            (("127.0.0.1:1", 100), ("10.0.0.2:1", 75), true),
            (("169.254.1.1:1", 100), ("10.0.0.2:1", 95), true),
        ] {
            let quality = |(addr, ms): (&str, u64)| Quality {
                addr: addr.parse().unwrap(),
                latency: Duration::from_millis(ms),
            };
            assert_eq!(quality(a).is_better_than(&quality(b)), better, "{a:?} over {b:?}");
        }
    }
}
