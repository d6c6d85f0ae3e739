//! A peer relay: pairs of clients that cannot reach each other directly meet on a UDP port of ours
//! (tailscale `net/udprelay/server.go`).
//!
//! A session is allocated for a pair of DISCO keys and has a VNI. Each client then binds the address it sends from, by a
//! handshake of three messages; from there on its packets, known by VNI *and* exact source, go to the other unchanged.
//! Where the kernel forwards, it is told of every bound pair by [`PeerRelay::poll_change`] and its counters come back by
//! [`PeerRelay::note_kernel`]; otherwise [`PeerRelay::handle_packet`] does it. Sessions survive a restart of the process
//! by [`PeerRelay::save`] and [`PeerRelay::adopt`]. Deliberately not here: who may allocate (the node asks its filter),
//! sockets, STUN, and finding our own addresses.

mod challenge;
mod counters;
mod saved;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use types::{DiscoPrivate, DiscoPublic};
use wire::disco::RelayEndpoint;
use wire::geneve::{HEADER_LEN, Header, Protocol, Vni};
use wire::nacl::SharedBox;

use challenge::Secrets;
pub use counters::{RelayCounters, RelayDrop, Traffic};
pub use saved::{Saved, SavedSession};
pub use session::Leg;
use session::{Client, Session, Step};

/// What an operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct RelayConfig {
    /// How long a session waits for both clients to bind. Tailscale's is 30 s.
    pub bind_lifetime: Duration,
    /// How long a bound session lives after one of its clients fell silent. Tailscale's is 5 min.
    pub steady_state_lifetime: Duration,
    /// Sessions at once; further requests get no answer.
    pub max_sessions: usize,
    /// Sessions that one client asked for and that are not bound yet: a client that makes up partners fills only these.
    pub max_connecting_of_client: usize,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            bind_lifetime: Duration::from_secs(30),
            steady_state_lifetime: Duration::from_secs(300),
            max_sessions: PLACES as usize,
            max_connecting_of_client: 1024,
        }
    }
}

/// Why a session is not allocated. The client is not told; it asks again, or another relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Our own addresses are not known yet.
    #[error("this relay does not know its own addresses yet")]
    NotReady,
    /// The requester is not one of the two.
    #[error("the request is for two other clients")]
    NotParty,
    /// A pair is two clients, and neither is the relay.
    #[error("the request's two keys are no pair of clients")]
    NoPair,
    /// Every session is taken.
    #[error("the relay is full")]
    Full,
    /// This client asked for many sessions that nobody binds.
    #[error("the client has too many sessions that are not bound")]
    TooManyConnecting,
}

/// What to do with a packet that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relayed {
    /// Send it on as it is.
    Forward(Leg),
    /// Send these bytes back to where it came from.
    Reply(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// What the kernel's table has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This VNI is a session's whose clients have not both bound: its packets are for us, not to be dropped as a stranger's.
    Waiting(Vni),
    /// Packets of this VNI go between these two; replaces what was there.
    Bound(Vni, [Leg; 2]),
    /// Nothing of this VNI goes anywhere any more.
    Gone(Vni),
}

/// One session as shown to people.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// Its VNI.
    pub vni: Vni,
    /// The two clients: key, address once bound, and what they have sent.
    pub clients: [(DiscoPublic, Option<SocketAddr>, Traffic); 2],
}

/// The most sessions there can be. No two of them have VNIs that are equal modulo this, so a table of as many places, indexed
/// by VNI, holds them all: the kernel's (`ebpf/abi`, `MAX_RELAY_SESSIONS`).
pub const PLACES: u32 = 16_384;

/// How often expired sessions are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// All sessions of one relay.
pub struct PeerRelay {
    config: RelayConfig,
    key: DiscoPrivate,
    public: DiscoPublic,
    addresses: Vec<SocketAddr>,
    secrets: Secrets,
    sessions: HashMap<Vni, Session>,
    by_pair: HashMap<[DiscoPublic; 2], Vni>,
    /// Of every session the VNI modulo [`PLACES`].
    places: HashSet<u32>,
    /// How many sessions are not bound, by who asked for them.
    connecting: HashMap<DiscoPublic, usize>,
    lamport_id: u64,
    next_vni: u32,
    changes: VecDeque<Change>,
    /// Counts everything a save would have to hold.
    version: u64,
    sweep_at: Option<Instant>,
    counters: RelayCounters,
}

impl PeerRelay {
    /// Without sessions. `key` is the relay's own, not the node's, and stays the same as long as sessions do.
    pub fn new(config: RelayConfig, key: DiscoPrivate) -> Self {
        Self {
            config,
            public: key.public(),
            key,
            addresses: Vec::new(),
            secrets: Secrets::new(),
            sessions: HashMap::new(),
            by_pair: HashMap::new(),
            places: HashSet::new(),
            connecting: HashMap::new(),
            lamport_id: 0,
            next_vni: 1,
            changes: VecDeque::new(),
            version: 0,
            sweep_at: None,
            counters: RelayCounters::default(),
        }
    }

    /// Where clients can reach us; none means that nothing is allocated.
    pub fn set_addresses(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses;
    }

    /// Where clients can reach us.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The session of a pair: the one it has, or a new one. `requester` is who sent the request, proven by its box.
    ///
    /// A repeated request is answered with the same session, and its clients get the promised time to bind again.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn allocate(
        &mut self,
        requester: DiscoPublic,
        clients: [DiscoPublic; 2],
        now: Instant,
    ) -> Result<RelayEndpoint, Refusal> {
        self.try_allocate(requester, clients, now).inspect_err(|_| self.counters.refused += 1)
    }

    fn try_allocate(
        &mut self,
        requester: DiscoPublic,
        mut clients: [DiscoPublic; 2],
        now: Instant,
    ) -> Result<RelayEndpoint, Refusal> {
        if self.addresses.is_empty() {
            return Err(Refusal::NotReady);
        }
        if !clients.contains(&requester) {
            return Err(Refusal::NotParty);
        }
        if clients[0] == clients[1]
            || clients.contains(&self.public)
            || clients.iter().any(DiscoPublic::is_zero)
        {
            return Err(Refusal::NoPair);
        }
        clients.sort_unstable();
        let kept_until = now + self.config.bind_lifetime;
        if let Some(session) = self.by_pair.get(&clients).and_then(|vni| self.sessions.get_mut(vni)) {
            session.kept_until = session.kept_until.max(kept_until);
            let (vni, lamport_id) = (session.vni, session.lamport_id);
            return Ok(self.endpoint(clients, vni, lamport_id));
        }
        if self.connecting.get(&requester).is_some_and(|count| *count >= self.config.max_connecting_of_client)
        {
            return Err(Refusal::TooManyConnecting);
        }
        let vni = self.free_vni().ok_or(Refusal::Full)?;
        self.lamport_id += 1;
        let session = Session {
            vni,
            lamport_id: self.lamport_id,
            requester,
            clients: clients.map(|disco| Client::new(disco, SharedBox::disco(&self.key, &disco), None, now)),
            kept_until,
        };
        self.insert(session, now);
        Ok(self.endpoint(clients, vni, self.lamport_id))
    }

    /// A packet from the relay's socket that is no STUN. `random` is asked for 32 bytes, and only by the handshake.
    pub fn handle_packet(
        &mut self,
        from: Leg,
        packet: &[u8],
        now: Instant,
        random: &mut dyn FnMut() -> [u8; 32],
    ) -> Relayed {
        let remote = SocketAddr::new(from.remote.ip().to_canonical(), from.remote.port());
        match self.relay(Leg { remote, ..from }, packet, now, random) {
            Ok(relayed) => relayed,
            Err(reason) => {
                self.counters.drop(reason);
                Relayed::Nothing
            }
        }
    }

    fn relay(
        &mut self,
        from: Leg,
        packet: &[u8],
        now: Instant,
        random: &mut dyn FnMut() -> [u8; 32],
    ) -> Result<Relayed, RelayDrop> {
        let (header, payload) = Header::decode(packet).map_err(|_| RelayDrop::Malformed)?;
        let session = self.sessions.get_mut(&header.vni).ok_or(RelayDrop::UnknownVni)?;
        if !header.control {
            let to = session.forward(from.remote, packet.len(), now)?;
            let traffic = Traffic { packets: 1, bytes: packet.len() as u64 };
            self.counters.forward(from.remote, to.remote, traffic);
            return Ok(Relayed::Forward(to));
        }
        if header.protocol != Protocol::Disco {
            return Err(RelayDrop::NotDisco);
        }
        let before = session.legs();
        match session.handshake(from, payload, &mut self.secrets, now, random)? {
            Step::Challenge(client, message) => {
                let nonce = *random().first_chunk().expect("24 of 32 bytes");
                let mut reply = Vec::with_capacity(HEADER_LEN + packet.len());
                reply.extend_from_slice(&header.encode());
                reply.extend_from_slice(&session.seal(&self.public, client, &message, nonce));
                Ok(Relayed::Reply(reply))
            }
            Step::Bound => {
                let (vni, requester, after) = (session.vni, session.requester, session.legs());
                self.version += 1;
                if let Some(legs) = after {
                    if before.is_none() {
                        self.count_connecting(requester, false);
                    }
                    if before != after {
                        self.changes.push_back(Change::Bound(vni, legs));
                    }
                }
                Ok(Relayed::Nothing)
            }
        }
    }

    /// What the kernel has forwarded for each client of a VNI since it knows the pair, and how long ago the last packet
    /// of each was; `None` when there was none. To be called before [`Self::handle_timeout`], or bound sessions expire.
    pub fn note_kernel(&mut self, vni: Vni, clients: [(Traffic, Option<Duration>); 2], now: Instant) {
        let Some(session) = self.sessions.get_mut(&vni) else { return };
        let Some(legs) = session.legs() else { return };
        for (index, (total, silent)) in clients.into_iter().enumerate() {
            let client = &mut session.clients[index];
            let news = total.since(client.kernel);
            client.kernel = total;
            client.forwarded.add(news);
            if let Some(at) = silent.and_then(|silent| now.checked_sub(silent)) {
                client.last_seen = client.last_seen.max(at);
            }
            self.counters.forward(legs[index].remote, legs[1 - index].remote, news);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Forgets sessions that have expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        let steady_state = self.config.steady_state_lifetime;
        let expired = self.sessions.values().filter(|session| session.expired(steady_state, now));
        let mut expired: Vec<_> = expired.map(|session| session.vni).collect();
        expired.sort_unstable();
        for vni in expired {
            self.remove(vni);
        }
        self.sweep_at = (!self.sessions.is_empty()).then(|| now + SWEEP);
    }

    /// What the kernel's table has to follow, in this order.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Every bound pair, for a table that starts empty.
    pub fn bound(&self) -> impl Iterator<Item = (Vni, [Leg; 2])> {
        self.sessions.values().filter_map(|session| Some((session.vni, session.legs()?)))
    }

    /// Grows with everything that [`Self::save`] holds.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What happened so far.
    pub fn counters(&self) -> &RelayCounters {
        &self.counters
    }

    /// Sessions that wait for a client to bind, and sessions that forward.
    pub fn count(&self) -> (usize, usize) {
        let connecting = self.connecting.values().sum();
        (connecting, self.sessions.len() - connecting)
    }

    /// Every session, by VNI.
    pub fn report(&self) -> Vec<SessionReport> {
        let client = |client: &Client| (client.disco, client.leg.map(|leg| leg.remote), client.forwarded);
        let report = |session: &Session| SessionReport {
            vni: session.vni,
            clients: [client(&session.clients[0]), client(&session.clients[1])],
        };
        let mut reports: Vec<_> = self.sessions.values().map(report).collect();
        reports.sort_unstable_by_key(|report| report.vni);
        reports
    }

    fn endpoint(&self, clients: [DiscoPublic; 2], vni: Vni, lamport_id: u64) -> RelayEndpoint {
        RelayEndpoint {
            server: self.public,
            clients,
            lamport_id,
            vni: vni.get(),
            bind_lifetime: self.config.bind_lifetime,
            steady_state_lifetime: self.config.steady_state_lifetime,
            addresses: self.addresses.clone(),
        }
    }

    /// The next number in turn that no session has, so that one is not used again soon; zero is none.
    fn free_vni(&mut self) -> Option<Vni> {
        if self.sessions.len() >= self.config.max_sessions.min(PLACES as usize) {
            return None;
        }
        loop {
            let vni = Vni::new(self.next_vni)?;
            self.next_vni = if self.next_vni == Vni::MAX { 1 } else { self.next_vni + 1 };
            if !self.places.contains(&place(vni)) {
                return Some(vni);
            }
        }
    }

    fn insert(&mut self, session: Session, now: Instant) {
        self.by_pair.insert([session.clients[0].disco, session.clients[1].disco], session.vni);
        match session.legs() {
            Some(legs) => self.changes.push_back(Change::Bound(session.vni, legs)),
            None => {
                self.changes.push_back(Change::Waiting(session.vni));
                self.count_connecting(session.requester, true);
            }
        }
        self.places.insert(place(session.vni));
        self.sessions.insert(session.vni, session);
        self.version += 1;
        self.sweep_at.get_or_insert(now + SWEEP);
    }

    fn remove(&mut self, vni: Vni) {
        let Some(session) = self.sessions.remove(&vni) else { return };
        self.places.remove(&place(vni));
        self.by_pair.remove(&[session.clients[0].disco, session.clients[1].disco]);
        self.changes.push_back(Change::Gone(vni));
        if session.legs().is_none() {
            self.count_connecting(session.requester, false);
        }
        self.version += 1;
    }

    fn count_connecting(&mut self, requester: DiscoPublic, more: bool) {
        let count = self.connecting.entry(requester).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.connecting.remove(&requester);
        }
    }
}

/// Where a table of [`PLACES`] has a VNI.
const fn place(vni: Vni) -> u32 {
    vni.get() % PLACES
}
