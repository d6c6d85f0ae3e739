//! The relay's shell: DERP over streams and HTTP, STUN over UDP, and the question who may use them.
//!
//! [`Relay`] is a cheap handle. The coordination server embeds it: [`Relay::handle_http`] answers the paths of a DERP
//! server on the server's own listener, [`Relay::run_stun`] answers STUN, [`Relay::disconnect`] ends what a removed node
//! still has open. [`daemon::run`] is the same alone. One task a connection; all state is in one `relay_core::Server`
//! behind a mutex that is never held across an await. Deliberately not here: what a session is (relay-core), frames
//! (wire), meshing.

pub mod daemon;
mod fast_start;
mod http;
mod key;
mod meta_certificate;
mod session;
mod socket;
mod stun;
mod verify;
mod verify_url;
mod websocket;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relay_core::{ConnectionId, Counters, Server, StunCounters, StunServer};
use tokio::sync::{Notify, Semaphore};
use types::{NodePrivate, NodePublic};

pub use self::fast_start::{FastStart, HttpStream};
pub use self::key::{KeyFileError, load_or_create as load_or_create_key};
pub use self::meta_certificate::meta_certificate;
pub use self::session::SessionError;
pub use self::socket::notice_dead_peer;
pub use self::verify::{Denied, Verdict, Verify};
pub use self::verify_url::VerifyUrl;
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
    verify: Box<dyn Verify>,
    logins: Semaphore,
    state: Mutex<State>,
    stun: Mutex<StunServer>,
}

struct State {
    server: Server,
    signals: HashMap<ConnectionId, Arc<Signal>>,
    refused: u64,
}

/// How a connection's task is reached.
#[derive(Default)]
struct Signal {
    /// Something waits to be written.
    wake: Notify,
    /// The connection is to end.
    close: Notify,
}

impl Relay {
    /// A relay that proves itself by `private_key` and asks `verify` about every client.
    pub fn new(config: Config, private_key: NodePrivate, verify: impl Verify) -> Self {
        let state = State { server: Server::new(config), signals: HashMap::new(), refused: 0 };
        let shared = Shared {
            public_key: private_key.public(),
            private_key,
            verify: Box::new(verify),
            logins: Semaphore::new(MAX_LOGINS),
            state: Mutex::new(state),
            stun: Mutex::new(StunServer::new(STUN_RATE, random::<8, _>(u64::from_be_bytes))),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What clients prove the server by.
    pub fn public_key(&self) -> NodePublic {
        self.shared.public_key
    }

    /// Ends all connections of a node: it was removed from the network.
    pub fn disconnect(&self, key: &NodePublic) {
        let state = self.state();
        state.server.connections_of(key).into_iter().for_each(|id| state.close(id));
    }

    /// Tells every client to come back in `reconnect_in` and to try for `try_for`.
    pub fn announce_restart(&self, reconnect_in: Duration, try_for: Duration) {
        let mut state = self.state();
        state.server.announce_restart(reconnect_in, try_for);
        state.wake();
    }

    /// What the DERP server counted.
    pub fn counters(&self) -> Counters {
        self.state().server.counters().clone()
    }

    /// What the STUN server counted.
    pub fn stun_counters(&self) -> StunCounters {
        self.stun().counters()
    }

    /// Clients turned away because the verifier said no or could not be asked.
    pub fn refused(&self) -> u64 {
        self.state().refused
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
        rows.fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name} {value}");
            text
        })
    }

    /// A panic in another connection's task leaves whole frames behind, so its mutex serves on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stun(&self) -> MutexGuard<'_, StunServer> {
        self.shared.stun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reaches every task the server has work for.
    fn wake(&mut self) {
        while let Some(id) = self.server.poll_wake() {
            if let Some(signal) = self.signals.get(&id) {
                signal.wake.notify_one();
            }
        }
    }

    /// Has a connection's task end.
    fn close(&self, id: ConnectionId) {
        if let Some(signal) = self.signals.get(&id) {
            signal.close.notify_one();
        }
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
