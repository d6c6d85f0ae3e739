//! The one task that owns the network: every request comes to it as an [`Input`], one after another.
//!
//! A change is decided on the state in memory, committed to the store, applied, and only then acknowledged; so a crash
//! loses nothing that anybody was told of, and two uses of one key can never both be the first. Map streams get their
//! deltas from here, gathered for a moment so that a burst is one message. Deliberately not here: every decision
//! (`control_core`), and HTTP.

mod answer;
mod verb;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use control_core::Tell;
use control_core::liveness::SessionId;
use control_core::network::{MapRefusal, Network, Now};
use control_core::pending::{Pending, Pendings};
use control_core::policy::Policy;
use control_core::record::Record;
use control_core::register::{self, Attempt, Decision};
use jiff::Timestamp;
use relay::Relay;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as TokioInstant, sleep_until};
use types::{MachinePublic, NodePublic};
use wire::control::{DerpMap, MapRequest, MapResponse, RegisterRequest, RegisterResponse};

use crate::admin::ServerInfo;
use crate::store::{Store, StoreError};

pub(crate) use verb::{Answer, Refused, Verb};

/// Changes are gathered for so long before the streams are told.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A stream that so many messages wait for has stopped reading; it ends, and its client connects anew.
const STREAM_QUEUE: usize = 64;
/// A machine asks once and asks again after a broken connection; more is somebody filling up memory.
const WAITING_A_KEY: usize = 4;
/// Requests waiting for the coordinator; more wait in their own tasks.
const INPUT_QUEUE: usize = 1024;

/// Everything the coordinator reacts to.
pub(crate) enum Input {
    Register {
        machine: MachinePublic,
        request: Box<RegisterRequest>,
        reply: oneshot::Sender<RegisterResponse>,
    },
    Map {
        machine: MachinePublic,
        request: Box<MapRequest>,
        reply: oneshot::Sender<Result<MapReply, MapError>>,
    },
    StreamEnded(SessionId),
    Admits {
        key: NodePublic,
        reply: oneshot::Sender<bool>,
    },
    Policy(Box<Policy>),
    /// The relays are others.
    DerpMap(Box<DerpMap>),
    Admin {
        verb: Verb,
        reply: oneshot::Sender<Result<Answer, Refused>>,
    },
    Stop,
}

/// What a map request gets.
pub(crate) enum MapReply {
    /// What it reported is kept.
    Noted,
    /// The map, once.
    Once(Box<MapResponse>),
    /// The map, and deltas until the receiver ends.
    Stream { session: SessionId, first: Box<MapResponse>, deltas: mpsc::Receiver<Box<MapResponse>> },
}

/// Why a map request fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    #[error(transparent)]
    Refused(#[from] MapRefusal),
    #[error("the server cannot keep its state: ask its administrator")]
    Store,
}

/// The coordinator is gone: the server is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("the server is shutting down")]
pub(crate) struct Gone;

/// How everybody else reaches the coordinator.
#[derive(Clone)]
pub(crate) struct Handle {
    inputs: mpsc::Sender<Input>,
}

impl Handle {
    /// Sends an input that has an answer and waits for it.
    pub(crate) async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(input(reply)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// Sends an input that has none.
    pub(crate) async fn tell(&self, input: Input) {
        // When the coordinator is gone there is nobody left to care.
        let _ = self.inputs.send(input).await;
    }
}

/// A followed-up registration that waits for an administrator.
struct Waiting {
    machine: MachinePublic,
    request: Box<RegisterRequest>,
    reply: oneshot::Sender<RegisterResponse>,
}

/// The task's state.
pub(crate) struct Coordinator<S> {
    network: Network,
    store: S,
    relay: Relay,
    info: ServerInfo,
    inputs: mpsc::Receiver<Input>,
    streams: HashMap<SessionId, mpsc::Sender<Box<MapResponse>>>,
    pendings: Pendings,
    waiting: BTreeMap<String, Vec<Waiting>>,
    /// When the streams are to be told.
    flush_at: Option<Instant>,
}

/// The way in for everybody, and the end of it for the coordinator.
pub(crate) fn channel() -> (Handle, mpsc::Receiver<Input>) {
    let (inputs, receiver) = mpsc::channel(INPUT_QUEUE);
    (Handle { inputs }, receiver)
}

impl<S: Store> Coordinator<S> {
    pub(crate) fn new(
        network: Network,
        store: S,
        relay: Relay,
        info: ServerInfo,
        inputs: mpsc::Receiver<Input>,
    ) -> Self {
        let (streams, pendings, waiting) = Default::default();
        Self { network, store, relay, info, inputs, streams, pendings, waiting, flush_at: None }
    }

    /// Serves until it is told to stop.
    pub(crate) async fn run(mut self) {
        self.commit_now(Network::handle_timeout).await;
        loop {
            let wake = self.next_wake();
            let at =
                TokioInstant::from_std(wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600)));
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(Input::Stop) | None => return,
                    Some(input) => self.handle(input).await,
                },
                () = sleep_until(at), if wake.is_some() => self.handle_time().await,
            }
            if self.network.has_news() && self.flush_at.is_none() {
                self.flush_at = Some(Instant::now() + DEBOUNCE);
            }
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let (instant, wall) = self.network.poll_timeout();
        let until =
            |at: Timestamp| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
        // Wall time may be moved, so an expiry is looked at once an hour at least.
        let wall = wall.map(|at| Instant::now() + until(at).min(Duration::from_secs(3600)));
        [instant, wall, self.flush_at].into_iter().flatten().min()
    }

    async fn handle_time(&mut self) {
        self.commit_now(Network::handle_timeout).await;
        self.pendings.expire(now().wall);
        let over: Vec<_> =
            self.waiting.keys().filter(|key| self.pendings.get(key).is_none()).cloned().collect();
        for key in over {
            self.answer_waiting(&key).await;
        }
        if self.flush_at.is_some_and(|at| at <= Instant::now()) {
            self.flush_at = None;
            self.flush();
        }
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Register { machine, request, reply } => self.register(machine, request, reply).await,
            Input::Map { machine, request, reply } => {
                let answer = self.map(machine, &request).await;
                if let Err(Ok(MapReply::Stream { session, .. })) = reply.send(answer) {
                    self.end_stream(session);
                }
            }
            Input::StreamEnded(session) => self.end_stream(session),
            Input::Admits { key, reply } => drop(reply.send(self.network.admits(&key))),
            Input::Policy(policy) => self.commit_now(|network, _| network.set_policy(*policy)).await,
            Input::DerpMap(map) => {
                let set = |network: &mut Network, _: Now| {
                    network.set_derp_map(*map);
                    Vec::new()
                };
                self.commit_now(set).await;
            }
            Input::Admin { verb, reply } => {
                let answer = self.admin(verb).await;
                drop(reply.send(answer));
            }
            Input::Stop => {}
        }
    }

    fn end_stream(&mut self, session: SessionId) {
        self.streams.remove(&session);
        self.network.disconnect(session, now());
    }

    async fn register(
        &mut self,
        machine: MachinePublic,
        request: Box<RegisterRequest>,
        reply: oneshot::Sender<RegisterResponse>,
    ) {
        let followed = request.followup.rsplit('/').next().unwrap_or_default();
        if self.pendings.waits(followed, machine, request.node_key) {
            let waiting = self.waiting.entry(followed.to_owned()).or_default();
            waiting.retain(|waiting| !waiting.reply.is_closed());
            waiting.truncate(WAITING_A_KEY - 1);
            waiting.push(Waiting { machine, request, reply });
            return;
        }
        let answer = self.registration(machine, &request).await;
        drop(reply.send(answer));
    }

    async fn registration(&mut self, machine: MachinePublic, request: &RegisterRequest) -> RegisterResponse {
        let now = now();
        let attempt = Attempt { machine, request, now: now.wall };
        let decision = register::decide(self.network.registry(), self.network.policy(), &attempt);
        let (id, records) = match decision {
            Err(refusal) => {
                tracing::info!(machine = %machine.short(), node = %request.node_key.short(), %refusal, "refused");
                return answer::refused(&refusal.to_string());
            }
            Ok(Decision::Known(id)) => (id, Vec::new()),
            Ok(Decision::Admit(id, records) | Decision::LogOut(id, records)) => (id, records),
            Ok(Decision::Expired(id)) => return answer::expired(&self.network, id),
            Ok(Decision::Ask) => return self.ask(machine, request, now.wall),
        };
        let old_key = self.network.registry().node(id).map(|node| node.node_key);
        if self.commit(records).await.is_err() {
            return answer::refused("the server cannot keep its state: ask its administrator");
        }
        if let Some(old) = old_key.filter(|key| !self.network.admits(key)) {
            self.relay.disconnect(&old);
        }
        answer::registered(&self.network, id, now.wall)
    }

    /// Nobody vouches for the machine: an administrator has to.
    fn ask(&mut self, machine: MachinePublic, request: &RegisterRequest, now: Timestamp) -> RegisterResponse {
        if request.expiry.get().is_some_and(|at| at <= now) {
            return answer::logged_out();
        }
        let pending = Pending { machine, request: request.clone(), since: now };
        let key = self.pendings.wait(pending, crate::random());
        tracing::info!(machine = %machine.short(), %key, "waits: underpass admin nodes approve");
        answer::ask(&format!("{}/register/{key}", self.info.url))
    }

    async fn map(&mut self, machine: MachinePublic, request: &MapRequest) -> Result<MapReply, MapError> {
        let node = self.network.authenticate(machine, &request.node_key)?;
        let id = node.id;
        if let Some(record) = self.network.report(node, request) {
            self.commit(vec![record]).await.map_err(|_| MapError::Store)?;
        }
        if !request.stream && request.omit_peers {
            return Ok(MapReply::Noted);
        }
        let now = now();
        if !request.stream {
            let map = self.network.snapshot(id, request.version, now).ok_or(MapRefusal::Unknown)?;
            return Ok(MapReply::Once(Box::new(map)));
        }
        let connected = self.network.connect(id, request.version, now).ok_or(MapRefusal::Unknown)?;
        connected.replaced.and_then(|old| self.streams.remove(&old));
        let (sender, deltas) = mpsc::channel(STREAM_QUEUE);
        self.streams.insert(connected.session, sender);
        Ok(MapReply::Stream { session: connected.session, first: Box::new(connected.map), deltas })
    }

    /// Makes a change that nobody waits for; a failure is logged and tried again with the next change.
    async fn commit_now(&mut self, change: impl FnOnce(&mut Network, Now) -> Vec<Record>) {
        let records = change(&mut self.network, now());
        let gone: Vec<_> = records.iter().filter_map(|record| self.key_gone(record)).collect();
        if self.commit(records).await.is_ok() {
            gone.iter().for_each(|key| self.relay.disconnect(key));
        }
    }

    fn key_gone(&self, record: &Record) -> Option<NodePublic> {
        let Record::DeleteNode(id) = record else { return None };
        self.network.registry().node(*id).map(|node| node.node_key)
    }

    /// Keeps records, first in the store, then in memory.
    async fn commit(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        self.store.commit(&records).await.inspect_err(|error| tracing::error!(%error, "change not kept"))?;
        self.network.apply(records, now());
        Ok(())
    }

    fn flush(&mut self) {
        for (session, tell) in self.network.flush(now()) {
            let Some(stream) = self.streams.get(&session) else { continue };
            let (message, last) = match tell {
                Tell::Delta(message) => (message, false),
                Tell::End(message) => (message, true),
            };
            if stream.try_send(message).is_err() || last {
                self.end_stream(session);
            }
        }
    }

    /// Those who followed up on `key` are answered again: it was approved, or they waited for too long.
    async fn answer_waiting(&mut self, key: &str) {
        for Waiting { machine, request, reply } in self.waiting.remove(key).unwrap_or_default() {
            let answer = self.registration(machine, &request).await;
            drop(reply.send(answer));
        }
    }
}

fn now() -> Now {
    Now { wall: Timestamp::now(), instant: Instant::now() }
}
