//! Slots: one loopback address a peer, which the kernel takes for the peer when it is reached over DERP.
//!
//! Slot n is 127.64.0.0 + n, with the node's DERP loopback port. The number comes from the peer's key, so that a
//! restarted controller finds the kernel's endpoints still right; where two keys collide, what the kernel already has wins.
//! 127.64.0.0/10 is free by convention: Linux answers all of 127/8 on `lo`, and resolvers live in 127.0.0.0/9 below it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use types::NodePublic;

/// Where the slots begin.
const BASE: u32 = u32::from_be_bytes([127, 64, 0, 0]);
/// How many there are: 127.64.0.0/10.
const COUNT: u32 = 1 << 22;

/// A peer's place in 127.64.0.0/10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// The slot of a loopback address, when it is one.
    pub fn from_ip(ip: IpAddr) -> Option<Self> {
        let IpAddr::V4(ip) = ip else { return None };
        let number = u32::from(ip).checked_sub(BASE)?;
        (number < COUNT).then_some(Self(number))
    }

    /// Its loopback address.
    pub fn ip(self) -> Ipv4Addr {
        Ipv4Addr::from(BASE + self.0)
    }
}

/// Who has which slot.
pub(crate) struct Slots {
    port: u16,
    peer_by_slot: BTreeMap<Slot, NodePublic>,
    slot_by_peer: BTreeMap<NodePublic, Slot>,
}

impl Slots {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, peer_by_slot: BTreeMap::new(), slot_by_peer: BTreeMap::new() }
    }

    /// The peer's slot, taken now if it has none.
    pub(crate) fn assign(&mut self, peer: NodePublic) -> Slot {
        if let Some(slot) = self.slot_by_peer.get(&peer) {
            return *slot;
        }
        let bytes = peer.as_bytes();
        let start = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) % COUNT;
        let slot = (0..COUNT)
            .map(|step| Slot((start + step) % COUNT))
            // 127.64.0.0 itself is left out: it reads like a network address.
            .find(|slot| slot.0 != 0 && !self.peer_by_slot.contains_key(slot))
            .expect("a network has fewer peers than there are slots");
        self.take(peer, slot);
        slot
    }

    /// Gives `peer` the slot the kernel already has for it; whoever had it gets another.
    pub(crate) fn adopt(&mut self, peer: NodePublic, slot: Slot) {
        let former = self.peer_by_slot.get(&slot).copied();
        if former == Some(peer) {
            return;
        }
        self.release(&peer);
        if let Some(former) = former {
            self.release(&former);
        }
        self.take(peer, slot);
        if let Some(former) = former {
            self.assign(former);
        }
    }

    pub(crate) fn release(&mut self, peer: &NodePublic) {
        if let Some(slot) = self.slot_by_peer.remove(peer) {
            self.peer_by_slot.remove(&slot);
        }
    }

    pub(crate) fn peer(&self, slot: Slot) -> Option<NodePublic> {
        self.peer_by_slot.get(&slot).copied()
    }

    /// What the kernel takes for the peer's endpoint.
    pub(crate) fn endpoint(&mut self, peer: NodePublic) -> SocketAddr {
        SocketAddr::new(self.assign(peer).ip().into(), self.port)
    }

    /// The slot `endpoint` stands for, if it is one of ours.
    pub(crate) fn of_endpoint(&self, endpoint: SocketAddr) -> Option<Slot> {
        (endpoint.port() == self.port).then(|| Slot::from_ip(endpoint.ip())).flatten()
    }

    fn take(&mut self, peer: NodePublic, slot: Slot) {
        self.peer_by_slot.insert(slot, peer);
        self.slot_by_peer.insert(peer, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tag: u8) -> NodePublic {
        // The first four bytes choose the slot: all of these collide.
        let mut bytes = [0; 32];
        bytes[31] = tag;
        NodePublic::from_bytes(bytes)
    }

    #[test]
    fn a_slot_is_its_loopback_address_and_back() {
        let slot = Slots::new(9).assign(key(1));
        assert_eq!(slot.ip(), Ipv4Addr::new(127, 64, 0, 1));
        assert_eq!(Slot::from_ip(slot.ip().into()), Some(slot));
        assert_eq!(Slot::from_ip(Ipv4Addr::new(127, 0, 0, 1).into()), None);
        assert_eq!(Slot::from_ip(Ipv4Addr::new(127, 128, 0, 0).into()), None);
    }

    #[test]
    fn colliding_keys_get_different_slots_and_a_freed_one_returns() {
        let mut slots = Slots::new(9);
        let (a, b) = (slots.assign(key(1)), slots.assign(key(2)));
        assert_ne!(a, b);
        slots.release(&key(1));
        assert_eq!(slots.peer(a), None);
        assert_eq!(slots.assign(key(3)), a);
    }

    #[test]
    fn the_slot_the_kernel_has_wins_over_the_one_the_key_would_give() {
        let mut slots = Slots::new(9);
        let (a, b) = (slots.assign(key(1)), slots.assign(key(2)));
        slots.adopt(key(2), a);
        assert_eq!(slots.peer(a), Some(key(2)));
        assert_eq!(slots.assign(key(1)), b);
    }
}
