//! Putting a compiled filter in force: written beside the one in force, switched to by one store.
//!
//! Every key carries its filter's generation, and programs read the generation once a packet, so no packet is judged by
//! a mixture. A crash at any point leaves the old filter or the new one in force, and leftovers that the next install
//! sweeps. Deliberately not here: what the tables mean (`compile`).
#![expect(unsafe_code, reason = "membarrier has no safe wrapper")]

use abi::{AddressKey, MAX_RANGES, PairKey, Side, Span};
use ipnet::IpNet;
use node_core::filter::Filter;

use crate::maps::{Maps, address, gone_is_fine, lpm_key};
use crate::{Compiled, Error, Programs, compile};

/// Which filter is in force; grows with every install, also over restarts. Zero: none, everything is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u32);

impl Generation {
    /// Two filters that follow each other use different halves of the range array, also where the number wraps.
    fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(2))
    }

    fn first_range(self) -> u32 {
        self.0 % 2 * MAX_RANGES
    }
}

impl Programs {
    /// Puts `filter` in force: at once for all packets, whole or not at all.
    ///
    /// # Errors
    /// [`Error::FilterTooLarge`], or a map that refuses; the previous filter then stays in force.
    pub fn install(&mut self, filter: &Filter) -> Result<Generation, Error> {
        let compiled = compile(filter)?;
        let current = self.generation()?;
        let next = current.next();
        sweep(&mut self.maps, current)?;
        write(&mut self.maps, next, &compiled)?;
        self.maps.generation.set(0, next.0, 0).map_err(Error::map("GENERATION"))?;
        // The first filter has none before it, and whoever comes up does not wait for a grace period.
        if current != Generation(0) && wait_for_programs() {
            sweep(&mut self.maps, next)?;
        }
        Ok(next)
    }

    /// The filter in force.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn generation(&self) -> Result<Generation, Error> {
        self.maps.generation.get(&0, 0).map(Generation).map_err(Error::map("GENERATION"))
    }
}

fn write(maps: &mut Maps, generation: Generation, compiled: &Compiled) -> Result<(), Error> {
    for (position, range) in (generation.first_range()..).zip(&compiled.ranges) {
        maps.ranges.set(position, *range, 0).map_err(Error::map("RANGES"))?;
    }
    for ((source, destination), span) in &compiled.pairs {
        let key = PairKey { generation: generation.0, source: *source, destination: *destination };
        let span = Span { start: generation.first_range() + span.start, ..*span };
        maps.pairs.insert(key, span, 0).map_err(Error::map("PAIRS"))?;
    }
    for ((side, net), class) in &compiled.classes {
        let key = key(generation, *side, net);
        if net.prefix_len() == net.max_prefix_len() {
            maps.hosts.insert(key, *class, 0).map_err(Error::map("HOSTS"))?;
        } else {
            let key = lpm_key(AddressKey::HEAD_BITS, net, key);
            maps.prefixes.insert(&key, *class, 0).map_err(Error::map("PREFIXES"))?;
        }
    }
    Ok(())
}

fn key(generation: Generation, side: Side, net: &IpNet) -> AddressKey {
    let (family, address) = address(net.network());
    AddressKey::new(generation.0, side, family, address)
}

/// Removes what belongs to any other generation than `kept`. The range array needs none: halves are overwritten.
fn sweep(maps: &mut Maps, kept: Generation) -> Result<(), Error> {
    let hosts: Vec<_> =
        maps.hosts.keys().filter_map(Result::ok).filter(|key| key.generation != kept.0).collect();
    hosts.iter().try_for_each(|key| gone_is_fine(maps.hosts.remove(key))).map_err(Error::map("HOSTS"))?;
    let prefixes: Vec<_> =
        maps.prefixes.keys().filter_map(Result::ok).filter(|key| key.data().generation != kept.0).collect();
    prefixes
        .iter()
        .try_for_each(|key| gone_is_fine(maps.prefixes.remove(key)))
        .map_err(Error::map("PREFIXES"))?;
    let pairs: Vec<_> =
        maps.pairs.keys().filter_map(Result::ok).filter(|key| key.generation != kept.0).collect();
    pairs.iter().try_for_each(|key| gone_is_fine(maps.pairs.remove(key))).map_err(Error::map("PAIRS"))
}

/// Waits until every program that may have read the previous generation has ended: `membarrier` waits for an RCU grace
/// period, and programs run inside one. Where the kernel has it not (`nohz_full`) the next install sweeps instead.
fn wait_for_programs() -> bool {
    // SAFETY: a system call that takes three integers and touches no memory of this process.
    let result =
        unsafe { nix::libc::syscall(nix::libc::SYS_membarrier, nix::libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighboring_generations_never_share_a_half() {
        for generation in [1, 2, u32::MAX - 1, u32::MAX].map(Generation) {
            let next = generation.next();
            assert_ne!(next, Generation(0));
            assert_ne!(next.first_range(), generation.first_range());
        }
    }
}
