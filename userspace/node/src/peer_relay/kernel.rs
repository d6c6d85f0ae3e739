//! The relay's part of the kernel: which sessions the programs forward, and on what.
//!
//! Belongs to the kernel's writer, and is what the programs' maps should hold: the relay may have bound pairs before there
//! are programs, and they are found with the sessions of an earlier run. Deliberately not here: the programs themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::{Program, Programs, RelayLeg, RelayedSession, StunService};
use relay_core::{Change, Leg};
use types::Vni;

/// STUN requests answered on the relay's port for one source.
pub(crate) const STUN_PER_SECOND: u32 = 10;
pub(crate) const STUN_BURST: u32 = 50;

/// What the programs should relay.
#[derive(Default)]
pub(crate) struct Relaying {
    /// Whether anybody said so: until then an earlier run's sessions stay.
    is_known: bool,
    /// Zero: nothing.
    port: u16,
    sessions: BTreeMap<Vni, [RelayLeg; 2]>,
    /// Sessions that are not bound yet.
    waiting: BTreeSet<Vni>,
    /// Our own addresses by device, and the devices frames may leave by.
    own: BTreeSet<(u32, IpAddr)>,
}

impl Relaying {
    /// A relay listens on `port` and knows `sessions`, or, with zero, there is none any more.
    pub(crate) fn set(&mut self, port: u16, sessions: impl Iterator<Item = (Vni, [Leg; 2])>) {
        (self.is_known, self.port) = (true, port);
        self.waiting.clear();
        self.sessions = sessions.filter_map(|(vni, legs)| Some((vni, both(legs)?))).collect();
    }

    /// The underlay's devices have these addresses.
    pub(crate) fn set_own(&mut self, own: BTreeSet<(u32, IpAddr)>) {
        self.own = own;
    }

    /// Whether there is a relay.
    pub(crate) fn is_on(&self) -> bool {
        self.port != 0
    }

    /// Makes the programs' maps this.
    ///
    /// # Errors
    /// When a map refuses.
    pub(crate) fn apply(&self, programs: &mut Programs) -> Result<(), dataplane::Error> {
        if !self.is_known {
            return Ok(());
        }
        let known = programs.relay_sessions()?;
        if !self.is_on() && known.is_empty() && programs.waiting_relay_sessions().is_empty() {
            return programs.set_relay_port(0);
        }
        for stale in known.iter().filter(|session| !self.is_wanted(session)) {
            programs.remove_relay_session(stale.vni)?;
        }
        for stale in programs.waiting_relay_sessions() {
            if !Vni::new(stale).is_some_and(|vni| self.waiting.contains(&vni)) {
                programs.remove_relay_session(stale)?;
            }
        }
        for vni in &self.waiting {
            programs.add_waiting_relay_session(vni.get())?;
        }
        for (vni, legs) in &self.sessions {
            if !known.iter().any(|session| session.vni == vni.get() && session.legs == *legs) {
                programs.add_relay_session(vni.get(), *legs)?;
            }
        }
        self.apply_own(programs)?;
        programs.set_stun(&StunService {
            per_second: STUN_PER_SECOND,
            burst: STUN_BURST,
            ..StunService::default()
        })?;
        programs.set_relay_port(self.port)
    }

    /// The part that the underlay decides on.
    ///
    /// # Errors
    /// When a map refuses.
    pub(crate) fn apply_own(&self, programs: &mut Programs) -> Result<(), dataplane::Error> {
        programs.set_own_addresses(&self.own)?;
        programs.set_outlets(&self.own.iter().map(|(device, _)| *device).collect())
    }

    /// One pair was bound or is gone.
    ///
    /// # Errors
    /// When there is no place or a map refuses: the relay's socket forwards then.
    pub(crate) fn follow(
        &mut self,
        change: Change,
        programs: Option<&mut Programs>,
    ) -> Result<(), dataplane::Error> {
        let (Change::Waiting(vni) | Change::Bound(vni, _) | Change::Gone(vni)) = change;
        self.waiting.remove(&vni);
        self.sessions.remove(&vni);
        let legs = if let Change::Bound(_, legs) = change { both(legs) } else { None };
        match (change, legs) {
            (_, Some(legs)) => {
                self.sessions.insert(vni, legs);
                programs.map_or(Ok(()), |programs| programs.add_relay_session(vni.get(), legs))
            }
            (Change::Gone(_), None) => {
                programs.map_or(Ok(()), |programs| programs.remove_relay_session(vni.get()))
            }
            // Also a pair whose way back is not known: its packets stay with the socket.
            (_, None) => {
                self.waiting.insert(vni);
                programs.map_or(Ok(()), |programs| programs.add_waiting_relay_session(vni.get()))
            }
        }
    }

    fn is_wanted(&self, session: &RelayedSession) -> bool {
        Vni::new(session.vni).and_then(|vni| self.sessions.get(&vni)) == Some(&session.legs)
    }
}

/// Which of the underlay's devices the programs relay on, ahead of the stack.
pub(crate) fn devices(programs: &Programs) -> BTreeSet<u32> {
    let attached = programs.attachments().unwrap_or_default();
    attached.iter().filter(|one| one.program == Program::Underlay).map(|one| one.ifindex).collect()
}

/// A pair with both of our addresses known: without them the kernel cannot answer from the right one.
fn both(legs: [Leg; 2]) -> Option<[RelayLeg; 2]> {
    let leg = |leg: Leg| Some(RelayLeg { remote: leg.remote, local: leg.local? });
    Some([leg(legs[0])?, leg(legs[1])?])
}
