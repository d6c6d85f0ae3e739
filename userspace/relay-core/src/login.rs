//! From a fresh stream to a proven key. The states are types: without a [`Hello`] nobody can be admitted, and a `Hello`
//! exists only when its box opened with the client's key.

use types::{NodePrivate, NodePublic};
use wire::derp::{ClientInfo, Error, Frame, ServerInfo, VERSION};
use wire::nacl::{NONCE_LEN, SharedBox};

use crate::Rate;

/// The longest body accepted before a key is proven: keys, a box and little JSON.
pub const MAX_BODY: usize = 16 << 10;

/// Why a stream is closed before its key is proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are not DERP, or the box does not open.
    #[error(transparent)]
    Wire(#[from] Error),
    /// Something else than the client's info came first.
    #[error("the client did not begin with its info")]
    Order,
}

/// Appends the server's greeting.
pub fn greet(server: &NodePublic, out: &mut Vec<u8>) {
    Frame::ServerKey(*server).encode(out);
}

/// A client whose key is proven, not yet admitted.
pub struct Hello {
    /// Who.
    pub key: NodePublic,
    /// What it says of itself.
    pub info: ClientInfo,
    shared: SharedBox,
}

impl Hello {
    /// Reads the client's first frame.
    ///
    /// # Errors
    /// When it is another frame, or its box does not prove its key.
    pub fn read(server: &NodePrivate, frame: &Frame<'_>) -> Result<Self, Refusal> {
        let Frame::ClientInfo { key, sealed } = frame else { return Err(Refusal::Order) };
        let shared = SharedBox::node(server, key);
        Ok(Self { key: *key, info: ClientInfo::open(&shared, sealed)?, shared })
    }

    /// Appends the server's info for this client; with a rate, the client drops by itself what the server would hold back.
    pub fn welcome(&self, rate: Option<Rate>, nonce: [u8; NONCE_LEN], out: &mut Vec<u8>) {
        let clamp = |units: u64| u32::try_from(units).unwrap_or(u32::MAX);
        let (bytes_per_second, bytes_burst) = rate.map_or((0, 0), |r| (clamp(r.per_second), clamp(r.burst)));
        let info = ServerInfo { version: VERSION, bytes_per_second, bytes_burst };
        Frame::ServerInfo { sealed: &info.seal(&self.shared, nonce) }.encode(out);
    }
}

#[cfg(test)]
mod tests {
    use wire::derp::HEADER_LEN;

    use super::*;

    #[test]
    fn a_key_is_proven_by_its_box() {
        let (client, server) = (NodePrivate::from_random([1; 32]), NodePrivate::from_random([2; 32]));
        let shared = SharedBox::node(&client, &server.public());
        let sealed = ClientInfo::node("test").seal(&shared, [3; NONCE_LEN]);

        let honest =
            Hello::read(&server, &Frame::ClientInfo { key: client.public(), sealed: &sealed }).unwrap();
        assert_eq!((honest.key, honest.info.version), (client.public(), VERSION));
        let mut out = Vec::new();
        honest.welcome(Some(Rate { per_second: 1000, burst: 10 }), [4; NONCE_LEN], &mut out);
        assert_eq!(ServerInfo::open(&shared, &out[HEADER_LEN..]).map(|info| info.bytes_per_second), Ok(1000));

        let stolen = NodePrivate::from_random([5; 32]).public();
        let lie = Hello::read(&server, &Frame::ClientInfo { key: stolen, sealed: &sealed });
        assert_eq!(lie.err(), Some(Refusal::Wire(Error::Sealed)));
        assert_eq!(Hello::read(&server, &Frame::KeepAlive).err(), Some(Refusal::Order));
    }
}
