//! The messages between two peers: ping, pong and call-me-maybe.

use std::net::SocketAddr;

use types::NodePublic;

use super::endpoint;
use super::{Error, TxId};

/// Asks a peer whether this path works, and says who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Random; the pong carries it back.
    pub tx_id: TxId,
    /// Who the sender claims to be. Not proven: believe it only when the netmap pairs it with the sender's DISCO key.
    pub node_key: Option<NodePublic>,
    /// Zero bytes at the end, to probe a path's MTU.
    pub padding: usize,
}

impl Ping {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tx_id.0);
        if let Some(key) = &self.node_key {
            out.extend_from_slice(key.as_bytes());
        }
        out.resize(out.len() + self.padding, 0);
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Error> {
        let (tx_id, rest) = body.split_first_chunk().ok_or(Error::Short("ping"))?;
        // A zero key means none, so those bytes are padding.
        let keyed = rest.split_first_chunk().map(|(key, rest)| (NodePublic::from_bytes(*key), rest));
        let (node_key, padding) = match keyed {
            Some((key, rest)) if !key.is_zero() => (Some(key), rest),
            _ => (None, rest),
        };
        Ok(Self { tx_id: TxId(*tx_id), node_key, padding: padding.len() })
    }
}

/// Answers a [`Ping`] where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The ping's.
    pub tx_id: TxId,
    /// The ping's source as the answering side saw it: a STUN answer from the peer itself.
    pub source: SocketAddr,
}

impl Pong {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tx_id.0);
        endpoint::encode(self.source, out);
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Error> {
        let (tx_id, rest) = body.split_first_chunk().ok_or(Error::Short("pong"))?;
        let source = rest.first_chunk().ok_or(Error::Short("pong"))?;
        Ok(Self { tx_id: TxId(*tx_id), source: endpoint::decode(source) })
    }
}

/// Sent by DERP after pinging the peer's endpoints, so that the own NAT lets the peer's pings in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallMeMaybe {
    /// Where the sender believes it can be reached; may be empty.
    pub endpoints: Vec<SocketAddr>,
}

impl CallMeMaybe {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for address in &self.endpoints {
            endpoint::encode(*address, out);
        }
    }

    /// Never an error: the call itself is the message, and stock peers take an unreadable list as an empty one.
    pub(super) fn decode(version: u8, body: &[u8]) -> Self {
        let readable = (version == super::VERSION).then(|| endpoint::decode_list(body)).flatten();
        Self { endpoints: readable.unwrap_or_default() }
    }
}
