//! Sessions and mappings: who gets a place, which port, and for how long.
//!
//! A session begins when the filter lets a new flow in ([`enter`]), is open once the stack has forwarded its first packet
//! ([`open`]), and is over when nothing was seen of it for its protocol's time. Nothing sweeps: what is over gives its
//! place and its port to the next who asks, so nothing alive is ever evicted, and no controller is needed. Tables that
//! programs fill by packets are bounded by the places.

use abi::{
    Address, Counter, Edge, FILTER_ADDRESS, FILTER_NONE, Family, Gateway, ICMP_IDLE_NS, InnerKey,
    NEW_IDLE_NS, OuterKey, Owner, Place, SESSION_TOUCH_NS, STAGE_FREE, STAGE_NEW, STAGE_OPEN, Session,
    SessionKey, TCP_IDLE_NS, TCP_TRANSITORY_NS, UDP_IDLE_NS,
};

use super::port::{self, candidate};
use super::tcp::{Way, advance, is_established};
use super::tuple::Tuple;
use crate::proto;

/// Places tried for a new session: first of the peer's region, then of those for all.
const OWN_TRIES: u32 = 8;
const TRIES: u32 = 16;

/// What the functions here keep their state in: the kernel's maps, or a model's.
pub trait Tables {
    /// An entry of `SESSIONS`.
    fn session(&mut self, key: &SessionKey) -> Option<Session>;
    /// Adds or replaces one; false when there is no room.
    fn set_session(&mut self, key: &SessionKey, session: &Session) -> bool;
    /// Removes one.
    fn remove_session(&mut self, key: &SessionKey);
    /// A place.
    fn place(&mut self, index: u32) -> Option<&mut Place>;
    /// The next place of the region of this peer's address, or of those for all; each call gives another.
    fn next_place(&mut self, family: Family, peer: Option<&Address>) -> u32;
    /// An entry of `MAPPINGS`.
    fn mapping(&mut self, inner: &InnerKey) -> Option<[u8; 2]>;
    /// Adds or replaces one.
    fn set_mapping(&mut self, inner: &InnerKey, port: [u8; 2]) -> bool;
    /// Removes one.
    fn remove_mapping(&mut self, inner: &InnerKey);
    /// An entry of `OWNERS`.
    fn owner(&mut self, outer: &OuterKey) -> Option<&mut Owner>;
    /// Adds one; false where there is one already.
    fn add_owner(&mut self, outer: &OuterKey, owner: &Owner) -> bool;
    /// Swaps `until` from `old` to `new` atomically; false if somebody else was faster.
    fn claim(&mut self, outer: &OuterKey, old: u64, new: u64) -> bool;
    /// Whether a socket of this machine has the port (CVE-2021-3773).
    fn is_local(&mut self, outer: &OuterKey, session: &SessionKey) -> bool;

    /// [`occupy`]; a program calls it as a function of its own, which the verifier looks at once.
    #[inline(always)]
    fn occupy(&mut self, work: &mut Work, index: u32, now: u64, generation: u32) -> bool
    where
        Self: Sized,
    {
        occupy(self, work, index, now, generation)
    }

    /// [`take`], likewise.
    #[inline(always)]
    fn take(&mut self, work: &mut Work, now: u64) -> bool
    where
        Self: Sized,
    {
        take(self, work, now)
    }
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Every place that this peer may have is in use.
    NoPlace,
    /// No outer port was found.
    NoPort,
    /// The receiver has not sent to the sender.
    NotAsked,
}

/// Room for keys and values while a session is made: a program's stack has none for them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Work {
    /// The session's key at the tunnel's edge.
    pub key: SessionKey,
    /// What was found or made.
    pub session: Session,
    /// What to hide the session behind; the port is found.
    pub outer: OuterKey,
    owner: Owner,
    answers: SessionKey,
    other: SessionKey,
    inner: InnerKey,
    before: InnerKey,
    back: Session,
    wanted: Session,
}

/// The session that a packet belongs to, if it is alive.
#[inline(always)]
pub fn find(tables: &mut impl Tables, key: &SessionKey, now: u64) -> Option<Session> {
    let session = tables.session(key)?;
    let place = tables.place(session.place)?;
    let is_its = if key.edge == Edge::Tunnel as u8 {
        place.key == *key
    } else {
        place.key.source == session.address
            && place.key.destination == key.source
            && place.key.source_port == session.port
            && place.key.destination_port == key.source_port
            && place.key.protocol == key.protocol
            && place.key.family == key.family
    };
    (is_its && place.stage != STAGE_FREE && !is_over(place, now)).then_some(session)
}

/// Remembers the flow `work.key`, which the filter lets out of the tunnel, and which filter did; `work.session` is its
/// session then.
#[inline(always)]
pub fn enter(tables: &mut impl Tables, work: &mut Work, now: u64, generation: u32) -> Result<(), Refusal> {
    if let Some(session) = find(tables, &work.key, now) {
        if let Some(place) = tables.place(session.place) {
            place.generation = generation;
        }
        work.session = session;
        return Ok(());
    }
    if reserve(tables, work, now, generation) { Ok(()) } else { Err(Refusal::NoPlace) }
}

/// A place for `work.key`, taken from a session that is over; `work.session` is the new one.
#[inline(always)]
fn reserve(tables: &mut impl Tables, work: &mut Work, now: u64, generation: u32) -> bool {
    let family = family(&work.key);
    for turn in 0..TRIES {
        let index = tables.next_place(family, (turn < OWN_TRIES).then_some(&work.key.source));
        if tables.occupy(work, index, now, generation) {
            return true;
        }
    }
    false
}

/// Gives `work.key` this place if the session there is over.
#[inline(always)]
pub fn occupy(tables: &mut impl Tables, work: &mut Work, index: u32, now: u64, generation: u32) -> bool {
    let Some(place) = tables.place(index) else { return false };
    if place.stage != STAGE_FREE && !is_over(place, now) {
        return false;
    }
    work.other = place.key;
    forget(tables, work, index);
    let Some(place) = tables.place(index) else { return false };
    place.key = work.key;
    place.seen = now;
    place.generation = generation;
    (place.stage, place.tcp, place.zero) = (STAGE_NEW, 0, 0);
    (place.sent, place.received) = (Counter::default(), Counter::default());
    work.session = plain(&work.key, index);
    // What is left of the same flow has no place any more.
    tables.set_session(&work.key, &work.session)
}

/// A session that changes nothing.
#[inline(always)]
const fn plain(key: &SessionKey, place: u32) -> Session {
    Session { address: key.source, port: key.source_port, zero: 0, place }
}

/// Removes what leads to a place that is over, whose key is in `work.other`.
#[inline(always)]
fn forget(tables: &mut impl Tables, work: &mut Work, index: u32) {
    let Some(session) = tables.session(&work.other) else { return };
    if session.place != index {
        return;
    }
    set_lan_key(&mut work.answers, &work.other, &session);
    remove_of(tables, &work.answers, index);
    set_contact_key(&mut work.answers);
    remove_of(tables, &work.answers, index);
    tables.remove_session(&work.other);
}

#[inline(always)]
fn remove_of(tables: &mut impl Tables, key: &SessionKey, index: u32) {
    if tables.session(key).is_some_and(|session| session.place == index) {
        tables.remove_session(key);
    }
}

/// Opens `work.session`, whose packet the stack has forwarded: hidden behind `work.outer`'s address, or as it is.
#[inline(always)]
pub fn open(
    tables: &mut impl Tables,
    work: &mut Work,
    hide: bool,
    gateway: &Gateway,
    now: u64,
) -> Result<(), Refusal> {
    let index = work.session.place;
    work.back = plain(&work.key, index);
    work.wanted = work.back;
    if hide {
        if !map(tables, work, gateway, now) {
            return Err(Refusal::NoPort);
        }
        work.wanted.address = work.outer.address;
        work.wanted.port = work.outer.port;
    }
    if work.wanted != work.session {
        // It may have left by another address before.
        set_lan_key(&mut work.answers, &work.key, &work.session);
        remove_of(tables, &work.answers, index);
        if !tables.set_session(&work.key, &work.wanted) {
            return Err(Refusal::NoPlace);
        }
        work.session = work.wanted;
    }
    set_lan_key(&mut work.answers, &work.key, &work.session);
    if !tables.set_session(&work.answers, &work.back) {
        return Err(Refusal::NoPlace);
    }
    if gateway.filtering == FILTER_ADDRESS && hide {
        set_contact_key(&mut work.answers);
        tables.set_session(&work.answers, &work.back);
    }
    if let Some(place) = tables.place(index) {
        place.stage = STAGE_OPEN;
    }
    Ok(())
}

/// Lets the flow `key` in that begins outside, at an outer endpoint that is somebody's, if the filtering allows it (RFC
/// 4787 section 5). `None`: nobody's endpoint. The answer is what its packets become.
#[inline(always)]
pub fn admit(
    tables: &mut impl Tables,
    work: &mut Work,
    key: &SessionKey,
    gateway: &Gateway,
    generation: u32,
    now: u64,
) -> Option<Result<Session, Refusal>> {
    work.outer = OuterKey {
        address: key.destination,
        port: key.destination_port,
        protocol: key.protocol,
        family: key.family,
    };
    work.owner = *tables.owner(&work.outer)?;
    if is_anybodys(tables, &work.owner, now) {
        return None;
    }
    if !is_allowed(tables, work, key, gateway, now) {
        return Some(Err(Refusal::NotAsked));
    }
    let back = Session { address: work.owner.address, port: work.owner.port, zero: 0, place: 0 };
    set_tunnel_key(&mut work.key, key, &back);
    if !reserve(tables, work, now, generation) {
        return Some(Err(Refusal::NoPlace));
    }
    let opened = open(tables, work, true, gateway, now);
    Some(opened.map(|()| Session { place: work.session.place, ..back }))
}

#[inline(always)]
fn is_allowed(
    tables: &mut impl Tables,
    work: &mut Work,
    key: &SessionKey,
    gateway: &Gateway,
    now: u64,
) -> bool {
    match gateway.filtering {
        FILTER_NONE => true,
        FILTER_ADDRESS => {
            work.answers = *key;
            set_contact_key(&mut work.answers);
            let Some(contact) = tables.session(&work.answers) else { return false };
            let place = tables.place(contact.place);
            place.is_some_and(|place| place.key.destination == key.source && !is_over(place, now))
        }
        _ => false,
    }
}

/// Notes a packet of an open session.
#[inline(always)]
pub fn touch(tables: &mut impl Tables, tuple: &Tuple, session: &Session, way: Way, bytes: u32, now: u64) {
    let Some(place) = tables.place(session.place) else { return };
    let counter = match way {
        Way::Out => &mut place.sent,
        Way::In => &mut place.received,
    };
    counter.packets += 1;
    counter.bytes += u64::from(bytes);
    let before = place.tcp;
    if tuple.key.protocol == proto::TCP {
        let tcp = advance(before, tuple.flags, way);
        if tcp != before {
            place.tcp = tcp;
        }
    }
    if now.saturating_sub(place.seen) <= SESSION_TOUCH_NS && place.tcp == before {
        return;
    }
    place.seen = now;
    let key = &tuple.key;
    let ((address, port), inner) = match way {
        Way::Out => ((session.address, session.port), (key.source, key.source_port)),
        Way::In => ((key.destination, key.destination_port), (session.address, session.port)),
    };
    if inner == (address, port) {
        return;
    }
    let outer = OuterKey { address, port, protocol: key.protocol, family: key.family };
    if let Some(owner) = tables.owner(&outer)
        && (owner.address, owner.port) == inner
    {
        owner.until = now + hold(key.protocol);
    }
}

/// The outer port of `work.key`'s sender, into `work.outer`: the same whomever it speaks to, the one it has or a new one.
#[inline(always)]
fn map(tables: &mut impl Tables, work: &mut Work, gateway: &Gateway, now: u64) -> bool {
    let key = &work.key;
    let (protocol, family, port) = (key.protocol, key.family, key.source_port);
    work.inner = InnerKey { address: key.source, outer: work.outer.address, port, protocol, family };
    (work.outer.protocol, work.outer.family) = (protocol, family);
    let until = now + hold(protocol);
    if let Some(known) = tables.mapping(&work.inner) {
        work.outer.port = known;
        if let Some(owner) = tables.owner(&work.outer)
            && owner.address == work.key.source
            && owner.port == port
        {
            owner.until = until;
            owner.place = work.session.place;
            return true;
        }
    }
    let salt = work.key.source[0] ^ work.key.source[3] ^ u32::from_ne_bytes([0, protocol, port[0], port[1]]);
    for turn in 0..port::TRIES {
        let (wanted, first, last) = (u16::from_be_bytes(port), gateway.first_port, gateway.last_port);
        work.outer.port = candidate(wanted, first, last, salt, turn).to_be_bytes();
        if tables.take(work, now) {
            return tables.set_mapping(&work.inner, work.outer.port);
        }
    }
    false
}

/// Takes the outer endpoint `work.outer` if it is nobody's or its owner is gone.
#[inline(always)]
pub fn take(tables: &mut impl Tables, work: &mut Work, now: u64) -> bool {
    let until = now + hold(work.key.protocol);
    let is_known = match tables.owner(&work.outer) {
        Some(owner) => {
            work.owner = *owner;
            true
        }
        None => false,
    };
    if is_known && !is_anybodys(tables, &work.owner, now) {
        return false;
    }
    if tables.is_local(&work.outer, &work.key) {
        return false;
    }
    let (address, port, place) = (work.key.source, work.key.source_port, work.session.place);
    if !is_known {
        work.owner = Owner { until, address, port, zero: 0, place };
        return tables.add_owner(&work.outer, &work.owner);
    }
    if !tables.claim(&work.outer, work.owner.until, until) {
        return false;
    }
    work.before = InnerKey { address: work.owner.address, port: work.owner.port, ..work.inner };
    if tables.mapping(&work.before) == Some(work.outer.port) {
        tables.remove_mapping(&work.before);
    }
    let Some(owner) = tables.owner(&work.outer) else { return false };
    (owner.address, owner.port, owner.place) = (address, port, place);
    true
}

/// Whether an outer endpoint's owner has no use for it any more.
#[inline(always)]
fn is_anybodys(tables: &mut impl Tables, owner: &Owner, now: u64) -> bool {
    if owner.until > now {
        return false;
    }
    match tables.place(owner.place) {
        Some(place) => {
            let is_its = place.key.source == owner.address && place.key.source_port == owner.port;
            !is_its || place.stage == STAGE_FREE || is_over(place, now)
        }
        None => true,
    }
}

/// Whether nothing was seen of a session for as long as its protocol gives it.
#[inline(always)]
pub fn is_over(place: &Place, now: u64) -> bool {
    let limit = match (place.stage, place.key.protocol) {
        (STAGE_FREE, _) => 0,
        (STAGE_NEW, _) => NEW_IDLE_NS,
        (_, proto::TCP) if is_established(place.tcp) => TCP_IDLE_NS,
        (_, proto::TCP) => TCP_TRANSITORY_NS,
        (_, proto::UDP) => UDP_IDLE_NS,
        _ => ICMP_IDLE_NS,
    };
    now.saturating_sub(place.seen) >= limit
}

/// How long an endpoint stays its owner's after a packet, whatever becomes of the session.
#[inline(always)]
const fn hold(protocol: u8) -> u64 {
    match protocol {
        proto::TCP => TCP_TRANSITORY_NS,
        proto::UDP => UDP_IDLE_NS,
        _ => ICMP_IDLE_NS,
    }
}

/// Makes a key at the LAN's edge say "this outer endpoint has sent to this address", whatever the port.
#[inline(always)]
fn set_contact_key(answers: &mut SessionKey) {
    answers.source_port = [0; 2];
    answers.edge = Edge::Contact as u8;
}

/// [`super::tuple::tunnel_key`], in place.
#[inline(always)]
fn set_tunnel_key(inside: &mut SessionKey, key: &SessionKey, back: &Session) {
    inside.source = back.address;
    inside.destination = key.source;
    inside.source_port = back.port;
    inside.destination_port = key.source_port;
    inside.protocol = key.protocol;
    inside.family = key.family;
    inside.edge = Edge::Tunnel as u8;
    inside.zero = 0;
}

/// [`super::tuple::lan_key`], in place.
#[inline(always)]
fn set_lan_key(answers: &mut SessionKey, key: &SessionKey, session: &Session) {
    answers.source = key.destination;
    answers.destination = session.address;
    answers.source_port = key.destination_port;
    answers.destination_port = session.port;
    answers.protocol = key.protocol;
    answers.family = key.family;
    answers.edge = Edge::Lan as u8;
    answers.zero = 0;
}

#[inline(always)]
const fn family(key: &SessionKey) -> Family {
    if key.family == Family::V4 as u8 { Family::V4 } else { Family::V6 }
}
