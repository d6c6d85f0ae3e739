//! One session: a pair of clients, the addresses they have bound, and what each has sent.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use types::DiscoPublic;
use wire::disco::{Bind, Message};
use wire::geneve::Vni;
use wire::nacl::SharedBox;

use super::challenge::{Salt, Secrets};
use super::counters::{RelayDrop, Traffic};

/// Where a client is, and which of our addresses it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// The client's address as we see it, by which its packets are known.
    pub remote: SocketAddr,
    /// Our address that it sent to, from which it expects packets; `None` where the socket cannot tell.
    pub local: Option<IpAddr>,
}

/// One of the two clients.
pub(super) struct Client {
    pub(super) disco: DiscoPublic,
    shared: SharedBox,
    /// The handshake in progress: its number and salt. The client may send its first step by several ways at once.
    handshake: Option<(u32, Salt)>,
    pub(super) leg: Option<Leg>,
    pub(super) last_seen: Instant,
    /// What it has sent through us in userspace since it was bound.
    pub(super) forwarded: Traffic,
    /// And through the kernel.
    pub(super) kernel: Traffic,
}

impl Client {
    pub(super) fn new(disco: DiscoPublic, shared: SharedBox, leg: Option<Leg>, now: Instant) -> Self {
        Self {
            disco,
            shared,
            handshake: None,
            leg,
            last_seen: now,
            forwarded: Traffic::default(),
            kernel: Traffic::default(),
        }
    }
}

/// What a step of the handshake leads to.
pub(super) enum Step {
    /// A message for the client that took the step.
    Challenge(usize, Message),
    /// The client's address is bound, anew or for the first time.
    Bound,
}

/// A pair of clients on this relay.
pub(super) struct Session {
    pub(super) vni: Vni,
    pub(super) lamport_id: u64,
    /// Who asked for it.
    pub(super) requester: DiscoPublic,
    pub(super) clients: [Client; 2],
    /// It lives until then in any case: clients have been promised the time to bind.
    pub(super) kept_until: Instant,
}

impl Session {
    /// Both addresses, once both clients have bound.
    pub(super) fn legs(&self) -> Option<[Leg; 2]> {
        Some([self.clients[0].leg?, self.clients[1].leg?])
    }

    /// Whether it may be forgotten: not bound in time, or one of the two silent for too long.
    pub(super) fn expired(&self, steady_state: Duration, now: Instant) -> bool {
        let silent = |client: &Client| now.saturating_duration_since(client.last_seen) > steady_state;
        now > self.kept_until && (self.legs().is_none() || self.clients.iter().any(silent))
    }

    /// Where data from `source` goes: to the other client, and to nobody unless `source` is bound.
    pub(super) fn forward(
        &mut self,
        source: SocketAddr,
        bytes: usize,
        now: Instant,
    ) -> Result<Leg, RelayDrop> {
        let legs = self.legs().ok_or(RelayDrop::NotBound)?;
        let from = legs.iter().position(|leg| leg.remote == source).ok_or(RelayDrop::WrongSource)?;
        let client = &mut self.clients[from];
        client.last_seen = now;
        client.forwarded.add(Traffic { packets: 1, bytes: bytes as u64 });
        Ok(legs[1 - from])
    }

    /// A control packet after its Geneve header.
    pub(super) fn handshake(
        &mut self,
        from: Leg,
        packet: &[u8],
        secrets: &mut Secrets,
        now: Instant,
        random: &mut dyn FnMut() -> [u8; 32],
    ) -> Result<Step, RelayDrop> {
        let sender = wire::disco::sender(packet).ok_or(RelayDrop::NotDisco)?;
        let index = self.clients.iter().position(|client| client.disco == sender);
        let index = index.ok_or(RelayDrop::UnknownClient)?;
        let message =
            wire::disco::open(&self.clients[index].shared, packet).map_err(|_| RelayDrop::Sealed)?;
        match message {
            Message::Bind(bind) => {
                self.check(&bind, index)?;
                if bind.generation == 0 {
                    return Err(RelayDrop::Generation);
                }
                let salt = match self.clients[index].handshake {
                    Some((generation, salt)) if generation == bind.generation => salt,
                    _ => *random().first_chunk().expect("16 of 32 bytes"),
                };
                self.clients[index].handshake = Some((bind.generation, salt));
                let challenge = secrets.challenge(&bind, &salt, from.remote, now, random);
                Ok(Step::Challenge(index, Message::BindChallenge(Bind { challenge, ..bind })))
            }
            Message::BindAnswer(bind) => {
                self.check(&bind, index)?;
                let handshake = self.clients[index].handshake;
                let Some((_, salt)) = handshake.filter(|(generation, _)| *generation == bind.generation)
                else {
                    return Err(RelayDrop::Generation);
                };
                if !secrets.verify(&bind, &salt, from.remote, now) {
                    return Err(RelayDrop::Challenge);
                }
                let client = &mut self.clients[index];
                client.handshake = None;
                client.leg = Some(from);
                client.last_seen = now;
                Ok(Step::Bound)
            }
            _ => Err(RelayDrop::UnexpectedMessage),
        }
    }

    /// A packet of ours for a client, without its Geneve header.
    pub(super) fn seal(&self, ours: &DiscoPublic, to: usize, message: &Message, nonce: [u8; 24]) -> Vec<u8> {
        wire::disco::seal(ours, &self.clients[to].shared, nonce, message)
    }

    /// The header outside of the box can be changed on the way, what is inside cannot.
    fn check(&self, bind: &Bind, sender: usize) -> Result<(), RelayDrop> {
        let right = bind.vni == self.vni.get() && bind.remote == self.clients[1 - sender].disco;
        if right { Ok(()) } else { Err(RelayDrop::Mismatch) }
    }
}
