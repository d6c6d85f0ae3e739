//! Telling the programs what they relay, and asking what became of it.
//!
//! The maps are pinned: bound sessions go on without this process, and the next one finds them. A session's entry is
//! replaced as a whole and never shares its place in `RELAY_USE` with a session that ended a moment ago, so no packet meets
//! half of one session and half of another.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use abi::{Family, MAX_RELAY_SESSIONS, RelayEnd, RelaySession, RelayUses};

use aya::maps::IterableMap as _;

use crate::maps::{Maps, address, gone_is_fine, ip_address};
use crate::{Error, Programs, batch};

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

/// Which sessions are in the kernel, and which places in `RELAY_USE` are free, the longest free first.
pub(crate) struct RelayTable {
    sessions: BTreeMap<u32, RelaySession>,
    free: VecDeque<u32>,
}

impl RelayTable {
    /// As the maps have it: what an earlier process left.
    pub(crate) fn read(maps: &Maps) -> Result<Self, Error> {
        let sessions: BTreeMap<u32, RelaySession> =
            maps.relay_sessions.iter().collect::<Result<_, _>>().map_err(Error::map("RELAY_SESSIONS"))?;
        let mut taken: Vec<u32> = sessions.values().map(|session| session.slot).collect();
        taken.sort_unstable();
        let free = (0..MAX_RELAY_SESSIONS).filter(|slot| taken.binary_search(slot).is_err()).collect();
        Ok(Self { sessions, free })
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
    /// When there is no place for another session, or a map refuses; what was there before stays.
    pub fn add_relay_session(&mut self, vni: u32, legs: [RelayLeg; 2]) -> Result<(), Error> {
        let slot = self.relay.free.pop_front().ok_or(Error::TooManySessions { limit: MAX_RELAY_SESSIONS })?;
        let written = self.write_session(vni, legs, slot);
        match &written {
            // A place that is free again waits its turn behind all others: no packet in flight still writes to it then.
            Ok(before) => self.relay.free.extend(before),
            Err(_) => self.relay.free.push_front(slot),
        }
        written.map(drop)
    }

    /// Ends a session; fine if there is none. Packets of its VNI are dropped then.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn remove_relay_session(&mut self, vni: u32) -> Result<(), Error> {
        gone_is_fine(self.maps.relay_sessions.remove(&vni)).map_err(Error::map("RELAY_SESSIONS"))?;
        if let Some(session) = self.relay.sessions.remove(&vni) {
            self.relay.free.push_back(session.slot);
        }
        Ok(())
    }

    /// Every session and what was forwarded, by VNI. All counters are read by one call.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn relay_sessions(&self) -> Result<Vec<RelayedSession>, Error> {
        let Some(last) = self.relay.sessions.values().map(|session| session.slot).max() else {
            return Ok(Vec::new());
        };
        let uses = batch::read_array::<RelayUses>(self.maps.relay_use.map().fd(), last + 1)
            .map_err(|error| Error::Map { map: "RELAY_USE", cause: aya::maps::MapError::IoError(error) })?;
        let now = crate::clock::since_boot()
            .map_err(|error| Error::Map { map: "RELAY_USE", cause: aya::maps::MapError::IoError(error) })?;
        let sessions = self.relay.sessions.iter().map(|(vni, session)| RelayedSession {
            vni: *vni,
            legs: session.ends.map(|end| leg(&end)),
            traffic: uses.get(session.slot as usize).copied().unwrap_or_default().ends.map(|used| {
                let seen = (used.seen != 0).then(|| Duration::from_nanos(used.seen));
                let silent = seen.map(|seen| now.saturating_sub(seen));
                RelayTraffic { packets: used.packets, bytes: used.bytes, silent }
            }),
        });
        Ok(sessions.collect())
    }

    /// Writes a session into a free place and has the VNI lead there; says which place is free for it.
    fn write_session(&mut self, vni: u32, legs: [RelayLeg; 2], slot: u32) -> Result<Option<u32>, Error> {
        let mut ends = legs.map(|leg| end(&leg));
        packet::link_ends(&mut ends);
        let before = self.relay.sessions.get(&vni).map(|session| session.slot);
        // Counters go on; the next hops, which may be others now, do not.
        let mut used = RelayUses::default();
        if let Some(before) = before {
            used = self.maps.relay_use.get(&before, 0).map_err(Error::map("RELAY_USE"))?;
            used.ends.iter_mut().for_each(|used| used.hop = abi::Hop::default());
        }
        self.maps.relay_use.set(slot, used, 0).map_err(Error::map("RELAY_USE"))?;
        let session = RelaySession { ends, slot, zero: 0 };
        self.maps.relay_sessions.insert(vni, session, 0).map_err(Error::map("RELAY_SESSIONS"))?;
        self.relay.sessions.insert(vni, session);
        Ok(before)
    }
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
