//! Relays: the places on peer relays that we share with peers, from the asking to the losing.
//!
//! A place is asked for (by DERP) at every relay that control names, or is heard of from the peer; then our address is bound
//! there in three steps, and the place is a path like any other, confirmed by pings (tailscale
//! `wgengine/magicsock/relaymanager.go`). Other than there, steps are repeated until they are answered, every place that was
//! bound stays a candidate, and one that falls silent is bound anew at once: so there is a next path when a relay dies.
//! Deliberately not here: bytes, which peers may be asked (`grants`), and which path is better (`score`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use types::{DiscoPublic, NodePublic, Vni};
use wire::disco::{Bind, RelayEndpoint};

use crate::paths::Target;

/// The shortest time between two rounds of asking for one peer (`discoverUDPRelayPathsInterval`).
const DISCOVER: Duration = Duration::from_secs(30);
/// How often a better relay is looked for while one works (`upgradeUDPRelayInterval`).
const UPGRADE: Duration = Duration::from_secs(60);
/// How long an allocation is waited for (`allocateUDPRelayEndpointRequestTimeout`).
const ALLOCATE: Duration = Duration::from_secs(10);
/// When the request is repeated, once (`endpoint.ServerRetryAfter`): DERP loses, and a relay may not be ready.
const ALLOCATE_AGAIN: Duration = Duration::from_secs(3);
/// A handshake takes no longer, whatever lifetime the relay promises (`maxHandshakeLifetime`).
const HANDSHAKE: Duration = Duration::from_secs(30);
/// A step of the handshake is repeated after this long, then after twice that, and so on.
const REPEAT: Duration = Duration::from_millis(250);
/// At most.
const REPEAT_MOST: Duration = Duration::from_secs(4);
/// A bound place is kept no longer than this without a sign of life, whatever lifetime the relay promises.
const SILENT_MOST: Duration = Duration::from_secs(3600);
/// Addresses of one relay that are tried: a peer may name any.
const MOST_ADDRESSES: usize = 16;
/// Relays that are tried for one peer.
const MOST_PLACES: usize = 8;

/// What is to be sent for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// By DERP: ask this relay for a place. With the number of the request.
    Allocate(NodePublic, u32),
    /// To a relay, at this address and VNI: begin to bind.
    Bind(DiscoPublic, Target, Bind),
    /// Echo its challenge.
    Answer(DiscoPublic, Target, Bind),
    /// To the peer: does it hear us through this place?
    Ping(Target),
}

/// How far the handshake with a relay is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// First steps are sent to all of the relay's addresses.
    Binding,
    /// The challenge came from here and was answered; whether the answer was heard shows by the peer's DISCO.
    Answered(SocketAddr, [u8; 32]),
    /// The peer was heard through it.
    Bound,
}

/// A place on one relay.
#[derive(Clone, Debug)]
struct Place {
    endpoint: RelayEndpoint,
    vni: Vni,
    generation: u32,
    stage: Stage,
    /// Where the relay was reached last.
    remote: Option<SocketAddr>,
    /// Forgotten then.
    until: Instant,
    /// When a step is repeated, and how long after that.
    repeat: Option<(Instant, Duration)>,
}

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    generation: u32,
    at: Instant,
    /// When the request goes out (again).
    due: Option<Instant>,
}

/// What goes on for one peer.
#[derive(Debug, Default)]
struct Search {
    last: Option<Instant>,
    asked: BTreeMap<NodePublic, Asked>,
    /// By the relay's DISCO key.
    places: BTreeMap<DiscoPublic, Place>,
    /// Places of an earlier run through which the peer was heard.
    adopted: BTreeSet<(SocketAddr, Vni)>,
}

/// All relays, and the places on them.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    servers: BTreeSet<NodePublic>,
    searches: BTreeMap<NodePublic, Search>,
    peer_by_number: BTreeMap<(DiscoPublic, Vni), NodePublic>,
    peer_by_target: BTreeMap<(SocketAddr, Vni), NodePublic>,
    /// Grows with every change of the places.
    revision: u64,
    generation: u32,
}

impl Relays {
    /// `generation`, random, makes numbers of handshakes that an earlier run has not used.
    pub(crate) fn new(generation: u32) -> Self {
        Self { generation, ..Self::default() }
    }

    /// The relays that may be asked.
    pub(crate) fn set_servers(&mut self, servers: BTreeSet<NodePublic>) {
        self.servers = servers;
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = NodePublic> {
        self.servers.iter().copied()
    }

    /// Whether relays are to be asked for a place to reach `peer`, which has a trusted path or not.
    pub(crate) fn wants_search(&self, peer: &NodePublic, trusted: bool, now: Instant) -> bool {
        let last = self.searches.get(peer).and_then(|search| search.last);
        let interval = if trusted { UPGRADE } else { DISCOVER };
        self.servers.iter().any(|server| server != peer) && last.is_none_or(|last| now >= last + interval)
    }

    /// Asks every relay. Those that are being asked go on.
    pub(crate) fn search(&mut self, peer: NodePublic, now: Instant) {
        let search = self.searches.entry(peer).or_default();
        search.last = Some(now);
        // The peer itself may be a relay; to reach it that is of no use.
        for server in self.servers.iter().filter(|server| **server != peer).take(MOST_PLACES) {
            if search.asked.get(server).is_none_or(|asked| now >= asked.at + ALLOCATE) {
                self.generation = self.generation.wrapping_add(1);
                let asked = Asked { generation: self.generation, at: now, due: Some(now) };
                search.asked.insert(*server, asked);
            }
        }
    }

    /// A relay's answer to a request: for which peer it was.
    pub(crate) fn handle_allocated(
        &mut self,
        server: NodePublic,
        generation: u32,
        now: Instant,
    ) -> Option<NodePublic> {
        let fits = |search: &Search| {
            let asked = search.asked.get(&server);
            asked.is_some_and(|asked| asked.generation == generation && now < asked.at + ALLOCATE)
        };
        let peer = *self.searches.iter().find(|(_, search)| fits(search))?.0;
        self.searches.get_mut(&peer)?.asked.remove(&server);
        Some(peer)
    }

    /// A place for us and `peer`, by the relay's word or the peer's. Begins to bind there, unless an equal or newer place on
    /// that relay is known, which works (`works`) or is being bound.
    pub(crate) fn learn(
        &mut self,
        peer: NodePublic,
        mut endpoint: RelayEndpoint,
        works: impl Fn(Target) -> bool,
        now: Instant,
    ) {
        let Some(vni) = Vni::new(endpoint.vni).filter(|vni| vni.get() != 0) else { return };
        endpoint.addresses.truncate(MOST_ADDRESSES);
        let search = self.searches.entry(peer).or_default();
        let server = endpoint.server;
        let known = search.places.get(&server);
        if let Some(known) = known.filter(|known| known.endpoint.lamport_id >= endpoint.lamport_id) {
            let is_same = known.vni == vni && known.endpoint.lamport_id == endpoint.lamport_id;
            let is_busy = known.stage != Stage::Bound;
            let is_fine = known.remote.is_some_and(|remote| works((remote, Some(vni))));
            if !is_same || is_busy || is_fine {
                return;
            }
        }
        if known.is_none() && search.places.len() >= MOST_PLACES {
            return;
        }
        let remote = known.filter(|known| known.vni == vni).and_then(|known| known.remote);
        self.forget_place(peer, server);
        self.bind(peer, endpoint, vni, remote, now);
    }

    /// The path through a place is lost: the relay may have forgotten us, or our address be another. Binds anew.
    pub(crate) fn bind_again(&mut self, peer: NodePublic, target: Target, now: Instant) {
        let Some(search) = self.searches.get(&peer) else { return };
        let lost = |place: &&Place| {
            place.stage == Stage::Bound && (place.remote, Some(place.vni)) == (Some(target.0), target.1)
        };
        let Some(place) = search.places.values().find(lost) else { return };
        let (endpoint, vni, remote) = (place.endpoint.clone(), place.vni, place.remote);
        self.forget_place(peer, endpoint.server);
        self.bind(peer, endpoint, vni, remote, now);
        // The others are asked at once, too: this one may be dead.
        if let Some(search) = self.searches.get_mut(&peer) {
            search.last = None;
        }
    }

    fn bind(
        &mut self,
        peer: NodePublic,
        endpoint: RelayEndpoint,
        vni: Vni,
        remote: Option<SocketAddr>,
        now: Instant,
    ) {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.peer_by_number.insert((endpoint.server, vni), peer);
        if let Some(remote) = remote {
            self.list((remote, vni), peer);
        }
        let place = Place {
            vni,
            generation: self.generation,
            stage: Stage::Binding,
            remote,
            until: now + endpoint.bind_lifetime.min(HANDSHAKE),
            repeat: Some((now, REPEAT)),
            endpoint,
        };
        self.searches.entry(peer).or_default().places.insert(place.endpoint.server, place);
    }

    /// A relay's challenge, from `from`; the peer it is about when it is to be answered, which [`Self::poll`] then does.
    /// The first one counts: the relay knows one address of ours at a time.
    pub(crate) fn handle_challenge(
        &mut self,
        server: DiscoPublic,
        (from, vni): (SocketAddr, Vni),
        bind: &Bind,
        now: Instant,
    ) -> Option<NodePublic> {
        let peer = *self.peer_by_number.get(&(server, vni))?;
        let place = self.searches.get_mut(&peer)?.places.get_mut(&server)?;
        if place.stage != Stage::Binding || bind.vni != vni.get() || bind.generation != place.generation {
            return None;
        }
        let old = place.remote.replace(from);
        place.stage = Stage::Answered(from, bind.challenge);
        place.repeat = Some((now, REPEAT));
        old.into_iter().for_each(|old| self.unlist((old, vni)));
        self.list((from, vni), peer);
        Some(peer)
    }

    /// The peer spoke through a place: our answer was heard, and the place lives on.
    pub(crate) fn note_heard(&mut self, source: SocketAddr, vni: Vni, now: Instant) {
        let Some(peer) = self.peer_by_target.get(&(source, vni)) else { return };
        let Some(search) = self.searches.get_mut(peer) else { return };
        let is_it = |place: &&mut Place| place.vni == vni && place.remote == Some(source);
        let Some(place) = search.places.values_mut().find(is_it) else { return };
        if place.stage == Stage::Binding {
            return;
        }
        if place.stage != Stage::Bound {
            // Our own pings may have come too early. This one does not.
            place.stage = Stage::Bound;
            place.repeat = Some((now, REPEAT));
        }
        place.until = now + place.endpoint.steady_state_lifetime.min(SILENT_MOST);
    }

    /// The peer speaks through a place that we do not remember: an earlier run of ours has bound it.
    pub(crate) fn adopt(&mut self, peer: NodePublic, source: SocketAddr, vni: Vni) {
        let adopted = &mut self.searches.entry(peer).or_default().adopted;
        if adopted.len() < MOST_PLACES && adopted.insert((source, vni)) {
            self.list((source, vni), peer);
        }
    }

    /// What is due for `peer`. `remote` is the peer's own DISCO key.
    pub(crate) fn poll(&mut self, peer: NodePublic, remote: DiscoPublic, now: Instant) -> Vec<Step> {
        let Some(search) = self.searches.get_mut(&peer) else { return Vec::new() };
        let mut steps = Vec::new();
        search.asked.retain(|_, asked| now < asked.at + ALLOCATE);
        for (server, asked) in &mut search.asked {
            if asked.due.is_some_and(|due| due <= now) {
                asked.due = Some(asked.at + ALLOCATE_AGAIN).filter(|again| *again > now);
                steps.push(Step::Allocate(*server, asked.generation));
            }
        }
        for (server, place) in &mut search.places {
            let Some((_, pause)) = place.repeat.filter(|(at, _)| *at <= now) else { continue };
            place.repeat = Some((now + pause, (pause * 2).min(REPEAT_MOST)));
            let bind =
                |challenge| Bind { vni: place.vni.get(), generation: place.generation, remote, challenge };
            match place.stage {
                Stage::Binding => steps.extend(
                    place
                        .endpoint
                        .addresses
                        .iter()
                        .map(|address| Step::Bind(*server, (*address, Some(place.vni)), bind([0; 32]))),
                ),
                Stage::Answered(from, challenge) => {
                    let target = (from, Some(place.vni));
                    steps.push(Step::Answer(*server, target, bind(challenge)));
                    steps.push(Step::Ping(target));
                }
                Stage::Bound => {
                    place.repeat = None;
                    steps.extend(place.remote.map(|remote| Step::Ping((remote, Some(place.vni)))));
                }
            }
        }
        let old: Vec<DiscoPublic> =
            search.places.iter().filter(|(_, place)| place.until <= now).map(|(server, _)| *server).collect();
        for server in old {
            self.forget_place(peer, server);
        }
        steps
    }

    /// When [`Self::poll`] has something to do.
    pub(crate) fn next(&self, peer: &NodePublic) -> Option<Instant> {
        let search = self.searches.get(peer)?;
        let asked = search.asked.values().map(|asked| asked.due.unwrap_or(asked.at + ALLOCATE));
        let places = search.places.values().map(|place| match place.repeat {
            Some((at, _)) => at.min(place.until),
            None => place.until,
        });
        asked.chain(places).min()
    }

    /// The places of a peer where we are bound, or were until a moment ago.
    pub(crate) fn targets(&self, peer: &NodePublic) -> Vec<(SocketAddr, Vni)> {
        let places = self.searches.get(peer).into_iter().flat_map(|search| search.places.values());
        places.filter_map(|place| Some((place.remote?, place.vni))).collect()
    }

    /// Another number whenever [`Self::all`] is another.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Every place of every peer.
    pub(crate) fn all(&self) -> BTreeSet<(SocketAddr, Vni)> {
        self.peer_by_target.keys().copied().collect()
    }

    /// Who is behind a place.
    pub(crate) fn peer_at(&self, source: SocketAddr, vni: Vni) -> Option<NodePublic> {
        self.peer_by_target.get(&(source, vni)).copied()
    }

    /// Whether we talk to the relay with this key.
    pub(crate) fn knows(&self, server: &DiscoPublic) -> bool {
        let mut numbers = self.peer_by_number.range((*server, Vni::from_be_bytes([0; 3]))..);
        numbers.next().is_some_and(|((known, _), _)| known == server)
    }

    /// Every relay key we talk to.
    pub(crate) fn keys(&self) -> BTreeSet<DiscoPublic> {
        self.peer_by_number.keys().map(|(server, _)| *server).collect()
    }

    /// The peer is gone, or has another DISCO key, which is another pair.
    pub(crate) fn forget(&mut self, peer: &NodePublic) {
        let servers: Vec<DiscoPublic> =
            self.searches.get(peer).into_iter().flat_map(|search| search.places.keys().copied()).collect();
        for server in servers {
            self.forget_place(*peer, server);
        }
        let adopted = self.searches.remove(peer).into_iter().flat_map(|search| search.adopted);
        for target in adopted {
            self.unlist(target);
        }
    }

    fn list(&mut self, target: (SocketAddr, Vni), peer: NodePublic) {
        self.revision += u64::from(self.peer_by_target.insert(target, peer).is_none());
    }

    fn unlist(&mut self, target: (SocketAddr, Vni)) {
        self.revision += u64::from(self.peer_by_target.remove(&target).is_some());
    }

    fn forget_place(&mut self, peer: NodePublic, server: DiscoPublic) {
        let Some(place) = self.searches.get_mut(&peer).and_then(|search| search.places.remove(&server))
        else {
            return;
        };
        self.peer_by_number.remove(&(server, place.vni));
        if let Some(remote) = place.remote {
            self.unlist((remote, place.vni));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tag: u8) -> NodePublic {
        NodePublic::from_bytes([tag; 32])
    }

    fn disco(tag: u8) -> DiscoPublic {
        DiscoPublic::from_bytes([tag; 32])
    }

    fn endpoint(server: u8, vni: u32, lamport_id: u64) -> RelayEndpoint {
        RelayEndpoint {
            server: disco(server),
            clients: [disco(1), disco(2)],
            lamport_id,
            vni,
            bind_lifetime: Duration::from_secs(30),
            steady_state_lifetime: Duration::from_secs(300),
            addresses: vec!["198.51.100.1:7".parse().unwrap(), "[2001:db8::1]:7".parse().unwrap()],
        }
    }

    /// One relay, `key(9)` with `disco(9)`; the peer is `key(2)`.
    struct Fixture {
        relays: Relays,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let mut relays = Relays::new(41);
            relays.set_servers([key(9), key(2)].into());
            Self { relays, now: Instant::now() }
        }

        fn poll(&mut self) -> Vec<Step> {
            self.relays.poll(key(2), disco(2), self.now)
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        fn learn(&mut self, endpoint: RelayEndpoint, works: bool) {
            self.relays.learn(key(2), endpoint, |_| works, self.now);
        }

        /// The challenge to the first of these steps, and what follows.
        fn challenge(&mut self, steps: &[Step]) -> Vec<Step> {
            let Some(Step::Bind(server, (from, Some(vni)), bind)) = steps.first().cloned() else {
                panic!("{steps:?}")
            };
            let bind = Bind { challenge: [7; 32], ..bind };
            assert_eq!(self.relays.handle_challenge(server, (from, vni), &bind, self.now), Some(key(2)));
            assert_eq!(
                self.relays.handle_challenge(server, (from, vni), &bind, self.now),
                None,
                "the first counts"
            );
            self.poll()
        }

        fn bound(&mut self, endpoint: RelayEndpoint) -> (SocketAddr, Vni) {
            self.learn(endpoint, false);
            let steps = self.poll();
            self.challenge(&steps);
            let target = *self.relays.targets(&key(2)).last().unwrap();
            self.relays.note_heard(target.0, target.1, self.now);
            assert_eq!(self.poll(), [Step::Ping((target.0, Some(target.1)))]);
            target
        }
    }

    #[test]
    fn relays_are_asked_twice_and_the_peer_itself_is_not() {
        let mut f = Fixture::new();
        assert!(f.relays.wants_search(&key(2), false, f.now));
        f.relays.search(key(2), f.now);
        let [Step::Allocate(server, generation)] = f.poll()[..] else { panic!() };
        assert_eq!(server, key(9));
        assert_eq!(f.poll(), []);
        f.pass(3000);
        assert_eq!(f.poll(), [Step::Allocate(key(9), generation)]);
        assert_eq!(f.relays.next(&key(2)), Some(f.now + Duration::from_secs(7)));
        assert_eq!(f.relays.handle_allocated(key(9), generation + 1, f.now), None);
        assert_eq!(f.relays.handle_allocated(key(8), generation, f.now), None);
        assert_eq!(f.relays.handle_allocated(key(9), generation, f.now), Some(key(2)));
        assert_eq!(f.relays.handle_allocated(key(9), generation, f.now), None);
        assert!(!f.relays.wants_search(&key(2), false, f.now));
        f.pass(27_000);
        assert!(f.relays.wants_search(&key(2), false, f.now) && !f.relays.wants_search(&key(2), true, f.now));
        f.relays.set_servers([key(2)].into());
        assert!(!f.relays.wants_search(&key(2), false, f.now));
    }

    #[test]
    fn a_place_is_bound_in_three_steps_that_are_repeated_until_the_peer_is_heard() {
        let mut f = Fixture::new();
        f.learn(endpoint(9, 5, 1), false);
        let binds = f.poll();
        assert_eq!(binds.len(), 2, "all addresses at once");
        f.pass(250);
        assert_eq!(f.poll(), binds, "the same handshake again");
        let steps = f.challenge(&binds);
        let [Step::Answer(server, target, bind), Step::Ping(pinged)] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!(
            (*server, *target, target),
            (disco(9), ("198.51.100.1:7".parse().unwrap(), Vni::new(5)), pinged)
        );
        assert_eq!((bind.challenge, bind.remote), ([7; 32], disco(2)));
        assert_eq!(f.relays.targets(&key(2)).len(), 1);
        f.pass(250);
        assert_eq!(f.poll(), steps);
        f.relays.note_heard(target.0, target.1.unwrap(), f.now);
        assert_eq!(f.poll(), [Step::Ping(*target)]);
        f.relays.note_heard(target.0, target.1.unwrap(), f.now);
        f.pass(60_000);
        assert_eq!(f.poll(), []);
        assert_eq!(f.relays.peer_at(target.0, target.1.unwrap()), Some(key(2)));
        f.pass(240_000);
        f.poll();
        assert_eq!(
            (f.relays.targets(&key(2)), f.relays.peer_at(target.0, target.1.unwrap())),
            (vec![], None)
        );
        assert!(!f.relays.knows(&disco(9)));
    }

    #[test]
    fn an_unanswered_handshake_is_given_up() {
        let mut f = Fixture::new();
        f.learn(endpoint(9, 5, 1), false);
        let mut sent = 0;
        while let Some(at) = f.relays.next(&key(2)) {
            f.now = at;
            sent += f.poll().len();
        }
        assert!((10..40).contains(&sent), "{sent}");
        assert!(!f.relays.knows(&disco(9)));
    }

    #[test]
    fn strange_challenges_are_not_answered() {
        let mut f = Fixture::new();
        f.learn(endpoint(9, 5, 1), false);
        let Some(Step::Bind(_, (from, _), bind)) = f.poll().first().cloned() else { panic!() };
        let vni = |number| Vni::new(number).unwrap();
        let mut refused = |server, number, bind: &Bind| {
            assert_eq!(f.relays.handle_challenge(disco(server), (from, vni(number)), bind, f.now), None);
        };
        refused(8, 5, &bind);
        refused(9, 6, &bind);
        refused(9, 5, &Bind { vni: 6, ..bind.clone() });
        refused(9, 5, &Bind { generation: bind.generation + 1, ..bind.clone() });
    }

    #[test]
    fn newer_places_replace_older_ones_and_what_works_is_left_alone() {
        let mut f = Fixture::new();
        let old = f.bound(endpoint(9, 5, 7));
        f.learn(endpoint(9, 4, 6), false);
        f.learn(endpoint(9, 5, 7), true);
        assert_eq!((f.poll(), f.relays.targets(&key(2))), (vec![], vec![old]));
        // The same place again, but it does not work any more.
        f.learn(endpoint(9, 5, 7), false);
        assert_eq!((f.poll().len(), f.relays.targets(&key(2))), (2, vec![old]), "still a candidate");
        f.learn(endpoint(9, 6, 8), true);
        assert_eq!((f.poll().len(), f.relays.targets(&key(2))), (2, vec![]));
        f.bound(endpoint(8, 5, 1));
        assert_eq!(f.relays.targets(&key(2)).len(), 1);
        f.relays.forget(&key(2));
        assert_eq!((f.relays.keys().len(), f.relays.peer_by_target.len()), (0, 0));
    }

    #[test]
    fn a_lost_place_is_bound_again_at_once_and_the_other_relays_are_asked() {
        let mut f = Fixture::new();
        f.relays.search(key(2), f.now);
        f.poll();
        let (remote, vni) = f.bound(endpoint(9, 5, 7));
        f.pass(1000);
        f.poll();
        f.relays.bind_again(key(2), (remote, Some(vni)), f.now);
        assert!(f.poll().iter().all(|step| matches!(step, Step::Bind(..))));
        assert!(f.relays.wants_search(&key(2), false, f.now));
        f.relays.bind_again(key(2), (remote, Some(vni)), f.now);
        assert_eq!(f.poll(), [], "it is under way");
    }

    #[test]
    fn a_peer_cannot_make_us_try_without_end() {
        let mut f = Fixture::new();
        for server in 0..100 {
            let mut endpoint = endpoint(server, 5, 1);
            endpoint.addresses = vec![endpoint.addresses[0]; 1000];
            f.learn(endpoint, false);
        }
        assert_eq!(f.poll().len(), MOST_PLACES * MOST_ADDRESSES);
        f.learn(endpoint(200, 0, 1), false);
        assert!(!f.relays.knows(&disco(200)));
    }
}
