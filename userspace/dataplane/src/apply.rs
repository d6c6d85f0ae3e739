//! Apply: carries out steps, one after the other, and says which one failed.
//!
//! An [`Applier`] is the only writer of its device. It stops at the first failure: what comes later may rely on what came
//! before (routes on peers, everything on the filter), and the next attempt starts from a fresh look. Deliberately not here:
//! which steps (`reconcile`), making and deleting the device (the daemon), attaching programs ([`Programs`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use netlink::Handle;
use netlink::wireguard::Wireguard;
use node_core::filter::Filter;
use node_core::{Desired, Hop, ObservedPeer};
use types::NodePublic;

use crate::observe::{Observed, observe};
use crate::pinned_routes::pin;
use crate::reconcile::{PROTOCOL, Settings, Step, reconcile};
use crate::{Error as ProgramsError, Programs};

/// One overlay device and everything that belongs to it.
pub struct Applier {
    handle: Handle,
    wireguard: Wireguard,
    programs: Programs,
    settings: Settings,
    /// What is in the programs' maps, once this process has put it there.
    filter: Option<Filter>,
    owners: Option<BTreeMap<IpNet, u32>>,
}

/// A step that failed: what, on what, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct Failure {
    /// What was being done.
    pub step: &'static str,
    /// Why it failed; names its object.
    pub cause: Cause,
}

/// Who refused.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The kernel, by netlink.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The programs or their maps.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

impl Applier {
    /// Takes over a device whose programs are loaded and attached.
    pub fn new(handle: Handle, wireguard: Wireguard, programs: Programs, settings: Settings) -> Self {
        Self { handle, wireguard, programs, settings, filter: None, owners: None }
    }

    /// Makes the kernel what `desired` says; does nothing where it is that already.
    ///
    /// # Errors
    /// The first step that failed; those before it are done. What does not fit the programs' maps is refused whole.
    pub async fn apply(&mut self, desired: &Desired) -> Result<(), Failure> {
        let steps = reconcile(desired, &self.settings, &self.observe().await?);
        // The filter is looked at by its own step, which is the first.
        fits(&steps).map_err(|error| failure("telling the programs the peers", error))?;
        for step in steps {
            self.carry_out(step).await?;
        }
        if !desired.up {
            self.pin(&BTreeMap::new()).await?;
        }
        Ok(())
    }

    /// Moves one peer's endpoint, without a look at anything else. A peer that is gone is left gone.
    ///
    /// # Errors
    /// When the device refuses.
    pub async fn set_endpoint(&mut self, peer: NodePublic, endpoint: SocketAddr) -> Result<(), Failure> {
        self.carry_out(Step::endpoint(peer, endpoint)).await
    }

    /// Lets packets of our own to each of these addresses leave by its hop, and those to no others.
    ///
    /// # Errors
    /// The first route the kernel refuses; the others are set.
    pub async fn pin(&mut self, routes: &BTreeMap<IpAddr, Hop>) -> Result<(), Failure> {
        let table = self.settings.underlay_table;
        pin(&self.handle, table, routes).await.map_err(|error| failure("pinning routes to peers", error))
    }

    /// The device's peers, see [`peers`].
    ///
    /// # Errors
    /// When the device is gone.
    pub async fn peers(&self) -> netlink::Result<Vec<ObservedPeer>> {
        peers(&self.wireguard).await
    }

    /// The programs, to attach them to more devices, read counters and traces.
    pub fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// The device.
    pub fn wireguard(&self) -> &Wireguard {
        &self.wireguard
    }

    async fn observe(&self) -> Result<Observed, Failure> {
        let observed = observe(&self.handle, &self.wireguard, &self.settings).await;
        let observed = observed.map_err(|error| failure("looking at the kernel", error))?;
        Ok(Observed { filter: self.filter.clone(), owners: self.owners.clone(), ..observed })
    }

    async fn carry_out(&mut self, step: Step) -> Result<(), Failure> {
        let name = self.wireguard.name();
        match step {
            Step::Filter(filter) => {
                self.programs
                    .install(&filter)
                    .map_err(|error| failure("swapping the packet filter", error))?;
                self.filter = Some(filter);
                Ok(())
            }
            Step::Owners(owners) => {
                self.programs
                    .set_peers(&owners)
                    .map_err(|error| failure("telling the programs the peers", error))?;
                self.owners = Some(owners);
                Ok(())
            }
            Step::Peers(changes) => {
                self.wireguard.apply(&changes).await.map_err(|error| failure("changing peers", error))
            }
            Step::AddAddress(address) => unless_taken(self.handle.add_address(&address).await)
                .map_err(|error| failure("adding an address", error)),
            Step::RemoveAddress(address) => unless_missing(self.handle.remove_address(&address).await)
                .map_err(|error| failure("removing an address", error)),
            Step::Link(change) => self
                .handle
                .set_link(name, &change)
                .await
                .map_err(|error| failure("bringing the device up", error)),
            Step::AddRule(rule) => unless_taken(self.handle.add_rule(&rule).await)
                .map_err(|error| failure("adding a rule", error)),
            Step::RemoveRule(rule) => unless_missing(self.handle.remove_rule(&rule).await)
                .map_err(|error| failure("removing a rule", error)),
            Step::Routes(changes) => match self.handle.change_routes(changes).await.into_iter().next() {
                Some((_, error)) => Err(failure("changing routes", error)),
                None => Ok(()),
            },
        }
    }
}

/// A device's peers with their counters, for `node-core`.
///
/// # Errors
/// When the device is gone.
pub async fn peers(wireguard: &Wireguard) -> netlink::Result<Vec<ObservedPeer>> {
    let peer = |peer: netlink::wireguard::Peer| ObservedPeer {
        key: NodePublic::from_bytes(peer.key.0),
        endpoint: peer.endpoint,
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
        last_handshake: peer.last_handshake,
    };
    Ok(wireguard.device().await?.peers.into_iter().map(peer).collect())
}

/// Removes our rules where there is no device any more to reconcile.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove_rules(handle: &Handle) -> netlink::Result<()> {
    for rule in handle.rules().await?.iter().filter(|rule| rule.protocol == PROTOCOL) {
        unless_missing(handle.remove_rule(rule).await)?;
    }
    Ok(())
}

fn fits(steps: &[Step]) -> Result<(), ProgramsError> {
    let limit = abi::MAX_PEER_PREFIXES as usize;
    let prefixes = |step: &Step| if let Step::Owners(owners) = step { owners.len() } else { 0 };
    match steps.iter().map(prefixes).find(|have| *have > limit) {
        Some(have) => Err(ProgramsError::TooManyPrefixes { have, limit }),
        None => Ok(()),
    }
}

fn failure(step: &'static str, cause: impl Into<Cause>) -> Failure {
    Failure { step, cause: cause.into() }
}

/// Somebody else (another node of this machine) may have added the same: that is as good.
fn unless_taken(result: netlink::Result<()>) -> netlink::Result<()> {
    result.or_else(|error| if error.is_taken() { Ok(()) } else { Err(error) })
}

fn unless_missing(result: netlink::Result<()>) -> netlink::Result<()> {
    result.or_else(|error| if error.is_missing() { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_prefixes_than_the_map_holds_are_refused_before_the_first_step() {
        let owners = |count: u32| {
            let address = |n| IpNet::from(IpAddr::from(std::net::Ipv4Addr::from_bits(n)));
            Step::Owners((0..count).map(|n| (address(n), 1)).collect())
        };
        let filter = || Step::Filter(Filter::default());
        fits(&[filter(), owners(abi::MAX_PEER_PREFIXES)]).unwrap();
        let error = fits(&[filter(), owners(abi::MAX_PEER_PREFIXES + 1)]).unwrap_err().to_string();
        assert!(error.contains("65537") && error.contains("65536"), "{error}");
    }
}
