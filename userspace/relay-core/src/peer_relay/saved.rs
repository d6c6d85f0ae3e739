//! What a relay leaves to its successor, so that bound pairs do not notice a restart.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use types::{DiscoPrivate, DiscoPublic};
use wire::geneve::Vni;
use wire::nacl::SharedBox;

use super::session::{Client, Session};
use super::{Leg, PeerRelay, RelayConfig};

/// Numbers that may have been given out after the last save are not given out again.
const LAMPORT_GAP: u64 = 1 << 20;

/// Bound sessions and counters; the key is kept apart, for it is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The highest number given to a session.
    pub lamport_id: u64,
    /// The next VNI to try.
    pub next_vni: u32,
    /// Every bound session. The others start again, as clients do by themselves.
    pub sessions: Vec<SavedSession>,
}

/// One bound session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSession {
    /// Its VNI.
    pub vni: u32,
    /// Its number.
    pub lamport_id: u64,
    /// Its clients, sorted.
    pub clients: [DiscoPublic; 2],
    /// Where they are.
    pub legs: [Leg; 2],
}

impl PeerRelay {
    /// What a successor needs.
    pub fn save(&self) -> Saved {
        let save = |session: &Session| {
            Some(SavedSession {
                vni: session.vni.get(),
                lamport_id: session.lamport_id,
                clients: [session.clients[0].disco, session.clients[1].disco],
                legs: session.legs()?,
            })
        };
        let mut sessions: Vec<_> = self.sessions.values().filter_map(save).collect();
        sessions.sort_unstable_by_key(|session| session.vni);
        Saved { lamport_id: self.lamport_id, next_vni: self.next_vni, sessions }
    }

    /// The successor of the relay that had `key` and left `saved`. Its clients count as heard of just now.
    pub fn adopt(config: RelayConfig, key: DiscoPrivate, saved: Saved, now: Instant) -> Self {
        let mut relay = Self::new(config, key);
        relay.lamport_id = saved.lamport_id.saturating_add(LAMPORT_GAP);
        if (1..=Vni::MAX).contains(&saved.next_vni) {
            relay.next_vni = saved.next_vni;
        }
        for SavedSession { vni, lamport_id, clients, legs } in saved.sessions {
            let Some(vni) = Vni::new(vni).filter(|vni| vni.get() != 0) else { continue };
            let taken = relay.places.contains(&super::place(vni)) || relay.by_pair.contains_key(&clients);
            if taken || clients[0] >= clients[1] || relay.sessions.len() >= config.max_sessions {
                continue;
            }
            let client = |index: usize| {
                let shared = SharedBox::disco(&relay.key, &clients[index]);
                Client::new(clients[index], shared, Some(legs[index]), now)
            };
            let clients = [client(0), client(1)];
            let requester = clients[0].disco;
            let kept_until = now + config.bind_lifetime;
            relay.insert(Session { vni, lamport_id, requester, clients, kept_until }, now);
        }
        relay
    }
}
