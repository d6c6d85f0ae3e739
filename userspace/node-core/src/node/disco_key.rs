//! DISCO keys that peers tell themselves, inside the tunnel, ahead of the map (tailscale `net/packet/tsmp.go`, type `a`).
//!
//! A peer whose key changed says so with its first handshakes, so that pings reach it before control has passed the key on.
//! Until the map names another key than it did then, the one that was told holds. Our own is told to a peer once WireGuard
//! has made a handshake with it. Deliberately not here: the packets (the shell).

use std::net::IpAddr;
use std::time::Instant;

use types::{DiscoPublic, NodePublic};
use wire::control::Node as WireNode;

use super::Node;
use crate::output::Event;

/// What a peer told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    key: DiscoPublic,
    /// What the map said then.
    instead_of: Option<DiscoPublic>,
}

impl Node {
    /// The peer with this overlay address said, inside the tunnel, that this is its DISCO key. WireGuard vouches for the
    /// address.
    pub fn handle_disco_key(&mut self, from: IpAddr, disco: DiscoPublic, now: Instant) {
        let Some(node) = self.netmap.owner(from).filter(|_| !disco.is_zero()) else { return };
        let (id, key, instead_of) = (node.id, node.key, in_map(node));
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.disco != Some(disco)) else { return };
        peer.told_disco = Some(Told { key: disco, instead_of });
        let is_active = peer.is_active(now);
        self.sync_peer(id, now);
        if is_active {
            self.probe_urgently(key, now);
            self.settle(key, now);
        }
    }

    /// The peer's DISCO key: as the map says, unless the peer told another since.
    pub(super) fn disco_key_of(&self, node: &WireNode) -> Option<DiscoPublic> {
        let in_map = in_map(node);
        let told = self.peers.get(&node.key).and_then(|peer| peer.told_disco);
        told.filter(|told| told.instead_of == in_map).map(|told| told.key).or(in_map)
    }

    /// WireGuard has just made a handshake with this peer.
    pub(super) fn tell_disco_key(&mut self, key: NodePublic) {
        let address = self.netmap.peer(&key).and_then(|node| node.addresses.first());
        self.events.extend(address.map(|net| Event::TellDiscoKey(net.addr())));
    }
}

fn in_map(node: &WireNode) -> Option<DiscoPublic> {
    Some(node.disco_key).filter(|key| !key.is_zero())
}
