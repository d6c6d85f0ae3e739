//! The tables of one device: its identity, its peers, which prefix is whose, and which session number is whose.
//!
//! Packets read them, only UAPI requests change them. Locks are taken in the order tables, peer, sessions.
//! Deliberately not here: loops and sockets' life (`process`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use gotatun::noise::Tunn;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::packet::WgKind;
use ipnet::IpNet;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::allowed_ips::AllowedIps;
use crate::peer::{Peer, receiver_index};
use crate::request::{PeerRequest, Request};
use crate::socket::Sockets;

/// Handshakes a second from one address that are worked without a cookie (`ratelimiter.c`: 20).
const HANDSHAKES: u64 = 20;

/// Starts the threads that receive on new sockets.
type Listen = Box<dyn Fn(Arc<Sockets>) + Send + Sync>;

/// One device, shared by its threads.
pub(crate) struct Device {
    tables: RwLock<Tables>,
    /// Which peer a number in a received message means.
    sessions: Mutex<HashMap<u32, Arc<Peer>>>,
    indices: IndexTable,
    listen: Listen,
}

/// What UAPI requests change.
pub(crate) struct Tables {
    pub(crate) identity: Identity,
    pub(crate) peers: BTreeMap<[u8; 32], Member>,
    pub(crate) fwmark: u32,
    pub(crate) sockets: Option<Arc<Sockets>>,
    routes: AllowedIps<Arc<Peer>>,
}

/// The device's keys. Before one is configured there is a random one, with which nothing is sent.
pub(crate) struct Identity {
    pub(crate) private: StaticSecret,
    pub(crate) public: PublicKey,
    pub(crate) configured: bool,
    pub(crate) limiter: Arc<RateLimiter>,
}

/// A peer and its configuration.
pub(crate) struct Member {
    pub(crate) peer: Arc<Peer>,
    pub(crate) allowed_ips: BTreeSet<IpNet>,
    pub(crate) preshared_key: Option<StaticSecret>,
}

impl Identity {
    fn new(private: StaticSecret, configured: bool) -> Self {
        let public = PublicKey::from(&private);
        let limiter = Arc::new(RateLimiter::new(&public, HANDSHAKES));
        Self { private, public, configured, limiter }
    }
}

impl Device {
    /// A device without a key, a port or peers. `listen` is called with every new pair of sockets.
    pub(crate) fn new(listen: Listen) -> io::Result<Self> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let tables = Tables {
            identity: Identity::new(StaticSecret::from(random), false),
            peers: BTreeMap::new(),
            fwmark: 0,
            sockets: None,
            routes: AllowedIps::default(),
        };
        Ok(Self {
            tables: RwLock::new(tables),
            sessions: Mutex::default(),
            indices: IndexTable::from_os_rng(),
            listen,
        })
    }

    /// The tables, for a burst of packets or an answer.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer to whom a received message with this number belongs.
    pub(crate) fn peer_of(&self, index: u32) -> Option<Arc<Peer>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }

    /// Notes the number under which answers to `message` will arrive. Must precede its sending.
    pub(crate) fn expect_answers(&self, message: &WgKind, peer: &Arc<Peer>) {
        if let Some(index) = receiver_index(message) {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.insert(index, Arc::clone(peer));
        }
    }

    /// Forgets the numbers of sessions that have ended.
    pub(crate) fn forget_ended_sessions(&self) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|index, _| self.indices.in_use(*index));
    }

    /// Applies a request. What can fail comes first, so that a refused request changes nothing.
    ///
    /// # Errors
    /// When the port is in use, or the mark needs a right the process lacks.
    pub(crate) fn apply(&self, request: Request) -> io::Result<()> {
        let mut tables = self.write();
        let mark = request.fwmark.unwrap_or(tables.fwmark);
        let bound = tables.sockets.as_ref().map(|sockets| sockets.port);
        let wanted =
            request.listen_port.or_else(|| (bound.is_none() && request.private_key.is_some()).then_some(0));
        let replacement = match wanted {
            Some(port) if bound != Some(port) => Some(Sockets::bind(port, mark)?),
            _ => None,
        };
        match (&replacement, &tables.sockets) {
            (None, Some(sockets)) if mark != tables.fwmark => sockets.set_mark(mark)?,
            _ => {}
        }
        tables.fwmark = mark;
        if let Some(sockets) = replacement {
            let sockets = Arc::new(sockets);
            if let Some(old) = tables.sockets.replace(Arc::clone(&sockets)) {
                old.close();
            }
            (self.listen)(sockets);
        }
        if let Some(private) = request.private_key {
            tables.set_identity(private);
        }
        if request.replace_peers {
            tables.remove_all();
        }
        for peer in request.peers {
            tables.change_peer(peer, &self.indices);
        }
        Ok(())
    }
}

impl Tables {
    /// Whose packet to or from this overlay address is.
    pub(crate) fn route(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        self.routes.find(address)
    }

    fn set_identity(&mut self, private: StaticSecret) {
        let identity = Identity::new(private, true);
        if self.identity.configured && identity.public == self.identity.public {
            return;
        }
        // A device is no peer of itself: the kernel removes that peer as well.
        self.remove_peer(&identity.public.to_bytes());
        for member in self.peers.values() {
            let mut state = member.peer.lock();
            let limiter = Arc::clone(&identity.limiter);
            state.tunnel.set_static_private(identity.private.clone(), identity.public, limiter);
        }
        self.identity = identity;
    }

    fn change_peer(&mut self, request: PeerRequest, indices: &IndexTable) {
        if request.remove {
            return self.remove_peer(&request.key);
        }
        let itself = self.identity.configured && request.key == self.identity.public.to_bytes();
        let absent = !self.peers.contains_key(&request.key);
        if itself || (absent && request.update_only) {
            return;
        }
        let identity = &self.identity;
        let member = self.peers.entry(request.key).or_insert_with(|| {
            let (private, public) = (identity.private.clone(), PublicKey::from(request.key));
            let limiter = Arc::clone(&identity.limiter);
            let tunnel = Tunn::new(private, public, None, None, indices.clone(), limiter);
            Member {
                peer: Arc::new(Peer::new(request.key, tunnel)),
                allowed_ips: BTreeSet::new(),
                preshared_key: None,
            }
        });
        let peer = Arc::clone(&member.peer);
        let mut state = peer.lock();
        state.endpoint = request.endpoint.or(state.endpoint);
        if let Some(seconds) = request.keepalive {
            state.tunnel.set_persistent_keepalive(Some(seconds));
        }
        if let Some(key) = request.preshared_key {
            member.preshared_key = Some(key).filter(|key| key.as_bytes() != &[0; 32]);
            state.tunnel.set_preshared_key(member.preshared_key.as_ref().map(|key| *key.as_bytes()));
        }
        drop(state);
        if request.replace_allowed_ips {
            for net in std::mem::take(&mut member.allowed_ips) {
                self.routes.remove(net);
            }
        }
        for (add, net) in request.allowed_ips {
            self.change_allowed_ip(&peer, add, net);
        }
    }

    fn change_allowed_ip(&mut self, peer: &Arc<Peer>, add: bool, net: IpNet) {
        let Some(member) = self.peers.get_mut(&peer.key) else { return };
        if !add {
            if member.allowed_ips.remove(&net) {
                self.routes.remove(net);
            }
            return;
        }
        member.allowed_ips.insert(net);
        let before = self.routes.insert(net, Arc::clone(peer)).filter(|before| before.key != peer.key);
        if let Some(other) = before.and_then(|before| self.peers.get_mut(&before.key)) {
            other.allowed_ips.remove(&net);
        }
    }

    fn remove_peer(&mut self, key: &[u8; 32]) {
        let Some(member) = self.peers.remove(key) else { return };
        for net in member.allowed_ips {
            self.routes.remove(net);
        }
        // Its sessions end with its keys; whoever still holds it for a moment finds it empty.
        member.peer.lock().tunnel.reset();
    }

    fn remove_all(&mut self) {
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            self.remove_peer(&key);
        }
    }
}
