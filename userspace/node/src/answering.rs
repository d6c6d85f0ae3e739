//! The kernel's part of DISCO and the shield: whose pings the programs answer, and what they drop ahead of WireGuard.
//!
//! Belongs to the kernel's writer, and is what the programs' maps should hold: there may be wishes before there are
//! programs, and programs of an earlier run before there are wishes. Deliberately not here: who is vouched for (`node-core`).

use dataplane::Programs;
use node_core::DiscoPeer;
use types::{DiscoPrivate, NodePublic};

/// What the programs should know.
pub(crate) struct Answering {
    ours: DiscoPrivate,
    /// Whether what cannot be valid is dropped ahead of WireGuard.
    shield: bool,
    /// None until the core said so: an earlier run's peers stay until then.
    peers: Option<Vec<DiscoPeer>>,
}

impl Answering {
    pub(crate) fn new(ours: DiscoPrivate, shield: bool) -> Self {
        Self { ours, shield, peers: None }
    }

    /// The peers are these now.
    ///
    /// # Errors
    /// When a map refuses.
    pub(crate) fn follow(
        &mut self,
        peers: Vec<DiscoPeer>,
        programs: Option<&mut Programs>,
    ) -> Result<(), dataplane::Error> {
        let told = programs.map_or(Ok(()), |programs| programs.set_disco(&self.ours, &peers));
        self.peers = Some(peers);
        told
    }

    /// Programs were loaded or found; the device's key is `key`.
    ///
    /// # Errors
    /// When a map refuses.
    pub(crate) fn apply(&self, programs: &mut Programs, key: &NodePublic) -> Result<(), dataplane::Error> {
        programs.set_shield(self.shield.then_some(key))?;
        self.peers.as_ref().map_or(Ok(()), |peers| programs.set_disco(&self.ours, peers))
    }
}
