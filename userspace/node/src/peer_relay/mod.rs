//! The peer relay of this node, when the user gave it a port: pairs of peers meet on it (tailscale `feature/relayserver`).
//!
//! A task of its own has the sockets and the sessions (`server`), so that forwarding in userspace, where the kernel cannot
//! do it, does not hold up the event loop. Here is the daemon's side: when there is a relay, who asks it for a place, what it
//! tells people. Deliberately not here: sessions (`relay-core`), who may ask (`node-core`).

mod address;
mod file;
pub(crate) mod kernel;
mod server;
mod socket;

use std::net::SocketAddr;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use types::{DiscoPublic, NodePublic};
use wire::disco::RelayEndpoint;
use wire::local::{PeerRelayReport, Prefs};

use crate::daemon::{Daemon, Task};
use crate::health::code;
use crate::kernel::Command;

pub(crate) use address::stun_servers;

/// Orders that wait for the relay; a flood of requests is dropped beyond.
const ORDERS: usize = 256;

/// What the daemon asks of the relay.
pub(crate) enum Order {
    /// A place for two clients, asked for by one of them.
    Allocate(Request),
    /// What is known of our own side now.
    Surroundings(Surroundings),
    /// What to show people.
    Report(oneshot::Sender<Snapshot>),
    /// Write down what a successor needs, now.
    Save(oneshot::Sender<()>),
}

/// Somebody asks for a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) peer: NodePublic,
    pub(crate) disco: DiscoPublic,
    pub(crate) clients: [DiscoPublic; 2],
    pub(crate) generation: u32,
}

/// Where the relay may be reached, as far as others know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// What the user says.
    pub(crate) fixed: Vec<SocketAddr>,
    /// Our own addresses.
    pub(crate) local: Vec<std::net::IpAddr>,
    /// Whom to ask how we look from outside: names or addresses, and ports.
    pub(crate) stun: Vec<(String, u16)>,
}

/// What the relay tells the daemon.
#[derive(Debug)]
pub(crate) enum Event {
    /// The answer to a request.
    Allocated(Request, Box<RelayEndpoint>),
    /// It cannot go on: why.
    Failed(String),
}

/// The relay at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) report: PeerRelayReport,
    pub(crate) metrics: Vec<(String, u64)>,
}

/// The running relay.
pub(crate) struct Handle {
    /// The port asked for; 0 is any.
    asked: u16,
    orders: mpsc::Sender<Order>,
    surroundings: Surroundings,
    _task: Task<()>,
}

impl Handle {
    /// Asks for a snapshot; none when the relay has just ended.
    pub(crate) fn report(&self) -> impl Future<Output = Option<Snapshot>> + use<> {
        let (reply, snapshot) = oneshot::channel();
        let asked = self.orders.try_send(Order::Report(reply)).is_ok();
        async move { if asked { snapshot.await.ok() } else { None } }
    }
}

impl Daemon {
    /// Starts, stops or corrects the relay, as settings and control say.
    pub(crate) fn follow_relay(&mut self) {
        let prefs = &self.state.prefs;
        let runs = prefs.want_running && !prefs.logged_out && !self.node.is_relay_forbidden();
        let port = prefs.relay_server_port.filter(|_| runs);
        if self.relay.as_ref().map(|relay| relay.asked) != port {
            self.relay = None;
            let file = self.store.relay_file();
            match port {
                Some(port) => self.start_relay(port, file),
                // Bound pairs lose their relay by the user's own word.
                None => {
                    self.order(Command::Relay(0, Vec::new()));
                    if prefs.relay_server_port.is_none() {
                        file::remove(&file);
                    }
                    if self.health.clear(code::PEER_RELAY) {
                        self.tell_health();
                    }
                }
            }
        }
        self.tell_relay();
    }

    fn start_relay(&mut self, port: u16, file: std::path::PathBuf) {
        let (orders, taken) = mpsc::channel(ORDERS);
        match server::Server::open(port, file, self.inputs.clone(), self.kernel.clone()) {
            Ok(server) => {
                let task = Task(tokio::spawn(server.run(taken)));
                let surroundings = Surroundings::default();
                self.relay = Some(Handle { asked: port, orders, surroundings, _task: task });
                self.health.clear(code::PEER_RELAY);
            }
            Err(error) => {
                let text = format!("The peer relay cannot listen on UDP port {port}: {error}");
                self.health.set(code::PEER_RELAY, text);
            }
        }
        self.tell_health();
    }

    /// Tells the relay how it is reached, when that changed.
    pub(crate) fn tell_relay(&mut self) {
        let surroundings = Surroundings {
            fixed: self.state.prefs.relay_server_static_endpoints.clone(),
            local: self.underlay.underlay.addresses.iter().map(ipnet::IpNet::addr).collect(),
            stun: stun_servers(self.node.derp_map(), self.node.home()),
        };
        let Some(relay) = self.relay.as_mut().filter(|relay| relay.surroundings != surroundings) else {
            return;
        };
        if relay.orders.try_send(Order::Surroundings(surroundings.clone())).is_ok() {
            relay.surroundings = surroundings;
        }
    }

    /// A peer that may do so asks for a place. Without a relay, or when it is swamped, there is no answer.
    pub(crate) fn allocate(&self, request: Request) {
        if let Some(relay) = &self.relay
            && relay.orders.try_send(Order::Allocate(request)).is_err()
        {
            tracing::debug!(peer = %request.peer, "the peer relay is swamped with requests");
        }
    }

    /// The relay has something to say.
    pub(crate) fn on_relay(&mut self, event: Event, now: Instant) {
        match event {
            Event::Allocated(Request { peer, disco, generation, .. }, endpoint) => {
                self.node.answer_allocation(peer, disco, generation, *endpoint, now);
            }
            Event::Failed(why) => {
                self.relay = None;
                self.order(Command::Relay(0, Vec::new()));
                self.health.set(code::PEER_RELAY, format!("The peer relay has stopped: {why}"));
                self.tell_health();
            }
        }
    }

    /// Has the relay write down what its successor needs.
    pub(crate) async fn save_relay(&self) {
        let Some(relay) = &self.relay else { return };
        let (reply, saved) = oneshot::channel();
        if relay.orders.send(Order::Save(reply)).await.is_ok() {
            // It may have failed just now.
            _ = saved.await;
        }
    }
}

/// What of these settings a relay cannot follow.
///
/// # Errors
/// In words.
pub(crate) fn check(prefs: &Prefs) -> Result<(), String> {
    let wrong =
        |addr: &&SocketAddr| addr.port() == 0 || addr.ip().is_unspecified() || addr.ip().is_multicast();
    match prefs.relay_server_static_endpoints.iter().find(wrong) {
        Some(addr) => Err(format!("{addr} is no address at which a relay can be reached")),
        None => Ok(()),
    }
}
