//! The messages of peer relays: the three steps that bind a client to an endpoint, and how endpoints are asked for and
//! announced (tailscale `disco/disco.go`, `net/udprelay/endpoint`).

use std::net::SocketAddr;
use std::time::Duration;

use types::DiscoPublic;

use super::{Error, VERSION, endpoint};

/// One step of the handshake between client and relay; all three steps have this shape and size, so that none amplifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The Geneve VNI, again, where nobody on the way can change it.
    pub vni: u32,
    /// The handshake's number, not zero; new for every handshake.
    pub generation: u32,
    /// The other client of this relay endpoint.
    pub remote: DiscoPublic,
    /// The relay's challenge; meaningless padding in the first step.
    pub challenge: [u8; 32],
}

impl Bind {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.vni.to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(self.remote.as_bytes());
        out.extend_from_slice(&self.challenge);
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields { body, name: "relay bind" };
        Ok(Self {
            vni: fields.u32()?,
            generation: fields.u32()?,
            remote: fields.key()?,
            challenge: fields.take()?,
        })
    }
}

/// A pair's place on a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayEndpoint {
    /// The relay's own DISCO key.
    pub server: DiscoPublic,
    /// The two clients that may bind.
    pub clients: [DiscoPublic; 2],
    /// Which of two endpoints of one relay is newer: the higher.
    pub lamport_id: u64,
    /// The Geneve VNI of this pair on this relay.
    pub vni: u32,
    /// How long the endpoint waits for both clients to bind. Nanoseconds on the wire.
    pub bind_lifetime: Duration,
    /// How long it lives without packets afterwards. Nanoseconds on the wire.
    pub steady_state_lifetime: Duration,
    /// Where the relay listens; at least one.
    pub addresses: Vec<SocketAddr>,
}

impl RelayEndpoint {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.server.as_bytes());
        out.extend_from_slice(self.clients[0].as_bytes());
        out.extend_from_slice(self.clients[1].as_bytes());
        out.extend_from_slice(&self.lamport_id.to_be_bytes());
        out.extend_from_slice(&self.vni.to_be_bytes());
        out.extend_from_slice(&nanoseconds(self.bind_lifetime).to_be_bytes());
        out.extend_from_slice(&nanoseconds(self.steady_state_lifetime).to_be_bytes());
        for address in &self.addresses {
            endpoint::encode(*address, out);
        }
    }

    pub(super) fn decode(version: u8, body: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::of(version, body, "relay endpoint")?;
        Ok(Self {
            server: fields.key()?,
            clients: [fields.key()?, fields.key()?],
            lamport_id: fields.u64()?,
            vni: fields.u32()?,
            bind_lifetime: Duration::from_nanos(fields.u64()?),
            steady_state_lifetime: Duration::from_nanos(fields.u64()?),
            addresses: endpoint::decode_list(fields.body)
                .filter(|list| !list.is_empty())
                .ok_or(Error::Short("relay endpoint"))?,
        })
    }
}

/// Sent by DERP: the peer is to bind to the same relay endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallMeMaybeVia(pub RelayEndpoint);

/// Asks a relay, by DERP, for an endpoint for two clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateRequest {
    /// Who may bind.
    pub clients: [DiscoPublic; 2],
    /// Echoed in the response.
    pub generation: u32,
}

impl AllocateRequest {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.clients[0].as_bytes());
        out.extend_from_slice(self.clients[1].as_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
    }

    pub(super) fn decode(version: u8, body: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::of(version, body, "relay allocation request")?;
        Ok(Self { clients: [fields.key()?, fields.key()?], generation: fields.u32()? })
    }
}

/// Answers an [`AllocateRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateResponse {
    /// The request's.
    pub generation: u32,
    /// What was allocated.
    pub endpoint: RelayEndpoint,
}

impl AllocateResponse {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.generation.to_be_bytes());
        self.endpoint.encode(out);
    }

    pub(super) fn decode(version: u8, body: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::of(version, body, "relay allocation response")?;
        Ok(Self { generation: fields.u32()?, endpoint: RelayEndpoint::decode(version, fields.body)? })
    }
}

/// What is left of a body, read field by field.
struct Fields<'a> {
    body: &'a [u8],
    name: &'static str,
}

impl<'a> Fields<'a> {
    fn of(version: u8, body: &'a [u8], name: &'static str) -> Result<Self, Error> {
        if version == VERSION { Ok(Self { body, name }) } else { Err(Error::Version(name, version)) }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (field, rest) = self.body.split_first_chunk().ok_or(Error::Short(self.name))?;
        self.body = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.take().map(u64::from_be_bytes)
    }

    fn key(&mut self) -> Result<DiscoPublic, Error> {
        self.take().map(DiscoPublic::from_bytes)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
