//! Telling the programs what they relay, and asking what became of it.
//!
//! The maps are pinned: bound sessions go on without this process, and the next one finds them. A session is where its VNI
//! says, so sessions that are at the same place exclude each other; who allocates VNIs sees to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use abi::{Family, MAX_RELAY_SESSIONS, RelayEnd, RelaySession, RelayUses};

use aya::Pod;
use aya::maps::{Array, IterableMap as _, MapData, MapError};

use crate::maps::{Maps, address, ip_address};
use crate::{Error, Programs, batch, clock};

/// One client of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayLeg {
    /// Where it sends from, by which its packets are known.
    pub remote: SocketAddr,
    /// Our address that it sends to, from which it gets its packets.
    pub local: IpAddr,
}

/// What the kernel forwarded for one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayTraffic {
    /// Packets that it sent and that were sent on, since the session's VNI is known to the kernel.
    pub packets: u64,
    /// Their UDP payload with the relay's header.
    pub bytes: u64,
    /// How long ago the last of them came; `None`: there was none.
    pub silent: Option<Duration>,
}

/// A session in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayedSession {
    /// Its name on the wire.
    pub vni: u32,
    /// Its clients, in the order in which they were given.
    pub legs: [RelayLeg; 2],
    /// What each has sent.
    pub traffic: [RelayTraffic; 2],
}

/// Which sessions are in the kernel.
pub(crate) struct RelayTable {
    /// By place.
    sessions: BTreeMap<u32, RelaySession>,
    /// The next session's number: one that no entry in the maps has, or had when this process began.
    number: u32,
}

impl RelayTable {
    /// As new maps have it, which are large: reading them takes ten milliseconds.
    pub(crate) fn empty() -> Self {
        Self { sessions: BTreeMap::new(), number: 1 }
    }

    /// As the maps have it: what an earlier process left.
    pub(crate) fn read(maps: &Maps) -> Result<Self, Error> {
        let known = read_all(&maps.relay_sessions, MAX_RELAY_SESSIONS, "RELAY_SESSIONS")?;
        let sessions: BTreeMap<u32, RelaySession> =
            (0..).zip(known).filter(|(_, session)| session.stamp != 0).collect();
        let uses: Vec<RelayUses> = read_all(&maps.relay_use, MAX_RELAY_SESSIONS, "RELAY_USE")?;
        let numbers = sessions.values().map(|session| RelaySession::number(session.stamp));
        let used = uses.iter().flat_map(|uses| uses.ends.map(|used| used.hop.number));
        let last = numbers.chain(used).max().unwrap_or(0);
        Ok(Self { sessions, number: last.checked_add(1).unwrap_or(1) })
    }

    fn next_number(&mut self) -> u32 {
        let number = self.number;
        self.number = number.checked_add(1).unwrap_or(1);
        number
    }
}

impl Programs {
    /// Has the programs relay on this UDP port; zero: they do not. Sessions stay.
    ///
    /// Turns on the forwarding switch of `lo`, which the programs' question for the next hop of a packet of our own needs,
    /// and which forwards nothing. Where it cannot be turned on, only devices that forward are asked, and behind the others
    /// the socket relays.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn set_relay_port(&mut self, port: u16) -> Result<(), Error> {
        if port != 0 {
            for switch in ["net.ipv4.conf.lo.forwarding", "net.ipv6.conf.lo.forwarding"] {
                if let Err(error) = netlink::sysctl::write(switch, "1") {
                    tracing::debug!(%error, "no next hops in the kernel where the machine does not forward");
                }
            }
        }
        self.maps.configure(|config| config.relay_port = port.to_be_bytes())
    }

    /// Has packets of this VNI go between the two, from now on. Replaces what the VNI meant before, and goes on counting.
    ///
    /// # Errors
    /// When another session is at the place of this one, or a map refuses.
    pub fn add_relay_session(&mut self, vni: u32, legs: [RelayLeg; 2]) -> Result<(), Error> {
        let mut ends = legs.map(|leg| end(&leg));
        packet::link_ends(&mut ends);
        self.put_relay_session(vni, ends)
    }

    fn put_relay_session(&mut self, vni: u32, ends: [RelayEnd; 2]) -> Result<(), Error> {
        let place = RelaySession::place(vni);
        let before = self.relay.sessions.get(&place).copied();
        if let Some(other) =
            before.map(|before| RelaySession::vni(before.stamp)).filter(|other| *other != vni)
        {
            return Err(Error::PlaceTaken { vni, other });
        }
        let stamp = RelaySession::stamp(vni, self.relay.next_number());
        let session = RelaySession { stamp, ends, ..RelaySession::default() };
        if let Some(before) = before {
            self.write_session(place, RelaySession { stamp: 0, ..before })?;
        } else {
            self.maps.relay_use.set(place, RelayUses::default(), 0).map_err(Error::map("RELAY_USE"))?;
        }
        self.write_session(place, RelaySession { stamp: 0, ..session })?;
        self.write_session(place, session)?;
        self.relay.sessions.insert(place, session);
        Ok(())
    }

    /// Has packets of this VNI reach the relay's socket, from now on: its session waits for its clients.
    ///
    /// # Errors
    /// As [`Self::add_relay_session`].
    pub fn add_waiting_relay_session(&mut self, vni: u32) -> Result<(), Error> {
        self.put_relay_session(vni, [RelayEnd::default(); 2])
    }

    /// The sessions that wait.
    pub fn waiting_relay_sessions(&self) -> Vec<u32> {
        let waiting = self.relay.sessions.values().filter(|session| waits(session));
        waiting.map(|session| RelaySession::vni(session.stamp)).collect()
    }

    /// Ends a session; fine if there is none. Packets of its VNI are dropped then.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn remove_relay_session(&mut self, vni: u32) -> Result<(), Error> {
        let place = RelaySession::place(vni);
        let Some(session) = self.relay.sessions.get(&place).copied() else { return Ok(()) };
        if RelaySession::vni(session.stamp) == vni {
            self.write_session(place, RelaySession { stamp: 0, ..session })?;
            self.relay.sessions.remove(&place);
        }
        Ok(())
    }

    /// Every bound session and what was forwarded. All counters are read by one call.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn relay_sessions(&self) -> Result<Vec<RelayedSession>, Error> {
        let Some(last) = self.relay.sessions.keys().next_back() else { return Ok(Vec::new()) };
        let uses: Vec<RelayUses> = read_all(&self.maps.relay_use, last + 1, "RELAY_USE")?;
        let now = clock::since_boot().map_err(unreadable("RELAY_USE"))?;
        let bound = self.relay.sessions.iter().filter(|(_, session)| !waits(session));
        let sessions = bound.map(|(place, session)| RelayedSession {
            vni: RelaySession::vni(session.stamp),
            legs: session.ends.map(|end| leg(&end)),
            traffic: uses.get(*place as usize).copied().unwrap_or_default().ends.map(|used| {
                let seen = (used.seen != 0).then(|| Duration::from_nanos(used.seen));
                let silent = seen.map(|seen| now.saturating_sub(seen));
                RelayTraffic { packets: used.packets, bytes: used.bytes, silent }
            }),
        });
        Ok(sessions.collect())
    }

    fn write_session(&mut self, place: u32, session: RelaySession) -> Result<(), Error> {
        self.maps.relay_sessions.set(place, session, 0).map_err(Error::map("RELAY_SESSIONS"))
    }
}

/// The first `count` values of an array.
fn read_all<T: Pod + Default>(
    array: &Array<MapData, T>,
    count: u32,
    name: &'static str,
) -> Result<Vec<T>, Error> {
    batch::read_array(array.map().fd(), count).map_err(unreadable(name))
}

fn unreadable(map: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::Map { map, cause: MapError::IoError(error) }
}

/// Whether its clients have not both bound.
fn waits(session: &RelaySession) -> bool {
    session.ends[0].family == 0
}

fn end(leg: &RelayLeg) -> RelayEnd {
    let (family, remote) = address(leg.remote.ip());
    let (_, local) = address(leg.local);
    let port = leg.remote.port().to_be_bytes();
    RelayEnd { address: remote, local, port, family: family as u8, ..RelayEnd::default() }
}

fn leg(end: &RelayEnd) -> RelayLeg {
    let family = if end.family == Family::V4 as u8 { Family::V4 } else { Family::V6 };
    let remote = SocketAddr::new(ip_address(family, end.address), u16::from_be_bytes(end.port));
    RelayLeg { remote, local: ip_address(family, end.local) }
}
