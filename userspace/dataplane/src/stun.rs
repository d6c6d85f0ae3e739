//! Telling the programs where and how to answer STUN.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use abi::{OWN_PLACES, Own, StunSettings};
use aya::maps::{IterableMap as _, MapError};

use crate::maps::{address, gone_is_fine};
use crate::{Error, Programs, batch};

/// How STUN binding requests are answered in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StunService {
    /// The UDP port; zero: the kernel answers nothing. On the relay's port STUN is answered in any case.
    pub port: u16,
    /// Drop all requests: the server is leaving, and clients are to find another.
    pub dropping: bool,
    /// Requests a second of one source (an IPv4 address or an IPv6 /64); zero: as many as it likes.
    pub per_second: u32,
    /// Requests at once, on top.
    pub burst: u32,
}

impl Programs {
    /// Sets where and how binding requests are answered. What the programs do not answer reaches the socket on that port.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn set_stun(&mut self, service: &StunService) -> Result<(), Error> {
        let before = self.maps.stun.get(&0, 0).map_err(Error::map("STUN"))?;
        let seed = if before.seed == 0 { random_seed() } else { before.seed };
        let cost = if service.per_second == 0 { 0 } else { 1_000_000_000 / u64::from(service.per_second) };
        let burst = cost * u64::from(service.burst);
        let settings = StunSettings { cost, burst, seed, dropping: u32::from(service.dropping) };
        self.maps.stun.set(0, settings, 0).map_err(Error::map("STUN"))?;
        self.maps.configure(|config| config.stun_port = service.port.to_be_bytes())
    }

    /// Tells which devices are ends of veth pairs, which need another way of sending a frame back; before
    /// [`Self::set_own_addresses`].
    pub fn set_veths(&mut self, devices: BTreeSet<u32>) {
        self.veths = devices;
    }

    /// Sets which addresses are ours on which device, by interface index: only packets to these are answered, and only
    /// those are dropped that no session wants. An address whose places are taken by others is left out, and its packets
    /// reach the socket.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn set_own_addresses(&mut self, addresses: &BTreeSet<(u32, IpAddr)>) -> Result<(), Error> {
        let known: Vec<Own> = batch::read_array(self.maps.own.map().fd(), OWN_PLACES)
            .map_err(|error| Error::Map { map: "OWN", cause: MapError::IoError(error) })?;
        let wanted = places(addresses, &self.veths);
        for (place, before) in (0..).zip(known) {
            let own = wanted.get(&place).copied().unwrap_or_default();
            if own != before {
                self.maps.own.set(place, own, 0).map_err(Error::map("OWN"))?;
            }
        }
        Ok(())
    }

    /// Sets which devices frames may be sent out of, by interface index. Behind others everything reaches the sockets.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn set_outlets(&mut self, devices: &BTreeSet<u32>) -> Result<(), Error> {
        let known: BTreeSet<u32> = self.maps.outlets.keys().filter_map(Result::ok).collect();
        for stale in known.difference(devices) {
            gone_is_fine(self.maps.outlets.remove(stale)).map_err(Error::map("OUTLETS"))?;
        }
        devices
            .difference(&known)
            .try_for_each(|device| self.maps.outlets.insert(device, 1, 0))
            .map_err(Error::map("OUTLETS"))
    }
}

/// Which address is where.
fn places(addresses: &BTreeSet<(u32, IpAddr)>, veths: &BTreeSet<u32>) -> BTreeMap<u32, Own> {
    let mut places = BTreeMap::new();
    for (ifindex, ip) in addresses {
        let (family, address) = address(*ip);
        let veth = u32::from(veths.contains(ifindex));
        let own = Own { address, ifindex: *ifindex, family: family as u32, veth, zero: 0 };
        match own.places().into_iter().find(|place| !places.contains_key(place)) {
            Some(place) => _ = places.insert(place, own),
            None => tracing::debug!(%ip, ifindex, "address is served in userspace: its places are taken"),
        }
    }
    places
}

/// Unguessable is not needed, different from machine to machine is; the hasher's keys are random.
fn random_seed() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32 | 1
}
