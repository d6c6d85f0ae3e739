//! Score: how good a confirmed path is. The order is that of the fields, lowest first.
//!
//! What comes first is never outweighed by what follows: a neighbor before the Internet, a direct path before a relay, the
//! administrator's preferred uplink before another, and only then the round trip. Round trips are weighed as tailscale
//! does (`wgengine/magicsock/endpoint.go`, `betterAddr`): private addresses and IPv6 count as somewhat faster than they
//! are. Deliberately not here: trust, which is time (`paths`).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// At or under this round trip nothing better is looked for.
pub(crate) const GOOD_ENOUGH: Duration = Duration::from_millis(5);

/// What kind of way it is, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Straight, to a neighbor on one of our own networks.
    Lan,
    /// Straight, through routers.
    Wan,
    /// Through a peer relay.
    Relay,
    /// Through a DERP region.
    Derp,
}

/// What is known of a path before it was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    pub(crate) kind: Kind,
    /// Of the route by which it leaves.
    pub(crate) metric: u32,
}

/// How good a path is: less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// What kind of way it is.
    pub kind: Kind,
    /// The metric of the route by which it leaves: the administrator's preference among uplinks.
    pub metric: u32,
    /// The last round trip, weighed by the kind of address.
    pub cost: Duration,
}

/// Whether an address is of a kind, and the percent of its round trip that it then costs.
type Weight = (fn(IpAddr) -> bool, u32);

/// The first that fits counts.
const WEIGHTS: [Weight; 3] = [
    (|ip| ip.is_loopback(), 50),
    // The same segment for sure.
    (is_link_local, 70),
    // Costs nothing in a cloud, and is probably near.
    (is_private, 80),
];
/// IPv6 meets fewer NATs: so much less.
const IPV6: u32 = 10;
/// A first percent of gain is noise: changing for it would flap.
const NOISE: u32 = 1;

impl Score {
    pub(crate) fn new(standing: Standing, remote: SocketAddr, latency: Duration) -> Self {
        let ip = remote.ip();
        let weight = WEIGHTS.iter().find(|(fits, _)| fits(ip)).map_or(100, |(_, weight)| *weight);
        let weight = weight - if ip.is_ipv6() { IPV6 } else { 0 };
        Self { kind: standing.kind, metric: standing.metric, cost: latency * weight / 100 }
    }

    /// Whether to leave a path of score `current` for this one.
    pub(crate) fn beats(self, current: Self) -> bool {
        Self { cost: self.cost * (100 + NOISE) / 100, ..self } < current
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

    fn score(kind: Kind, metric: u32, remote: &str, ms: u64) -> Score {
        Score::new(Standing { kind, metric }, remote.parse().unwrap(), Duration::from_millis(ms))
    }

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
            let score = |(addr, ms): (&str, u64)| score(Kind::Wan, 0, addr, ms);
            assert_eq!(score(a).beats(score(b)), better, "{a:?} over {b:?}");
        }
    }

    #[test]
    fn the_kind_outweighs_the_uplink_and_the_uplink_the_round_trip() {
        let remote = "1.2.3.4:555";
        let best_first = [
            score(Kind::Lan, 900, remote, 90),
            score(Kind::Wan, 100, remote, 80),
            score(Kind::Wan, 200, remote, 20),
            score(Kind::Relay, 0, remote, 10),
            score(Kind::Derp, 0, remote, 1),
        ];
        assert!(best_first.is_sorted());
        assert!(best_first.windows(2).all(|pair| pair[0].beats(pair[1]) && !pair[1].beats(pair[0])));
    }
}
