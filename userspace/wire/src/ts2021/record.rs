//! Records: what both sides send after the handshake.

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};
use ts_control_noise::{BiCodec, MAX_MESSAGE_SIZE};
use ts_noise::core::Session;

use super::{HEADER_LEN, kind};

/// Length of the authentication tag that ends every record.
const TAG_LEN: usize = 16;
/// The most plaintext one record carries.
pub const MAX_PLAINTEXT: usize = MAX_MESSAGE_SIZE - HEADER_LEN - TAG_LEN;

/// Why a record cannot be read; the connection is lost with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a record, or of a size no record has.
    #[error("noise record with kind {kind} and length {len}")]
    Malformed {
        /// Kind in the header.
        kind: u8,
        /// Length in the header.
        len: usize,
    },
    /// Altered, repeated or lost on the way.
    #[error("noise record does not decrypt")]
    Decrypt,
}

/// Both directions of an established session. Each direction counts its records, so order is all.
pub struct Records {
    codec: BiCodec,
}

impl Records {
    pub(super) fn new(session: Session) -> Self {
        Self { codec: session.into() }
    }

    /// Appends `plain` to `wire`, in as many records as it takes.
    pub fn seal(&mut self, plain: &[u8], wire: &mut BytesMut) {
        // The codec's error type is a formality: it has no failing branch.
        let sealed = self.codec.encode(plain, wire);
        debug_assert!(sealed.is_ok());
    }

    /// Takes one whole record off the front of `wire` and opens it; `None` when it is not all there yet. A record may
    /// be empty.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub fn open(&mut self, wire: &mut BytesMut) -> Result<Option<BytesMut>, RecordError> {
        let Some(&[kind, high, low]) = wire.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes([high, low]));
        // The codec takes a record's size and kind on trust.
        if kind != kind::RECORD || !(TAG_LEN..=MAX_PLAINTEXT + TAG_LEN).contains(&len) {
            return Err(RecordError::Malformed { kind, len });
        }
        self.codec.decode(wire).map_err(|_| RecordError::Decrypt)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use types::{CapabilityVersion, MachinePrivate};

    use super::*;
    use crate::ts2021::{ClientHandshake, ServerHandshake};

    fn session() -> (Records, Records) {
        let (machine, server) = (MachinePrivate::from_random([1; 32]), MachinePrivate::from_random([2; 32]));
        let (client, initiation) =
            ClientHandshake::start(&machine, &server.public(), CapabilityVersion(130)).unwrap();
        let (response, at_server) = ServerHandshake::accept(&initiation, &server).unwrap().respond();
        (client.finish(&response).unwrap(), at_server)
    }

    #[test]
    fn a_record_is_at_most_4096_bytes() {
        let (mut client, _) = session();
        let mut wire = BytesMut::new();
        client.seal(&[0; MAX_PLAINTEXT], &mut wire);
        assert_eq!((wire.len(), MAX_PLAINTEXT), (4096, 4077));
        client.seal(&[0; MAX_PLAINTEXT + 1], &mut wire);
        assert_eq!(wire.len(), 2 * 4096 + HEADER_LEN + TAG_LEN + 1);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for header in [[3_u8, 0, 20], [4, 0, 15], [4, 0, 0], [4, 0x10, 0], [0, 0, 0]] {
            let (_, mut server) = session();
            let mut wire = BytesMut::from(&header[..]);
            wire.resize(5000, 0);
            assert!(matches!(server.open(&mut wire), Err(RecordError::Malformed { .. })), "{header:?}");
        }
    }

    #[test]
    fn a_repeated_record_is_refused() {
        let (mut client, mut server) = session();
        let mut wire = BytesMut::new();
        client.seal(b"once", &mut wire);
        let mut again = wire.clone();
        assert!(server.open(&mut wire).unwrap().is_some());
        assert_eq!(server.open(&mut again), Err(RecordError::Decrypt));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            plain in prop::collection::vec(any::<u8>(), 0..10_000),
            piece in 1_usize..3000,
        ) {
            let (mut client, mut server) = session();
            let mut sealed = BytesMut::new();
            client.seal(&plain, &mut sealed);
            let (mut wire, mut heard) = (BytesMut::new(), Vec::new());
            for bytes in sealed.chunks(piece) {
                wire.extend_from_slice(bytes);
                while let Some(plain) = server.open(&mut wire).unwrap() {
                    heard.extend_from_slice(&plain);
                }
            }
            prop_assert_eq!(heard, plain);
        }
    }
}
