//! All clients of one DERP server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use types::NodePublic;
use wire::derp::{Error, KEEP_ALIVE, KEYED_LEN, MAX_PACKET, PresentFlags};

use crate::counters::Live;
use crate::mailbox::Mailbox;
use crate::registry::Registry;
use crate::{Counters, Link, Rate, Uplink};

/// What an operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of each kind of packet that may wait for one slow client.
    pub queue_bytes: usize,
    /// Bytes a client may send; `None` is unlimited, as Tailscale's default.
    pub rate: Option<Rate>,
}

impl Default for Config {
    fn default() -> Self {
        Self { queue_bytes: 512 << 10, rate: None }
    }
}

/// Names one admitted connection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

/// Why an admitted connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame only servers of a mesh may send.
    #[error("the client sent a frame reserved for servers of a mesh")]
    Privilege,
    /// A packet over the protocol's limit.
    #[error("the client sent a packet of {0} bytes, {MAX_PACKET} are allowed")]
    PacketTooLong(usize),
    /// What it sent is not DERP.
    #[error(transparent)]
    Wire(Error),
}

/// "Peer not here" answers: three at once, then one a second, so that they cannot be used to search for keys.
pub(crate) const NOT_HERE_RATE: Rate = Rate { per_second: 1, burst: 3 };
/// A bucket must hold the largest frame, or that frame would never be paid for at once.
const MIN_BURST: u64 = (KEYED_LEN + MAX_PACKET) as u64;

/// Who is to be admitted, with its key proven.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// Who.
    pub key: NodePublic,
    /// From where, for the other servers of the region.
    pub address: Option<SocketAddr>,
    /// It has shown the mesh key: it is another server of the region.
    pub mesh: bool,
    /// It only measures.
    pub prober: bool,
}

impl Admission {
    /// An ordinary client.
    pub fn client(key: NodePublic) -> Self {
        Self { key, address: None, mesh: false, prober: false }
    }

    fn flags(&self) -> PresentFlags {
        PresentFlags(match (self.mesh, self.prober) {
            (true, _) => PresentFlags::MESH_PEER,
            (_, true) => PresentFlags::PROBER,
            _ => PresentFlags::REGULAR,
        })
    }
}

/// The state of a DERP server; one for the whole process, shared by the tasks of its connections.
pub struct Server {
    config: Config,
    registry: Mutex<Registry>,
    /// Grows whenever the way to a client of another server may have changed.
    mesh_epoch: AtomicU64,
    live: Live,
}

impl Server {
    /// Without clients.
    pub fn new(mut config: Config) -> Arc<Self> {
        if let Some(rate) = &mut config.rate {
            rate.burst = rate.burst.max(MIN_BURST);
        }
        Arc::new(Self {
            config,
            registry: Mutex::default(),
            mesh_epoch: AtomicU64::new(0),
            live: Live::default(),
        })
    }

    /// The configuration in force: a burst smaller than a frame has been raised.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes in a connection whose key is proven and which may use this relay. `jitter`, random below 5 s, spreads the
    /// keep-alives of clients that came together.
    pub fn admit(self: &Arc<Self>, admission: Admission, jitter: Duration, now: Instant) -> Link {
        let mailbox = Arc::new(Mailbox::new(self.config.queue_bytes));
        let Admission { key, address, mesh, .. } = admission;
        let id = self.registry().admit(key, address, admission.flags(), mailbox.clone());
        // Who was remembered at another server may have come to us.
        self.mesh_changed();
        Link::new(self.clone(), (id, mailbox), key, mesh, KEEP_ALIVE + jitter, now)
    }

    /// Takes in a connection to another server of the region, which this one made.
    pub fn add_uplink(self: &Arc<Self>) -> Uplink {
        let mailbox = Arc::new(Mailbox::new(self.config.queue_bytes));
        let id = self.registry().add_uplink(mailbox.clone());
        Uplink::new(self.clone(), id, mailbox)
    }

    /// Whether another server of the region has this client.
    pub fn is_elsewhere(&self, key: &NodePublic) -> bool {
        self.registry().is_elsewhere(key)
    }

    /// Has all connections of a key end: the node may no longer use the relay.
    pub fn disconnect(&self, key: &NodePublic) {
        self.registry().disconnect(key);
    }

    /// Tells every client that this server restarts: wait `reconnect_in`, then try for `try_for`.
    pub fn announce_restart(&self, reconnect_in: Duration, try_for: Duration) {
        self.registry().announce_restart(reconnect_in, try_for);
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.registry().counters.clone();
        self.live.add_to(&mut counters);
        counters
    }

    /// A panic in another connection's task leaves whole entries behind, so the registry serves on.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    pub(crate) fn mesh_epoch(&self) -> u64 {
        self.mesh_epoch.load(Ordering::Acquire)
    }

    pub(crate) fn mesh_changed(&self) {
        self.mesh_epoch.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
