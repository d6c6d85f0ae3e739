//! Telling the programs where and how to answer STUN.

use std::collections::BTreeSet;
use std::net::IpAddr;

use abi::{MAX_OWN_ADDRESSES, OwnKey, StunSettings};

use crate::maps::{address, gone_is_fine};
use crate::{Error, Programs};

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

    /// Sets which addresses are ours on which device, by interface index: only packets to these are answered, and only
    /// those are dropped that no session wants. Of more than fit, the last are left out: their packets reach the socket.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn set_own_addresses(&mut self, addresses: &BTreeSet<(u32, IpAddr)>) -> Result<(), Error> {
        let wanted: BTreeSet<OwnKey> =
            addresses.iter().take(MAX_OWN_ADDRESSES as usize).map(|(device, ip)| key(*device, *ip)).collect();
        let known: BTreeSet<OwnKey> = self.maps.own.keys().filter_map(Result::ok).collect();
        for stale in known.difference(&wanted) {
            gone_is_fine(self.maps.own.remove(stale)).map_err(Error::map("OWN"))?;
        }
        wanted
            .difference(&known)
            .try_for_each(|key| self.maps.own.insert(key, 1, 0))
            .map_err(Error::map("OWN"))
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

fn key(ifindex: u32, ip: IpAddr) -> OwnKey {
    let (family, address) = address(ip);
    OwnKey { address, ifindex, family: family as u32 }
}

/// Unguessable is not needed, different from machine to machine is; the hasher's keys are random.
fn random_seed() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32 | 1
}
