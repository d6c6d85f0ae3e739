//! The relay's task: sockets, sessions, STUN from the relay's port, what is left to a successor.
//!
//! Lives as long as the setting. Deliberately not here: decisions about packets (`relay-core`).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dataplane::RelayTraffic;
use relay_core::{Leg, PeerRelay, Rate, RelayConfig, Relayed, Saved, StunServer, Traffic};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use types::{DiscoPrivate, Vni};
use wire::local::{PeerRelayClient, PeerRelayReport, PeerRelaySession};
use wire::stun::looks_like_stun;

use super::address::Outside;
use super::file::{self, Left};
use super::kernel::{STUN_BURST, STUN_PER_SECOND};
use super::socket::RelaySocket;
use super::{Event, Order, Snapshot, Surroundings};
use crate::event_loop::Input;
use crate::kernel::{Command, Devices};
use crate::random;

/// STUN requests answered for one address.
const STUN_RATE: Rate = Rate { per_second: STUN_PER_SECOND as u64, burst: STUN_BURST as u64 };
/// How often we ask how we look from outside: NAT mappings live about 30 s.
const ASK: Duration = Duration::from_secs(20);
const ASK_SPREAD_MS: u16 = 6000;
/// How long a change of the sessions may be unwritten.
const SAVE: Duration = Duration::from_secs(1);

/// The relay.
pub(super) struct Server {
    port: u16,
    v4: RelaySocket,
    v6: Option<RelaySocket>,
    key: DiscoPrivate,
    relay: PeerRelay,
    stun: StunServer,
    outside: Outside,
    surroundings: Surroundings,
    ask_at: Instant,
    file: PathBuf,
    saved_version: u64,
    save_at: Option<Instant>,
    inputs: mpsc::Sender<Input>,
    kernel: mpsc::UnboundedSender<Command>,
    devices: Devices,
}

/// What a turn of the loop is about.
enum Turn {
    Packets(Vec<(Leg, Vec<u8>)>),
    Order(Order),
    Timer,
    End,
}

impl Server {
    /// Binds `port`, or for 0 the one of the last run if it is free, and adopts that run's sessions.
    ///
    /// # Errors
    /// When the port is in use.
    pub(super) fn open(
        port: u16,
        file: PathBuf,
        inputs: mpsc::Sender<Input>,
        kernel: mpsc::UnboundedSender<Command>,
    ) -> io::Result<Self> {
        let left = file::read(&file);
        let last = left.as_ref().map(|left| left.port).filter(|_| port == 0);
        let v4 = last
            .and_then(|last| RelaySocket::open(false, last).ok())
            .map_or_else(|| RelaySocket::open(false, port), Ok)?;
        let port = v4.port()?;
        let v6 = RelaySocket::open(true, port)
            .inspect_err(|error| tracing::info!(%error, port, "the peer relay does without IPv6"))
            .ok();
        let now = Instant::now();
        let (key, saved) = match left {
            // On another port the sessions are worth nothing.
            Some(left) if left.port == port => (left.key, left.saved),
            _ => (DiscoPrivate::from_random(random()), Saved::default()),
        };
        let relay = PeerRelay::adopt(RelayConfig::default(), key.clone(), saved, now);
        let (connecting, open) = relay.count();
        tracing::info!(port, adopted = open + connecting, "the peer relay listens");
        let seed = *random().first_chunk().expect("8 of 32 bytes");
        Ok(Self {
            port,
            v4,
            v6,
            key,
            saved_version: relay.version(),
            relay,
            stun: StunServer::new(STUN_RATE, u64::from_be_bytes(seed)),
            outside: Outside::default(),
            surroundings: Surroundings::default(),
            ask_at: now,
            file,
            save_at: None,
            inputs,
            kernel,
            devices: Devices::default(),
        })
    }

    /// Works until the daemon lets go of it.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        // Of an earlier run's pairs in the kernel those stay that we know.
        while self.relay.poll_change().is_some() {}
        _ = self.kernel.send(Command::Relay(self.port, self.relay.bound().collect()));
        self.save();
        loop {
            let turn = match self.next(&mut orders).await {
                Ok(turn) => turn,
                Err(error) => {
                    let failed = Input::Relay(Event::Failed(error.to_string()));
                    // A loop that has ended needs no word.
                    _ = self.inputs.send(failed).await;
                    return;
                }
            };
            let now = Instant::now();
            match turn {
                Turn::Packets(batch) => {
                    batch.into_iter().for_each(|(from, packet)| self.on_packet(from, &packet, now));
                }
                Turn::Order(order) => self.obey(order, now).await,
                Turn::Timer => self.on_timer(now).await,
                Turn::End => return,
            }
            self.settle(now);
        }
    }

    async fn next(&self, orders: &mut mpsc::Receiver<Order>) -> io::Result<Turn> {
        let deadline =
            [Some(self.ask_at), self.relay.poll_timeout(), self.save_at].into_iter().flatten().min();
        let v6 = async {
            match &self.v6 {
                Some(v6) => v6.receive().await,
                None => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            order = orders.recv() => order.map_or(Turn::End, Turn::Order),
            batch = self.v4.receive() => Turn::Packets(batch?),
            batch = v6 => Turn::Packets(batch?),
            () = sleep_until(deadline.unwrap_or(self.ask_at).into()) => Turn::Timer,
        })
    }

    fn on_packet(&mut self, from: Leg, packet: &[u8], now: Instant) {
        if looks_like_stun(packet) {
            if self.outside.handle(packet, now) {
                self.announce(now);
            } else if let Some(answer) = self.stun.answer(packet, from.remote, now) {
                self.send(from, &answer);
            }
            return;
        }
        match self.relay.handle_packet(from, packet, now, &mut random) {
            Relayed::Forward(to) => self.send(to, packet),
            Relayed::Reply(bytes) => self.send(from, &bytes),
            Relayed::Nothing => {}
        }
    }

    fn send(&self, to: Leg, packet: &[u8]) {
        match (to.remote, &self.v6) {
            (SocketAddr::V4(_), _) => self.v4.send(to, packet),
            (SocketAddr::V6(_), Some(v6)) => v6.send(to, packet),
            (SocketAddr::V6(_), None) => {}
        }
    }

    async fn obey(&mut self, order: Order, now: Instant) {
        match order {
            Order::Allocate(request) => match self.relay.allocate(request.disco, request.clients, now) {
                Ok(endpoint) => {
                    let allocated = Event::Allocated(request, Box::new(endpoint));
                    _ = self.inputs.send(Input::Relay(allocated)).await;
                }
                Err(refusal) => tracing::info!(peer = %request.peer, %refusal, "no place on the peer relay"),
            },
            Order::Surroundings(surroundings) => {
                if surroundings.stun != self.surroundings.stun {
                    self.ask_at = now;
                }
                self.surroundings = surroundings;
                self.announce(now);
            }
            Order::Report(reply) => {
                self.read_kernel(now).await;
                _ = reply.send(self.snapshot());
            }
            Order::Save(reply) => {
                self.save();
                _ = reply.send(());
            }
        }
    }

    async fn on_timer(&mut self, now: Instant) {
        if self.ask_at <= now {
            let spread = *random().first_chunk().expect("2 of 32 bytes");
            self.ask_at =
                now + ASK + Duration::from_millis((u16::from_be_bytes(spread) % ASK_SPREAD_MS).into());
            self.ask_outside(now).await;
            self.announce(now);
        }
        if self.relay.poll_timeout().is_some_and(|at| at <= now) {
            // Sessions that the kernel forwards are silent here.
            self.read_kernel(now).await;
            self.relay.handle_timeout(now);
        }
        if self.save_at.is_some_and(|at| at <= now) {
            self.save();
        }
    }

    /// Takes over what the kernel has forwarded since the last time.
    async fn read_kernel(&mut self, now: Instant) {
        let (reply, read) = oneshot::channel();
        _ = self.kernel.send(Command::RelayUsage(reply));
        let Ok(Ok(usage)) = tokio::time::timeout(SAVE, read).await else { return };
        self.devices = usage.devices;
        for session in usage.sessions {
            let Some(vni) = Vni::new(session.vni) else { continue };
            let [one, two] = session.traffic;
            let client =
                |used: RelayTraffic| (Traffic { packets: used.packets, bytes: used.bytes }, used.silent);
            self.relay.note_kernel(vni, [client(one), client(two)], now);
        }
    }

    /// Asks the STUN servers how the relay's port looks from outside.
    async fn ask_outside(&mut self, now: Instant) {
        for (host, port) in self.surroundings.stun.clone() {
            // A name that is not found now is asked for again the next time.
            let found = tokio::time::timeout(SAVE, tokio::net::lookup_host((host.as_str(), port))).await;
            for server in found.ok().and_then(Result::ok).into_iter().flatten() {
                let tx_id = *random().first_chunk().expect("12 of 32 bytes");
                let request = self.outside.ask(server, tx_id, now);
                self.send(Leg { remote: server, local: None }, &request);
            }
        }
    }

    fn announce(&mut self, now: Instant) {
        let addresses = self.outside.announce(&self.surroundings, self.port, now);
        if addresses != self.relay.addresses() {
            tracing::info!(?addresses, "the peer relay's addresses");
            self.relay.set_addresses(addresses);
        }
    }

    /// After every turn: the kernel follows, and what changed will be written.
    fn settle(&mut self, now: Instant) {
        while let Some(change) = self.relay.poll_change() {
            // The writer ends after us.
            _ = self.kernel.send(Command::RelayChange(change));
        }
        if self.relay.version() != self.saved_version {
            self.save_at.get_or_insert(now + SAVE);
        }
    }

    fn save(&mut self) {
        (self.save_at, self.saved_version) = (None, self.relay.version());
        file::write(&self.file, Left { key: self.key.clone(), port: self.port, saved: self.relay.save() });
    }

    /// Who forwards, for people.
    fn forwarding(&self) -> String {
        match &self.devices {
            Devices { all, xdp } if *all > 0 && all == xdp => "xdp".into(),
            Devices { xdp: 0, .. } => "userspace".into(),
            Devices { all, xdp } => format!("xdp on {xdp} of {all} devices, userspace on the others"),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let (connecting, open) = self.relay.count();
        let client =
            |(disco, endpoint, sent): (types::DiscoPublic, Option<SocketAddr>, Traffic)| PeerRelayClient {
                endpoint: endpoint.map(|addr| addr.to_string()).unwrap_or_default(),
                short_disco: short(&disco),
                packets_tx: sent.packets,
                bytes_tx: sent.bytes,
            };
        let sessions = self.relay.report().into_iter().map(|session| {
            let [one, two] = session.clients;
            PeerRelaySession { vni: session.vni.get(), client1: client(one), client2: client(two) }
        });
        let report = PeerRelayReport {
            port: self.port,
            addresses: self.relay.addresses().to_vec(),
            forwarding: self.forwarding(),
            connecting,
            open,
            sessions: sessions.collect(),
        };
        Snapshot { report, metrics: self.relay.counters().metrics(connecting, open) }
    }
}

/// Tailscale's short form of a DISCO key in such lists (`types/key/disco.go`): `d:` and eight bytes.
fn short(disco: &types::DiscoPublic) -> String {
    let digits: String = disco.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("d:{digits}")
}
