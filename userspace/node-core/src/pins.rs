//! Pins: by which uplink the kernel's WireGuard must send to an address, where several uplinks lead there.
//!
//! WireGuard chooses an endpoint only, so that its packets leave by the uplink of the path a route for that one address is
//! needed, in a table that only marked packets ask. Two peers may live at one address (behind one NAT): then the pin of the
//! first of them holds for both, always the same one, so that they do not fight.
//! Deliberately not here: applying the routes (`dataplane`), the choice of a path (`paths`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use types::NodePublic;

use crate::underlay::Hop;

/// The pins of all peers.
#[derive(Default)]
pub(crate) struct Pins {
    hops: BTreeMap<IpAddr, BTreeMap<NodePublic, Hop>>,
    addresses: BTreeMap<NodePublic, IpAddr>,
}

impl Pins {
    /// Sets or removes a peer's pin; whether any route changes by that.
    pub(crate) fn set(&mut self, peer: NodePublic, pin: Option<(IpAddr, Hop)>) -> bool {
        let former = self.addresses.get(&peer).copied();
        let touched: Vec<IpAddr> = former.into_iter().chain(pin.map(|(address, _)| address)).collect();
        let before = touched.iter().map(|address| self.route(*address)).collect::<Vec<_>>();
        if let Some(address) = former {
            self.addresses.remove(&peer);
            self.hops.entry(address).or_default().remove(&peer);
            self.hops.retain(|_, peers| !peers.is_empty());
        }
        if let Some((address, hop)) = pin {
            self.addresses.insert(peer, address);
            self.hops.entry(address).or_default().insert(peer, hop);
        }
        touched.iter().map(|address| self.route(*address)).collect::<Vec<_>>() != before
    }

    /// The first hop of each pinned address.
    pub(crate) fn routes(&self) -> BTreeMap<IpAddr, Hop> {
        self.hops.keys().filter_map(|address| Some((*address, self.route(*address)?))).collect()
    }

    fn route(&self, address: IpAddr) -> Option<Hop> {
        self.hops.get(&address)?.values().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Uplink;

    #[test]
    fn peers_at_one_address_share_the_pin_of_the_first() {
        let key = |tag| NodePublic::from_bytes([tag; 32]);
        let address = IpAddr::from([203, 0, 113, 1]);
        let pin = |uplink| Some((address, Hop { metric: 0, uplink: Uplink(uplink), gateway: None }));
        let mut pins = Pins::default();
        assert!(pins.set(key(2), pin(2)));
        assert!(!pins.set(key(2), pin(2)), "nothing new");
        assert!(!pins.set(key(3), pin(3)), "the first one's holds");
        assert!(pins.set(key(2), pin(3)));
        assert!(!pins.set(key(3), None));
        assert!(pins.set(key(2), None));
        assert!(pins.routes().is_empty());
    }
}
