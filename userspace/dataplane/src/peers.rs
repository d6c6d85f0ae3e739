//! Telling the programs which addresses belong to which peer, so that each peer has its own share of the flow table.

use std::collections::BTreeMap;

use abi::PeerKey;
use ipnet::IpNet;

use crate::maps::{address, gone_is_fine, lpm_key};
use crate::{Error, Programs};

impl Programs {
    /// Sets the peers' prefixes (their allowed IPs); the slot is any small number that stays with the peer. Peers whose
    /// slots differ by a multiple of [`abi::FLOW_REGIONS`] share one region. Addresses of no peer
    /// are spread over all regions.
    ///
    /// # Errors
    /// When the map is full or refuses; what was written stays, which is harmless.
    pub fn set_peers(&mut self, prefixes: &BTreeMap<IpNet, u32>) -> Result<(), Error> {
        let stale: Vec<_> = {
            let wanted: BTreeMap<(u32, PeerKey), u32> =
                prefixes.iter().map(|(net, slot)| (key(net), *slot)).collect();
            let known = self.maps.peers.keys().filter_map(Result::ok);
            known.filter(|key| !wanted.contains_key(&(key.prefix_len(), key.data()))).collect()
        };
        for key in stale {
            gone_is_fine(self.maps.peers.remove(&key)).map_err(Error::map("PEERS"))?;
        }
        for (net, slot) in prefixes {
            let key = lpm_key(PeerKey::HEAD_BITS, net, key(net).1);
            self.maps.peers.insert(&key, *slot, 0).map_err(Error::map("PEERS"))?;
        }
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_err(|errno| {
            Error::Map { map: "FLOWS", cause: aya::maps::MapError::IoError(errno.into()) }
        })?;
        self.maps.sweep_flows(std::time::Duration::from(now).as_nanos() as u64)
    }
}

fn key(net: &IpNet) -> (u32, PeerKey) {
    let (family, address) = address(net.network());
    (PeerKey::HEAD_BITS + u32::from(net.prefix_len()), PeerKey::new(family, address))
}
