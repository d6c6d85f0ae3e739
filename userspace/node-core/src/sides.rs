//! Sides: what STUN servers see of the uplinks that the kernel's routes do not prefer.
//!
//! Rides on a netcheck: the first requests to each server leave by every other uplink as well. The answers are candidates of
//! ours and nothing else; latencies and the kind of NAT are those of the preferred uplink. Deliberately not here: which
//! servers, and when (`netcheck`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use wire::stun::TxId;

use crate::path::{Path, Uplink};
use crate::rng::Rng;
use crate::underlay::Underlay;

/// Requests by one uplink and family in a run: any of them may be lost.
const TRIES: usize = 4;

/// The other uplinks in the present run.
#[derive(Default)]
pub(crate) struct Sides {
    sent: BTreeMap<TxId, (Uplink, bool)>,
    /// By uplink, and whether it was IPv4.
    tries: BTreeMap<(Uplink, bool), usize>,
    answered: BTreeSet<(Uplink, bool)>,
}

impl Sides {
    /// A run begins.
    pub(crate) fn start(&mut self) {
        *self = Self::default();
    }

    /// The requests that go with one to `server`.
    pub(crate) fn accompany(
        &mut self,
        server: SocketAddr,
        underlay: &Underlay,
        rng: &mut Rng,
    ) -> Vec<(Path, TxId)> {
        let mut out = Vec::new();
        for (path, _) in underlay.paths_to(server, None).into_iter().skip(1) {
            let Some(uplink) = path.uplink else { continue };
            let side = (uplink, server.is_ipv4());
            let tries = self.tries.entry(side).or_default();
            if *tries < TRIES && !self.answered.contains(&side) {
                *tries += 1;
                let tx_id = TxId(rng.bytes());
                self.sent.insert(tx_id, side);
                out.push((path, tx_id));
            }
        }
        out
    }

    /// Whether an answer is one of ours.
    pub(crate) fn handle(&mut self, tx_id: TxId) -> bool {
        let side = self.sent.remove(&tx_id);
        self.answered.extend(side);
        side.is_some()
    }
}
