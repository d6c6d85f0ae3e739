//! DISCO: how nodes find paths to each other (tailscale `disco/disco.go`).
//!
//! On the wire a packet is magic (6), the sender's DISCO key (32), a nonce (24) and a NaCl box. In the box are type (1),
//! version (1) and the body. Bodies may grow at their end, so longer ones than known are accepted. Integers are big
//! endian, addresses 16 bytes (IPv4 mapped) and a port.
//! Deliberately not here: transactions, timers and trust (node-core).

mod endpoint;
mod envelope;
mod paths;
mod relay;

pub use envelope::{HEADER_LEN, MAGIC, looks_like_disco, open, seal, sender};
pub use paths::{CallMeMaybe, Ping, Pong};
pub use relay::{AllocateRequest, AllocateResponse, Bind, CallMeMaybeVia, RelayEndpoint};

/// Names one ping and its pong; random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub [u8; 12]);

/// Why bytes are not a DISCO message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too short for an envelope, or another protocol.
    #[error("not a DISCO packet")]
    NotDisco,
    /// The box does not open: forged, damaged or sealed for another key.
    #[error("DISCO box does not open with this pair of keys")]
    Sealed,
    /// The body ends before its last fixed field, or its list does not divide into entries.
    #[error("DISCO {0} is cut short")]
    Short(&'static str),
    /// A type this code does not know; newer peers send them, ignore.
    #[error("unknown DISCO message type {0:#04x}")]
    Type(u8),
    /// A version of a known type that this code does not know.
    #[error("unknown version {1} of DISCO {0}")]
    Version(&'static str, u8),
}

/// Everything that travels inside a DISCO box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Are you there, and what do you see me as?
    Ping(Ping),
    /// I am, and I see you as this.
    Pong(Pong),
    /// By DERP: here is where I am, please open a path to me.
    CallMeMaybe(CallMeMaybe),
    /// First step of a client's handshake with a peer relay.
    Bind(Bind),
    /// The relay's answer to [`Message::Bind`].
    BindChallenge(Bind),
    /// The client echoes the challenge.
    BindAnswer(Bind),
    /// By DERP: reach me through this relay.
    CallMeMaybeVia(CallMeMaybeVia),
    /// By DERP: please allocate a relay endpoint for two clients.
    AllocateRequest(AllocateRequest),
    /// By DERP: the endpoint allocated.
    AllocateResponse(AllocateResponse),
}

const VERSION: u8 = 0;

impl Message {
    /// Type, version and body, as they go into a box.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind(), VERSION];
        match self {
            Self::Ping(m) => m.encode(&mut out),
            Self::Pong(m) => m.encode(&mut out),
            Self::CallMeMaybe(m) => m.encode(&mut out),
            Self::Bind(m) | Self::BindChallenge(m) | Self::BindAnswer(m) => m.encode(&mut out),
            Self::CallMeMaybeVia(m) => m.0.encode(&mut out),
            Self::AllocateRequest(m) => m.encode(&mut out),
            Self::AllocateResponse(m) => m.encode(&mut out),
        }
        out
    }

    /// The opposite of [`Self::encode`], for what came out of a box.
    ///
    /// # Errors
    /// Unknown types and versions, bodies cut short.
    pub fn decode(plain: &[u8]) -> Result<Self, Error> {
        let [kind, version, body @ ..] = plain else { return Err(Error::Short("header")) };
        Ok(match kind {
            1 => Self::Ping(Ping::decode(body)?),
            2 => Self::Pong(Pong::decode(body)?),
            3 => Self::CallMeMaybe(CallMeMaybe::decode(*version, body)),
            4 => Self::Bind(Bind::decode(body)?),
            5 => Self::BindChallenge(Bind::decode(body)?),
            6 => Self::BindAnswer(Bind::decode(body)?),
            7 => Self::CallMeMaybeVia(CallMeMaybeVia(RelayEndpoint::decode(*version, body)?)),
            8 => Self::AllocateRequest(AllocateRequest::decode(*version, body)?),
            9 => Self::AllocateResponse(AllocateResponse::decode(*version, body)?),
            _ => return Err(Error::Type(*kind)),
        })
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Ping(_) => 1,
            Self::Pong(_) => 2,
            Self::CallMeMaybe(_) => 3,
            Self::Bind(_) => 4,
            Self::BindChallenge(_) => 5,
            Self::BindAnswer(_) => 6,
            Self::CallMeMaybeVia(_) => 7,
            Self::AllocateRequest(_) => 8,
            Self::AllocateResponse(_) => 9,
        }
    }
}

#[cfg(test)]
mod tests;
