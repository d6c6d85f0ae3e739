//! Peers: every peer in use, found by node key, by id, and by DISCO key.
//!
//! Two nodes may share a DISCO key (one machine in two networks, or a profile switch), so that index gives several.
//! Deliberately not here: peers that may not be used (expired, or without any way to reach them).

use std::collections::{BTreeMap, BTreeSet};

use types::{DiscoPublic, NodeId, NodePublic};

use crate::peer::Peer;

/// The peers in use.
#[derive(Default)]
pub(crate) struct Peers {
    by_key: BTreeMap<NodePublic, Peer>,
    key_by_id: BTreeMap<NodeId, NodePublic>,
    keys_by_disco: BTreeMap<DiscoPublic, BTreeSet<NodePublic>>,
}

impl Peers {
    pub(crate) fn get(&self, key: &NodePublic) -> Option<&Peer> {
        self.by_key.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &NodePublic) -> Option<&mut Peer> {
        self.by_key.get_mut(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.by_key.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.by_key.values_mut()
    }

    pub(crate) fn keys(&self) -> Vec<NodePublic> {
        self.by_key.keys().copied().collect()
    }

    pub(crate) fn key_of(&self, id: NodeId) -> Option<NodePublic> {
        self.key_by_id.get(&id).copied()
    }

    /// The peer with this id and key, made if it is new, with its DISCO key brought up to date.
    pub(crate) fn upsert(&mut self, id: NodeId, key: NodePublic, disco: Option<DiscoPublic>) -> &mut Peer {
        if let Some(old) = self.by_key.get(&key).and_then(|peer| peer.disco).filter(|old| Some(*old) != disco)
        {
            self.unlist(&old, &key);
        }
        if let Some(disco) = disco {
            self.keys_by_disco.entry(disco).or_default().insert(key);
        }
        self.key_by_id.insert(id, key);
        let peer = self.by_key.entry(key).or_insert_with(|| Peer::new(id, key));
        peer.disco = disco;
        peer
    }

    pub(crate) fn remove(&mut self, key: &NodePublic) -> Option<Peer> {
        let peer = self.by_key.remove(key)?;
        self.key_by_id.remove(&peer.id);
        if let Some(disco) = &peer.disco {
            self.unlist(disco, key);
        }
        Some(peer)
    }

    /// Whether any peer has this DISCO key.
    pub(crate) fn knows_disco(&self, disco: &DiscoPublic) -> bool {
        self.keys_by_disco.contains_key(disco)
    }

    /// Whether no two peers have this DISCO key.
    pub(crate) fn is_only_one_with(&self, disco: &DiscoPublic) -> bool {
        self.keys_by_disco.get(disco).is_some_and(|keys| keys.len() == 1)
    }

    pub(crate) fn with_disco(&self, disco: &DiscoPublic) -> Vec<NodePublic> {
        self.keys_by_disco.get(disco).into_iter().flatten().copied().collect()
    }

    /// Of the peers with this DISCO key, the one that claims to be `claimed`; all of them when it claims nothing useful.
    pub(crate) fn resolve(&self, disco: &DiscoPublic, claimed: Option<NodePublic>) -> Vec<NodePublic> {
        let keys = self.with_disco(disco);
        match claimed.filter(|key| keys.contains(key)) {
            Some(key) => vec![key],
            None => keys,
        }
    }

    fn unlist(&mut self, disco: &DiscoPublic, key: &NodePublic) {
        if let Some(keys) = self.keys_by_disco.get_mut(disco) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys_by_disco.remove(disco);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_key_resolves_a_shared_disco_key() {
        let key = |tag| NodePublic::from_bytes([tag; 32]);
        let disco = DiscoPublic::from_bytes([9; 32]);
        let mut peers = Peers::default();
        peers.upsert(NodeId(1), key(1), Some(disco));
        peers.upsert(NodeId(2), key(2), Some(disco));
        assert_eq!(peers.resolve(&disco, Some(key(2))), [key(2)]);
        assert_eq!(peers.resolve(&disco, Some(key(3))), [key(1), key(2)], "a stranger's claim is nothing");
        peers.upsert(NodeId(2), key(2), None);
        assert_eq!(peers.resolve(&disco, None), [key(1)]);
        peers.remove(&key(1));
        assert!(!peers.knows_disco(&disco));
        assert_eq!(peers.key_of(NodeId(1)), None);
    }
}
