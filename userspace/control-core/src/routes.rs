//! Which node serves a subnet that several offer.
//!
//! One node at a time is a prefix's primary. It stays primary while it is connected (no pre-emption); when it is not,
//! the connected node with the lowest number takes over; when none is connected, the last one keeps it, so that peers'
//! routes do not flap. Exit routes have no primary: the client chooses its exit node.

use std::collections::BTreeMap;

use ipnet::IpNet;
use types::NodeId;

/// The chosen node of every served prefix.
#[derive(Clone, Debug, Default)]
pub struct Primaries {
    by_prefix: BTreeMap<IpNet, NodeId>,
    by_node: BTreeMap<NodeId, Vec<IpNet>>,
}

impl Primaries {
    /// Chooses again. `offers` are the subnet routes of every node that may serve them, and whether it is connected.
    /// Answers which nodes won or lost a prefix.
    pub fn update(&mut self, offers: impl Iterator<Item = (NodeId, bool, IpNet)>) -> Vec<NodeId> {
        let mut candidates = BTreeMap::<IpNet, Vec<(NodeId, bool)>>::new();
        for (node, online, prefix) in offers {
            candidates.entry(prefix).or_default().push((node, online));
        }
        let choose = |(prefix, nodes): (IpNet, Vec<(NodeId, bool)>)| {
            let current = self.by_prefix.get(&prefix);
            // Connected before not, then the current one, then the lowest number.
            let rank = |(node, online): &&(NodeId, bool)| (!*online, Some(node) != current, *node);
            let chosen = nodes.iter().min_by_key(rank)?.0;
            Some((prefix, chosen))
        };
        let by_prefix: BTreeMap<_, _> = candidates.into_iter().filter_map(choose).collect();
        let lost = self.by_prefix.iter().filter(|(prefix, node)| by_prefix.get(prefix) != Some(node));
        let won = by_prefix.iter().filter(|(prefix, node)| self.by_prefix.get(prefix) != Some(node));
        let changed = lost.chain(won).map(|(_, node)| *node).collect();
        self.by_prefix = by_prefix;
        self.by_node.clear();
        for (prefix, node) in &self.by_prefix {
            self.by_node.entry(*node).or_default().push(*prefix);
        }
        changed
    }

    /// The prefixes `node` is primary of, sorted.
    pub fn of(&self, node: NodeId) -> &[IpNet] {
        self.by_node.get(&node).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primary_changes_only_when_it_must() {
        let prefix: IpNet = "10.0.0.0/24".parse().unwrap();
        let mut primaries = Primaries::default();
        let mut check = |online: &[(i64, bool)], changed: &[i64], primary: Option<i64>| {
            let offers = online.iter().map(|(node, online)| (NodeId(*node), *online, prefix));
            assert_eq!(primaries.update(offers), changed.iter().map(|id| NodeId(*id)).collect::<Vec<_>>());
            let holder = online.iter().find(|(id, _)| primaries.of(NodeId(*id)).contains(&prefix));
            assert_eq!(holder.map(|(id, _)| *id), primary);
        };
        check(&[(1, false), (2, true)], &[2], Some(2));
        check(&[(1, true), (2, true)], &[], Some(2));
        check(&[(1, true), (2, false)], &[2, 1], Some(1));
        check(&[(1, false), (2, false)], &[], Some(1));
        check(&[(2, false)], &[1, 2], Some(2));
        check(&[], &[2], None);
    }
}
