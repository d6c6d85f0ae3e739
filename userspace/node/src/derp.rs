//! DERP connections: one task a region that connects, carries packets both ways, and connects again.
//!
//! A connection lives from `ConnectDerp` to `CloseDerp`. Packets wait in a bounded queue while it is made; the oldest is
//! dropped, for WireGuard and DISCO send again by themselves. What comes in goes to the event loop, which a slow loop may slow
//! down in turn. Deliberately not here: which regions to connect (`node-core`), the protocol (`transport`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use node_core::DerpState;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use transport::derp::{self, DerpError, Receiver, Sender, Server};
use transport::dial::Dialer;
use transport::tls::Trust;
use types::{NodePrivate, NodePublic, RegionId};
use wire::control::DerpRegion;

use crate::event_loop::Input;
use crate::queue;
use crate::sockets::BYPASS_MARK;

/// Packets that wait for a connection. WireGuard sends a handshake every 5 s and DISCO a few pings a peer.
const WAITING: usize = 128;
/// Packets handed on at once.
const BATCH: usize = 64;
/// Waits between attempts: doubled from the first to the last, as Tailscale's clients do.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// What the server's statistics call us.
const APP_NAME: &str = "underpass";

/// What the event loop hears of a region.
#[derive(Debug)]
pub(crate) enum Event {
    /// Packets that came together, WireGuard's or DISCO's, each with whose it is.
    Packets(Vec<(NodePublic, Vec<u8>)>),
    /// The connection came, lives or went.
    State(DerpState),
}

/// What every connection needs.
pub(crate) struct Context {
    /// Whom we log in as.
    pub(crate) key: NodePrivate,
    /// Whose certificates we believe.
    pub(crate) trust: Trust,
    /// Where events go.
    pub(crate) inputs: mpsc::Sender<Input>,
    /// Packets that a full queue dropped, over all regions.
    pub(crate) dropped: Arc<AtomicU64>,
}

impl Context {
    /// The same for another node key.
    pub(crate) fn with_key(&self, key: NodePrivate) -> Arc<Self> {
        let Self { trust, inputs, dropped, .. } = self;
        Arc::new(Self { key, trust: trust.clone(), inputs: inputs.clone(), dropped: dropped.clone() })
    }
}

/// A region we are, or are about to be, connected to; dropping it disconnects.
pub(crate) struct Connection {
    packets: queue::Sender<(NodePublic, Vec<u8>)>,
    home: watch::Sender<bool>,
    context: Arc<Context>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Begins to connect to `region` and goes on trying.
    pub(crate) fn open(id: RegionId, region: DerpRegion, home: bool, context: Arc<Context>) -> Self {
        let (packets, waiting) = queue::bounded(WAITING);
        let (home, is_home) = watch::channel(home);
        let keeper = Keeper { id, region, waiting, is_home, context: context.clone() };
        Self { packets, home, context, task: tokio::spawn(keeper.keep()) }
    }

    /// Sends a packet to a peer, sooner or later.
    pub(crate) fn send(&self, to: NodePublic, bytes: Vec<u8>) {
        if self.packets.push((to, bytes)).is_some() {
            self.context.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells the region whether peers look for us there.
    pub(crate) fn set_home(&self, home: bool) {
        self.home.send_replace(home);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task's side.
struct Keeper {
    id: RegionId,
    region: DerpRegion,
    waiting: queue::Receiver<(NodePublic, Vec<u8>)>,
    is_home: watch::Receiver<bool>,
    context: Arc<Context>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            let (reason, asked) = match self.connect().await {
                Ok((sender, receiver)) => self.carry(sender, receiver, &mut wait).await,
                Err(error) => (error.to_string(), None),
            };
            tracing::info!(region = %self.id, %reason, "DERP is disconnected");
            if self.tell(Event::State(DerpState::Disconnected { reason })).await.is_none() {
                return;
            }
            sleep(asked.unwrap_or(wait)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// The first server of the region that lets us in.
    async fn connect(&self) -> Result<(Sender, Receiver), DerpError> {
        let dialer = Dialer { mark: Some(BYPASS_MARK), ..Dialer::default() };
        let no_server = || DerpError::Server {
            server: format!("region {}", self.id),
            why: "the DERP map has no server in it".into(),
        };
        let mut failure = None;
        for node in self.region.nodes.iter().filter(|node| !node.stun_only) {
            let Context { trust, key, .. } = &*self.context;
            let connected =
                async { derp::connect(&Server::from_node(node)?, &dialer, trust, key, APP_NAME).await };
            match connected.await {
                Ok(halves) => return Ok(halves),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(no_server))
    }

    /// Carries packets until the connection ends: why, and how long the server wants us to wait.
    async fn carry(
        &mut self,
        sender: Sender,
        mut receiver: Receiver,
        wait: &mut Duration,
    ) -> (String, Option<Duration>) {
        let home = *self.is_home.borrow_and_update();
        if home {
            _ = sender.note_preferred(true);
        }
        let mut read_already = None;
        loop {
            let event = tokio::select! {
                event = next(&mut read_already, &mut receiver) => event,
                first = self.waiting.pop() => {
                    self.send(&sender, first);
                    continue;
                }
                Ok(()) = self.is_home.changed() => {
                    let home = *self.is_home.borrow_and_update();
                    _ = sender.note_preferred(home);
                    continue;
                }
            };
            let event = match event {
                Ok(derp::Event::LoggedIn(_)) => {
                    *wait = FIRST_WAIT;
                    Event::State(DerpState::Connected)
                }
                Ok(derp::Event::Packet { source, packet }) => {
                    Event::Packets(gather((source, packet), &mut receiver, &mut read_already))
                }
                Ok(derp::Event::PeerGone { peer, .. }) => Event::State(DerpState::PeerGone(peer)),
                Ok(derp::Event::Pong(_)) => Event::State(DerpState::Alive),
                Ok(derp::Event::Health(problem)) => {
                    tracing::info!(region = %self.id, ?problem, "DERP health");
                    Event::State(DerpState::Alive)
                }
                Ok(derp::Event::Restarting { reconnect_in, .. }) => {
                    return ("the server restarts".into(), Some(reconnect_in));
                }
                Err(error) => return (error.to_string(), None),
            };
            if self.tell(event).await.is_none() {
                return ("the node stops".into(), None);
            }
        }
    }

    /// Sends what waits, in one piece.
    fn send(&mut self, sender: &Sender, first: (NodePublic, Vec<u8>)) {
        let mut packets = vec![first];
        while packets.len() < BATCH
            && let Some(packet) = self.waiting.try_pop()
        {
            packets.push(packet);
        }
        if sender.send_all(&packets).is_err() {
            self.context.dropped.fetch_add(packets.len() as u64, Ordering::Relaxed);
        }
    }

    async fn tell(&self, event: Event) -> Option<()> {
        self.context.inputs.send(Input::Derp(self.id, event)).await.ok()
    }
}

/// The event that was read beyond a batch, else the next one.
async fn next(
    read_already: &mut Option<derp::Event>,
    receiver: &mut Receiver,
) -> Result<derp::Event, DerpError> {
    match read_already.take() {
        Some(event) => Ok(event),
        None => receiver.recv().await,
    }
}

/// The packets that came in one read, so that the event loop and the kernel take them at once.
fn gather(
    first: (NodePublic, Vec<u8>),
    receiver: &mut Receiver,
    read_already: &mut Option<derp::Event>,
) -> Vec<(NodePublic, Vec<u8>)> {
    let mut packets = vec![first];
    // An error comes again with the next wait.
    while packets.len() < BATCH
        && let Ok(Some(event)) = receiver.try_recv()
    {
        match event {
            derp::Event::Packet { source, packet } => packets.push((source, packet)),
            other => {
                *read_already = Some(other);
                break;
            }
        }
    }
    packets
}
