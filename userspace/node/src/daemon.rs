//! The daemon: what lives from start to stop, and the carrying out of what `node-core` decides.
//!
//! Made by `start`, driven by `event_loop`: after every input [`Daemon::drain`] empties the core's queues. The other inputs
//! have files of their own (`login`, `plane`, `requests`). Deliberately not here: decisions, and anything that waits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use dataplane::Steering;
use jiff::Timestamp;
use node_core::{Carry, Event, FromDerp, Node, PingId, Slot, Transmit};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use transport::tls::Trust;
use types::{DiscoPublic, RegionId};
use wire::local::{Notify, PingResult};

use crate::chores::{Chore, Chores};
use crate::config_file::ConfigFile;
use crate::event_loop::Input;
use crate::health::{Health, code};
use crate::hostinfo::Machine;
use crate::kernel::{Command, Plane};
use crate::local_api::{Refusal, Reply};
use crate::login::Login;
use crate::metrics::Traffic;
use crate::netcheck::Netcheck;
use crate::portmap::Portmap;
use crate::sockets::{Datagram, FromKernel, Loopback, RawSender, tunnel};
use crate::state::State;
use crate::store::{Store, write_atomically};
use crate::systemd::Systemd;
use crate::underlay::Snapshot;
use crate::{Config, Error, derp, local_api, peer_relay};

/// Datagrams held back while the programs are loaded: some probes and pings.
const HELD: usize = 256;

/// The reply to a request that takes the data plane away.
pub(crate) type Waiting = Box<dyn FnOnce(Result<(), Refusal>) + Send>;

/// A task that ends with its owner.
pub(crate) struct Task<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The whole daemon but its sources of input.
pub(crate) struct Daemon {
    pub(crate) config: Config,
    pub(crate) config_file: Option<ConfigFile>,
    pub(crate) machine: Machine,
    pub(crate) store: Store,
    pub(crate) state: State,
    pub(crate) node: Node,
    pub(crate) login: Login,
    pub(crate) trust: Trust,
    /// Where tasks put what they found.
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) derp_context: Arc<derp::Context>,
    pub(crate) regions: BTreeMap<RegionId, derp::Connection>,
    pub(crate) derp_dropped: Arc<AtomicU64>,
    pub(crate) raw: RawSender,
    pub(crate) loopback: Arc<Loopback>,
    pub(crate) netlink: netlink::Handle,
    pub(crate) underlay: Snapshot,
    pub(crate) kernel: mpsc::UnboundedSender<Command>,
    /// What is in the kernel; `None` while we are down.
    pub(crate) plane: Option<Plane>,
    /// Reads which pings the kernel answered.
    pub(crate) answered: Option<Task<std::io::Result<()>>>,
    /// How many peers' pings the kernel answers.
    pub(crate) vouched: usize,
    /// How packets are steered on the underlay's devices, by name.
    pub(crate) steered: Vec<(String, Steering)>,
    /// While this node is a peer relay.
    pub(crate) relay: Option<peer_relay::Handle>,
    /// Answers TSMP pings while we are up.
    pub(crate) tsmp: Option<Task<std::io::Result<()>>>,
    pub(crate) traffic: Traffic,
    pub(crate) health: Health,
    pub(crate) bus: broadcast::Sender<Arc<Notify>>,
    /// The state that watchers know.
    pub(crate) announced: wire::local::State,
    pub(crate) pings: BTreeMap<PingId, (PingResult, Reply<PingResult>)>,
    /// What waits for `steer`: an answer to it would be lost. `None` once the programs are there.
    pub(crate) held: Option<Vec<Transmit>>,
    /// Requests that are answered when the data plane is gone.
    pub(crate) waiting_for_down: Vec<Waiting>,
    pub(crate) chores: Chores,
    pub(crate) portmap: Portmap,
    pub(crate) systemd: Systemd,
    pub(crate) netcheck: Netcheck,
}

impl Daemon {
    /// The UDP port of WireGuard, DISCO and STUN.
    pub(crate) fn port(&self) -> u16 {
        self.state.port.unwrap_or(self.config.port)
    }

    /// When something is due next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.node.poll_timeout().map(|(at, _)| at), self.chores.next()].into_iter().flatten().min()
    }

    /// Carries out everything the core wants, and tells watchers when the state changed.
    pub(crate) fn drain(&mut self, now: Instant) {
        while let Some(event) = self.node.poll_event() {
            self.carry_out(event, now);
        }
        while let Some(transmit) = self.node.poll_transmit() {
            self.transmit(transmit);
        }
        self.announce(now);
    }

    /// Sends bytes that the core wants sent.
    pub(crate) fn transmit(&mut self, transmit: Transmit) {
        match (transmit, &mut self.held) {
            (transmit @ Transmit::Udp { .. }, Some(held)) => {
                held.extend((held.len() < HELD).then_some(transmit));
            }
            (Transmit::Udp { path, bytes }, None) => {
                if let Err(error) = self.raw.send(path, &bytes) {
                    tracing::debug!(%path, %error, "DISCO or STUN was not sent");
                }
            }
            (Transmit::Derp { region, to, bytes }, _) => {
                if let Some(connection) = self.regions.get(&region) {
                    connection.send(to, bytes);
                }
            }
        }
    }

    fn carry_out(&mut self, event: Event, now: Instant) {
        match event {
            Event::DesiredChanged => self.apply_desired(),
            Event::TellDiscoKey(to) => self.tell_disco_key(to),
            Event::PinsChanged => self.order(Command::Pins(self.node.pinned_routes())),
            Event::SetEndpoint { peer, endpoint } => self.order(Command::Endpoint(peer, endpoint)),
            Event::DiscoPeersChanged => {
                let peers = self.node.disco_peers();
                self.vouched = peers.iter().filter(|peer| peer.vouched).count();
                self.order(Command::Disco(peers));
            }
            Event::DetoursChanged => {
                self.order(Command::Detours(self.node.desired().relayed.iter().copied().collect()));
            }
            Event::ObserveKernel => self.order(Command::Observe),
            Event::EndpointsChanged(_) | Event::NetInfoChanged => self.report_to_control(),
            Event::NetcheckEnded => self.netcheck_ended(),
            Event::ConnectDerp { region, home } => self.connect_region(region, home),
            Event::CloseDerp(region) => drop(self.regions.remove(&region)),
            Event::Resolve(host) => self.resolve(host),
            Event::PathChanged { peer, via } => tracing::info!(%peer, ?via, "the path to a peer changed"),
            Event::NetmapChanged => {
                self.follow_netmap(now);
                self.follow_relay();
            }
            Event::HealthChanged => {
                self.suspect_firewall(now);
                self.tell_health();
            }
            Event::BadMap(what) => {
                if self.health.set(code::MAP, format!("A part of the network map cannot be used: {what}")) {
                    self.tell_health();
                }
            }
            Event::KeyExpired => self.key_expired(),
            Event::AllocateRelay { peer, disco, clients, generation } => {
                self.allocate(peer_relay::Request { peer, disco, clients, generation });
            }
            Event::PingResult { id, result } => self.finish_ping(id, result),
        }
    }

    fn connect_region(&mut self, id: RegionId, home: bool) {
        if home {
            self.regions.values().for_each(|connection| connection.set_home(false));
        }
        if let Some(connection) = self.regions.get(&id) {
            connection.set_home(home);
            return;
        }
        let Some(region) = self.node.derp_map().regions.get(&id).cloned().flatten() else { return };
        let connection = derp::Connection::open(id, region, home, self.derp_context.clone());
        self.regions.insert(id, connection);
    }

    fn resolve(&self, host: String) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await;
            let addresses = found.map(|found| found.map(|addr| addr.ip()).collect()).unwrap_or_default();
            // A loop that has ended needs no answer.
            _ = inputs.send(Input::Resolved(host, addresses)).await;
        });
    }

    /// DISCO and STUN came in.
    pub(crate) fn on_datagrams(&mut self, batch: &[Datagram], now: Instant) {
        let mut relayed = Vec::new();
        for datagram in batch {
            let bytes = &datagram.payload;
            let slot = self.node.handle_datagram(datagram.path, bytes, now);
            let packet = slot.zip(bytes.get(wire::geneve::HEADER_LEN..));
            relayed.extend(packet.map(|(slot, packet)| (slot, packet.to_vec())));
        }
        self.deliver(&relayed);
    }

    /// Hands packets to WireGuard as if their peers had sent them here.
    fn deliver(&self, packets: &[(Slot, Vec<u8>)]) {
        if let Err(error) = self.loopback.deliver(packets, self.port()) {
            tracing::debug!(%error, "relayed packets were not delivered to WireGuard");
        }
    }

    /// The kernel wants packets carried over DERP.
    pub(crate) fn on_loopback(&mut self, batch: Vec<FromKernel>, now: Instant) {
        for packet in batch {
            let bytes = packet.payload;
            match self.node.handle_loopback(packet.slot, &bytes, now) {
                Some(Carry::Derp { region, to }) => self.transmit(Transmit::Derp { region, to, bytes }),
                Some(Carry::Udp(path)) => self.transmit(Transmit::Udp { path, bytes }),
                None => {}
            }
        }
    }

    /// A DERP region has something to say.
    pub(crate) fn on_derp(&mut self, region: RegionId, event: derp::Event, now: Instant) {
        // A region that was closed may have left something in the queue.
        if !self.regions.contains_key(&region) {
            return;
        }
        match event {
            derp::Event::State(state) => self.node.handle_derp_state(region, state, now),
            derp::Event::Packets(packets) => {
                let mut delivered = Vec::with_capacity(packets.len());
                for (from, bytes) in packets {
                    if let FromDerp::Deliver(slot) = self.node.handle_derp(region, from, &bytes, now) {
                        delivered.push((slot, bytes));
                    }
                }
                self.deliver(&delivered);
            }
        }
    }

    /// A peer told its DISCO key inside the tunnel.
    pub(crate) fn on_disco_key(&mut self, from: IpAddr, key: DiscoPublic, now: Instant) {
        self.node.handle_disco_key(from, key, now);
    }

    fn tell_disco_key(&self, to: IpAddr) {
        let (device, key) = (self.config.device.clone(), self.state.disco_key.public());
        tokio::spawn(async move {
            if let Err(error) = tunnel::tell_disco_key(&device, to, key).await {
                tracing::debug!(%to, %error, "the DISCO key was not told");
            }
        });
    }

    /// A name was looked up.
    pub(crate) fn on_resolved(&mut self, host: &str, addresses: &[IpAddr], now: Instant) {
        self.node.handle_resolved(host, addresses, now);
    }

    /// A deadline passed.
    pub(crate) fn on_timer(&mut self, now: Instant) {
        self.node.handle_timeout(now);
        while let Some(chore) = self.chores.pop(now) {
            match chore {
                Chore::SaveNetmap => self.save_netmap(),
                Chore::ReadUnderlay => self.read_underlay(),
                Chore::Reapply => self.apply_desired(),
                Chore::CheckFirewall => {
                    self.order(Command::CheckFirewall);
                    if self.plane.is_some() {
                        self.chores.ask(Chore::CheckFirewall, now);
                    }
                }
                Chore::LookAtFirewall => self.look_at_firewall(),
                Chore::LogoutUnheard => self.logged_out(now),
            }
        }
    }

    /// Stores the state; a failure is a health warning, because what runs goes on running.
    pub(crate) fn save(&mut self) {
        let changed = match self.store.save(&self.state) {
            Ok(()) => self.health.clear(code::STATE),
            Err(error) => self.health.set(code::STATE, error.to_string()),
        };
        if changed {
            self.tell_health();
        }
    }

    /// Writes the netmap beside the state, in the background.
    fn save_netmap(&self) {
        let Some(map) = self.node.cached_map() else { return };
        let file = self.store.netmap_file();
        tokio::task::spawn_blocking(move || {
            let written = serde_json::to_vec(&map).map_err(std::io::Error::from);
            if let Err(error) = written.and_then(|bytes| write_atomically(&file, &bytes)) {
                tracing::warn!(%error, "the netmap cannot be cached; a restart will wait for control");
            }
        });
    }

    /// Tells every watcher of the bus.
    pub(crate) fn tell(&self, notify: Notify) {
        // Nobody watching is fine.
        _ = self.bus.send(Arc::new(notify));
    }

    pub(crate) fn tell_health(&mut self) {
        let health = self.health.state(self.node.health(), Timestamp::now());
        self.tell(Notify { health: Some(health), ..Notify::default() });
    }

    /// Ends the daemon. The data plane stays.
    ///
    /// # Errors
    /// None today; the loop returns what it returns.
    pub(crate) async fn stop(&mut self, why: &str) -> Result<(), Error> {
        tracing::info!(why, version = local_api::VERSION, "the node stops; its data plane stays");
        self.systemd.stopping();
        if self.chores.cancel(Chore::SaveNetmap)
            && let Some(map) = self.node.cached_map()
            && let Ok(bytes) = serde_json::to_vec(&map)
        {
            // Losing the cache costs a second at the next start.
            _ = write_atomically(&self.store.netmap_file(), &bytes);
        }
        _ = std::fs::remove_file(&self.config.socket);
        self.portmap.release().await;
        Ok(())
    }
}
