//! The relay's shell: DERP over streams and HTTP, STUN over UDP, and the question who may use them.
//!
//! [`Relay`] is a cheap handle. The coordination server embeds it: [`Relay::handle_http`] answers the paths of a DERP
//! server on the server's own listener, [`Relay::run_stun`] answers STUN, [`Relay::disconnect`] ends what a removed node
//! still has open. [`daemon::run`] is the same alone. One task a connection; what they share is in one `relay_core::Server`.
//! Kernel TLS is not used: to open and seal a packet of 1,280 bytes costs 0.45 us (AES-GCM at 5.7 GB/s), one read or write
//! carries many packets already, and few kernels have the `tls` ULP loaded; it could save one copy.
//! [`Relay::mesh_with`] joins it with the other servers of its region. Deliberately not here: what a session is (relay-core),
//! frames (wire).

pub mod daemon;
mod fast_start;
mod http;
mod key;
mod mesh;
mod meta_certificate;
mod session;
mod socket;
mod strangers;
mod stun;
mod verify;
mod verify_url;
mod websocket;
mod xdp;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use relay_core::{Counters, Server, StunCounters, StunServer};
use tokio::sync::Semaphore;
use types::{MeshKey, NodePrivate, NodePublic};

pub use self::fast_start::{FastStart, HttpStream};
pub use self::key::{KeyFileError, load_or_create as load_or_create_key};
pub use self::mesh::{MeshError, MeshPeer, read_mesh_key};
pub use self::meta_certificate::meta_certificate;
pub use self::session::SessionError;
pub use self::socket::notice_dead_peer;
pub use self::strangers::{Stranger, Strangers};
pub use self::stun::StunOptions;
pub use self::verify::{Denied, Verdict, Verify};
pub use self::verify_url::VerifyUrl;
pub use self::xdp::Xdp;
pub use relay_core::{Config, DropReason, PacketKind, Rate};

/// Streams that may be between connection and proven key at once; more are closed at once, so that strangers cannot use
/// up memory.
const MAX_LOGINS: usize = 2048;
/// STUN requests of one source address: a large office behind one NAT stays below it, a flood does not.
const STUN_RATE: Rate = Rate { per_second: 500, burst: 1000 };

/// A DERP and STUN server. Clones share everything.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

struct Shared {
    private_key: NodePrivate,
    public_key: NodePublic,
    /// Who shows it is another server of the region.
    mesh_key: Option<MeshKey>,
    verify: Box<dyn Verify>,
    logins: Semaphore,
    server: Arc<Server>,
    refused: AtomicU64,
    stun: Mutex<StunServer>,
    /// The programs ahead of the STUN socket, while it is read.
    ahead: Mutex<Weak<xdp::Ahead>>,
}

impl Relay {
    /// A relay that proves itself by `private_key` and asks `verify` about every client.
    pub fn new(config: Config, private_key: NodePrivate, verify: impl Verify) -> Self {
        Self::with_mesh(config, private_key, None, verify)
    }

    /// The same for one server of several in a region, which know each other by `mesh_key`.
    pub fn with_mesh(
        config: Config,
        private_key: NodePrivate,
        mesh_key: Option<MeshKey>,
        verify: impl Verify,
    ) -> Self {
        let shared = Shared {
            public_key: private_key.public(),
            private_key,
            mesh_key: mesh_key.filter(|key| !key.is_zero()),
            verify: Box::new(verify),
            logins: Semaphore::new(MAX_LOGINS),
            server: Server::new(config),
            refused: AtomicU64::new(0),
            stun: Mutex::new(StunServer::new(STUN_RATE, random::<8, _>(u64::from_be_bytes))),
            ahead: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What clients prove the server by.
    pub fn public_key(&self) -> NodePublic {
        self.shared.public_key
    }

    /// Ends all connections of a node: it was removed from the network.
    pub fn disconnect(&self, key: &NodePublic) {
        self.shared.server.disconnect(key);
    }

    /// Tells every client to come back in `reconnect_in` and to try for `try_for`.
    pub fn announce_restart(&self, reconnect_in: Duration, try_for: Duration) {
        self.shared.server.announce_restart(reconnect_in, try_for);
    }

    /// What the DERP server counted.
    pub fn counters(&self) -> Counters {
        self.shared.server.counters()
    }

    /// What the STUN server counted.
    pub fn stun_counters(&self) -> StunCounters {
        self.stun().counters()
    }

    /// Clients turned away because the verifier said no or could not be asked.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// All counters in Prometheus' text form.
    pub fn metrics(&self) -> String {
        let stun = self.stun_counters();
        let more = [
            ("derp_refused_total", self.refused()),
            ("stun_answered_total", stun.answered),
            ("stun_foreign_total", stun.foreign),
            ("stun_bogus_source_total", stun.bogus_source),
            ("stun_limited_total", stun.limited),
        ];
        let rows = self.counters().metrics();
        let rows = rows.iter().map(|(name, value)| (name.as_str(), *value)).chain(more);
        let mut text = rows.fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name} {value}");
            text
        });
        let ahead = self.shared.ahead.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        for (reason, packets) in ahead.iter().flat_map(|ahead| ahead.counters()) {
            let _ = writeln!(text, "stun_xdp_packets_total{{reason=\"{}\"}} {packets}", reason.label());
        }
        text
    }

    /// Whether another server of the region has told of this client.
    #[cfg(test)]
    fn knows_elsewhere(&self, key: &NodePublic) -> bool {
        self.shared.server.is_elsewhere(key)
    }

    fn stun(&self) -> MutexGuard<'_, StunServer> {
        self.shared.stun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value made of random bytes.
fn random<const N: usize, T>(make: impl FnOnce([u8; N]) -> T) -> T {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel's random source never fails once it is seeded");
    make(bytes)
}

#[cfg(test)]
mod tests;
