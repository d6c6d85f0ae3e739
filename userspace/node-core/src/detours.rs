//! Detours: the endpoints by which the kernel's WireGuard sends to peers behind relays.
//!
//! Such an endpoint is the relay's address with a port of our choosing, one for each place; the programs turn it into the
//! relay's port and the place's number, and back (`dataplane`). Every place that is a candidate has one, so that a change of
//! the path is one endpoint written. Those of an earlier run stay as they are: the kernel's endpoints name them. Where the
//! programs cannot do it there are none, and relayed packets pass through the loopback address as those of DERP do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use types::Vni;

/// One place on a relay, as the kernel's WireGuard knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Detour {
    /// Where the relay is.
    pub relay: SocketAddr,
    /// The place's number there.
    pub vni: Vni,
    /// The port that stands for it, at the relay's address.
    pub port: u16,
}

impl Detour {
    /// What WireGuard is told.
    pub const fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.relay.ip(), self.port)
    }
}

/// A relay's address, and a number there.
type Place = (SocketAddr, Vni);

/// Ports below are other people's services.
const FIRST_PORT: u16 = 1024;

/// All detours.
#[derive(Debug, Default)]
pub(crate) struct Detours {
    /// Whether the programs can.
    enabled: bool,
    by_place: BTreeMap<Place, Detour>,
    by_endpoint: BTreeMap<SocketAddr, Place>,
    /// Places of an earlier run that nobody has asked for yet.
    adopted: BTreeSet<Place>,
}

impl Detours {
    /// The programs can, and have these already; or they cannot.
    pub(crate) fn enable(&mut self, known: Option<&[Detour]>) {
        *self = Self { enabled: known.is_some(), ..Self::default() };
        for detour in known.into_iter().flatten() {
            self.adopted.insert((detour.relay, detour.vni));
            self.insert(*detour);
        }
    }

    /// These places need one, and no others; except those of an earlier run while `settling`. Whether anything changed.
    /// `taken` are endpoints at which somebody can really be reached.
    pub(crate) fn set(
        &mut self,
        places: &BTreeSet<Place>,
        settling: bool,
        taken: impl Fn(SocketAddr) -> bool,
    ) -> bool {
        if !self.enabled {
            return false;
        }
        self.adopted.retain(|place| settling && !places.contains(place));
        let stale: Vec<Detour> = self
            .by_place
            .iter()
            .filter(|(place, _)| !places.contains(place) && !self.adopted.contains(place))
            .map(|(_, detour)| *detour)
            .collect();
        let fresh: Vec<Place> =
            places.iter().filter(|place| !self.by_place.contains_key(place)).copied().collect();
        for detour in &stale {
            self.by_place.remove(&(detour.relay, detour.vni));
            self.by_endpoint.remove(&detour.endpoint());
        }
        for (relay, vni) in &fresh {
            let free = |port: &u16| {
                let endpoint = SocketAddr::new(relay.ip(), *port);
                *port != relay.port() && !self.by_endpoint.contains_key(&endpoint) && !taken(endpoint)
            };
            if let Some(port) = ports(relay.port(), *vni).find(free) {
                self.insert(Detour { relay: *relay, vni: *vni, port });
            }
        }
        !(stale.is_empty() && fresh.is_empty())
    }

    /// What WireGuard is told for a place.
    pub(crate) fn endpoint(&self, relay: SocketAddr, vni: Vni) -> Option<SocketAddr> {
        self.by_place.get(&(relay, vni)).map(Detour::endpoint)
    }

    /// Which place an endpoint of WireGuard stands for.
    pub(crate) fn place(&self, endpoint: SocketAddr) -> Option<Place> {
        self.by_endpoint.get(&endpoint).copied()
    }

    /// All of them, in order.
    pub(crate) fn list(&self) -> BTreeSet<Detour> {
        self.by_place.values().copied().collect()
    }

    fn insert(&mut self, detour: Detour) {
        self.by_place.insert((detour.relay, detour.vni), detour);
        self.by_endpoint.insert(detour.endpoint(), (detour.relay, detour.vni));
    }
}

/// Every port there is, beginning somewhere that depends on the place.
fn ports(relay_port: u16, vni: Vni) -> impl Iterator<Item = u16> {
    let count = u32::from(u16::MAX - FIRST_PORT) + 1;
    let start = (vni.get().wrapping_mul(0x9e37_79b1) ^ u32::from(relay_port)) % count;
    (0..count).filter_map(move |step| u16::try_from(u32::from(FIRST_PORT) + (start + step) % count).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(relay: &str, vni: u32) -> Place {
        (relay.parse().unwrap(), Vni::new(vni).unwrap())
    }

    fn nobody(_: SocketAddr) -> bool {
        false
    }

    #[test]
    fn each_place_has_a_port_of_its_own_and_the_way_back() {
        let mut detours = Detours::default();
        let places: BTreeSet<Place> = (1..2000).map(|vni| place("203.0.113.1:7777", vni)).collect();
        assert!(!detours.set(&places, false, nobody), "the programs cannot");
        detours.enable(Some(&[]));
        assert!(detours.set(&places, false, nobody));
        assert!(!detours.set(&places, false, nobody));
        assert_eq!(detours.list().len(), 1999);
        for (relay, vni) in &places {
            let endpoint = detours.endpoint(*relay, *vni).unwrap();
            assert!(endpoint.port() >= FIRST_PORT && endpoint.port() != 7777);
            assert_eq!(detours.place(endpoint), Some((*relay, *vni)));
        }
        assert!(detours.set(&BTreeSet::new(), false, nobody));
        assert!(detours.list().is_empty() && detours.by_endpoint.is_empty());
    }

    #[test]
    fn an_endpoint_where_somebody_is_stands_for_nothing_else() {
        let mut detours = Detours::default();
        detours.enable(Some(&[]));
        let one = place("203.0.113.1:7777", 5);
        detours.set(&[one].into(), false, nobody);
        let first = detours.endpoint(one.0, one.1).unwrap();
        detours.enable(Some(&[]));
        detours.set(&[one].into(), false, |endpoint| endpoint == first);
        assert_ne!(detours.endpoint(one.0, one.1), Some(first));
    }

    #[test]
    fn what_an_earlier_run_has_left_stays_until_things_have_settled() {
        let (one, two) = (place("203.0.113.1:7777", 5), place("203.0.113.1:7777", 6));
        let left = [one, two].map(|(relay, vni)| Detour { relay, vni, port: 5000 + vni.get() as u16 });
        let mut detours = Detours::default();
        detours.enable(Some(&left));
        assert!(!detours.set(&[one].into(), true, nobody));
        assert_eq!(detours.list(), left.into());
        assert!(detours.set(&[one].into(), false, nobody));
        assert_eq!(detours.list(), [left[0]].into());
    }
}
