//! The handshake: one message each way, or an error from the server.

use ts_keys::X25519KeyPair;
use ts_noise::ik::{ReceivedHandshake, SentHandshake};
use types::{CapabilityVersion, MachinePrivate, MachinePublic};

use super::record::Records;
use super::{HEADER_LEN, kind};

/// Length of the client's message.
pub const INITIATION_LEN: usize = 5 + SentHandshake::INIT_SIZE;
/// Length of the server's message.
pub const RESPONSE_LEN: usize = HEADER_LEN + ReceivedHandshake::RESP_SIZE;
/// The longest error text sent or read.
const MAX_ERROR: usize = 4096;

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A message is not what stands here in the protocol.
    #[error("handshake: {0}")]
    Malformed(&'static str),
    /// The other side does not have the key it was addressed by, speaks another version, or was tampered with.
    #[error(
        "handshake does not decrypt: the server's key has changed, or something between alters the bytes"
    )]
    Decrypt,
    /// The server refused, in its own (unauthenticated) words.
    #[error("the server refused the handshake: {0}")]
    Refused(String),
}

/// The client's half, waiting for the server's answer.
pub struct ClientHandshake {
    noise: SentHandshake,
    machine: MachinePrivate,
}

impl ClientHandshake {
    /// Begins a handshake as `machine` with the server that has the key `server`; the bytes go to the server.
    pub fn start(
        machine: &MachinePrivate,
        server: &MachinePublic,
        version: CapabilityVersion,
    ) -> Result<(Self, [u8; INITIATION_LEN]), HandshakeError> {
        let wire_version =
            u16::try_from(version.0).map_err(|_| HandshakeError::Malformed("version over 65535"))?;
        reject_low_order(machine, server)?;
        let mut message = [0; INITIATION_LEN];
        message[..2].copy_from_slice(&wire_version.to_be_bytes());
        message[2] = kind::INITIATION;
        message[3..5].copy_from_slice(&(SentHandshake::INIT_SIZE as u16).to_be_bytes());
        let server = (*server.as_bytes()).into();
        let noise = SentHandshake::new(pair(machine), server, &prologue(wire_version), &mut message[5..]);
        Ok((Self { noise, machine: machine.clone() }, message))
    }

    /// Ends the handshake with the server's whole message (see [`reply_len`]).
    ///
    /// # Errors
    /// When the server refused, or is not the one it should be.
    pub fn finish(self, reply: &[u8]) -> Result<Records, HandshakeError> {
        let (header, body) =
            reply.split_first_chunk::<HEADER_LEN>().ok_or(HandshakeError::Malformed("answer cut off"))?;
        if body.len() != reply_len(*header)? {
            return Err(HandshakeError::Malformed("answer's length differs from its header's"));
        }
        if header[0] == kind::ERROR {
            return Err(HandshakeError::Refused(String::from_utf8_lossy(body).into_owned()));
        }
        let mut body = body.to_vec();
        let session =
            self.noise.try_finish(&mut body, pair(&self.machine)).map_err(|_| HandshakeError::Decrypt)?;
        Ok(Records::new(session))
    }
}

/// How many bytes follow the 3-byte header of the server's answer.
///
/// # Errors
/// When that is neither a response nor an error.
pub fn reply_len(header: [u8; HEADER_LEN]) -> Result<usize, HandshakeError> {
    let len = usize::from(u16::from_be_bytes([header[1], header[2]]));
    match header[0] {
        kind::RESPONSE if len == ReceivedHandshake::RESP_SIZE => Ok(len),
        kind::RESPONSE => Err(HandshakeError::Malformed("response of a wrong length")),
        kind::ERROR if len <= MAX_ERROR => Ok(len),
        kind::ERROR => Err(HandshakeError::Malformed("error text too long")),
        _ => Err(HandshakeError::Malformed("answer is neither a response nor an error")),
    }
}

/// The server's half, after a good initiation.
pub struct ServerHandshake {
    noise: ReceivedHandshake,
    peer: MachinePublic,
    version: CapabilityVersion,
}

impl ServerHandshake {
    /// Reads the client's message as the server that has the key `server`.
    ///
    /// # Errors
    /// When it is malformed, was made for another key, or its machine key is of low order (which anyone could claim).
    pub fn accept(initiation: &[u8], server: &MachinePrivate) -> Result<Self, HandshakeError> {
        let initiation: &[u8; INITIATION_LEN] =
            initiation.try_into().map_err(|_| HandshakeError::Malformed("initiation of a wrong size"))?;
        let [high, low, message_kind, length_high, length_low, noise @ ..] = *initiation;
        if message_kind != kind::INITIATION {
            return Err(HandshakeError::Malformed("message is not an initiation"));
        }
        if usize::from(u16::from_be_bytes([length_high, length_low])) != noise.len() {
            return Err(HandshakeError::Malformed("initiation's length differs from its header's"));
        }
        let version = u16::from_be_bytes([high, low]);
        let ephemeral: [u8; 32] = noise[..32].try_into().map_err(|_| HandshakeError::Decrypt)?;
        reject_low_order(server, &MachinePublic::from_bytes(ephemeral))?;
        let mut noise = noise;
        let noise = ReceivedHandshake::new(&mut noise, &prologue(version), &pair(server))
            .ok_or(HandshakeError::Decrypt)?;
        let peer = MachinePublic::from_bytes(noise.peer_static_pub.to_bytes());
        reject_low_order(server, &peer)?;
        Ok(Self { noise, peer, version: CapabilityVersion(version.into()) })
    }

    /// The machine that shook hands; it has proven to own this key only once a record of its has been opened.
    pub fn peer(&self) -> MachinePublic {
        self.peer
    }

    /// The version the client speaks.
    pub fn version(&self) -> CapabilityVersion {
        self.version
    }

    /// Ends the handshake; the bytes go to the client.
    pub fn respond(self) -> ([u8; RESPONSE_LEN], Records) {
        let mut message = [0; RESPONSE_LEN];
        message[0] = kind::RESPONSE;
        message[1..3].copy_from_slice(&(ReceivedHandshake::RESP_SIZE as u16).to_be_bytes());
        let session = self.noise.finish(&mut message[HEADER_LEN..]);
        (message, Records::new(session))
    }
}

/// The message by which a server refuses; `text` is sent in clear and cut at 4096 bytes.
pub fn encode_error(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(MAX_ERROR)];
    let mut message = vec![kind::ERROR];
    message.extend_from_slice(&(text.len() as u16).to_be_bytes());
    message.extend_from_slice(text);
    message
}

/// Both sides mix in the version, so that nobody between them can change it.
fn prologue(version: u16) -> Vec<u8> {
    format!("Tailscale Control Protocol v{version}").into_bytes()
}

/// The key pair in ts_noise's terms.
fn pair(private: &MachinePrivate) -> X25519KeyPair {
    X25519KeyPair { public: (*private.public().as_bytes()).into(), private: (*private.secret_bytes()).into() }
}

/// A public key of low order makes every product zero, so that owning it proves nothing. ts_noise does not check.
fn reject_low_order(private: &MachinePrivate, public: &MachinePublic) -> Result<(), HandshakeError> {
    if private.shared(public).0 == [0; 32] {
        return Err(HandshakeError::Malformed("public key of low order"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;

    fn keys() -> (MachinePrivate, MachinePrivate) {
        (MachinePrivate::from_random([3; 32]), MachinePrivate::from_random([5; 32]))
    }

    fn start(machine: &MachinePrivate, server: &MachinePrivate) -> (ClientHandshake, [u8; INITIATION_LEN]) {
        ClientHandshake::start(machine, &server.public(), CapabilityVersion(130)).unwrap()
    }

    #[test]
    fn both_sides_agree_on_keys_and_identity() {
        let (machine, server) = keys();
        let (client, initiation) = start(&machine, &server);
        assert_eq!(initiation[..5], [0, 130, 1, 0, 96]);
        let accepted = ServerHandshake::accept(&initiation, &server).unwrap();
        assert_eq!((accepted.peer(), accepted.version()), (machine.public(), CapabilityVersion(130)));
        let (response, mut at_server) = accepted.respond();
        assert_eq!(response[..3], [2, 0, 48]);
        let mut at_client = client.finish(&response).unwrap();

        let mut wire = BytesMut::new();
        at_client.seal(b"up", &mut wire);
        assert_eq!(at_server.open(&mut wire).unwrap().unwrap(), b"up"[..]);
        at_server.seal(b"down", &mut wire);
        assert_eq!(at_client.open(&mut wire).unwrap().unwrap(), b"down"[..]);
    }

    #[test]
    fn ts_control_noise_shakes_hands_with_our_server() {
        let (_, server) = keys();
        let machine = ts_keys::MachineKeyPair::random();
        let control: ts_keys::MachinePublicKey = server.public().to_string().parse().unwrap();
        let version = ts_capabilityversion::CapabilityVersion::CURRENT;
        let prologue = format!("Tailscale Control Protocol v{}", u16::from(version));
        let (client, text) = ts_control_noise::Handshake::initialize(&prologue, &machine, &control, version);
        let initiation = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
        let accepted = ServerHandshake::accept(&initiation, &server).unwrap();
        assert_eq!(accepted.peer().to_string(), machine.public.to_string());

        let (response, mut at_server) = accepted.respond();
        let mut wire = BytesMut::from(&response[..]);
        at_server.seal(b"hello", &mut wire);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let heard = runtime.block_on(async {
            let mut stream = client.complete(&wire[..], &machine).await.ok().unwrap();
            let mut heard = [0; 5];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut heard).await.unwrap();
            heard
        });
        assert_eq!(&heard, b"hello");
    }

    #[test]
    fn another_key_or_version_does_not_decrypt() {
        let (machine, server) = keys();
        let (_, mut initiation) = start(&machine, &server);
        let other = MachinePrivate::from_random([6; 32]);
        assert_eq!(ServerHandshake::accept(&initiation, &other).err(), Some(HandshakeError::Decrypt));
        initiation[1] += 1;
        assert_eq!(ServerHandshake::accept(&initiation, &server).err(), Some(HandshakeError::Decrypt));
    }

    #[test]
    fn a_machine_key_of_low_order_is_refused() {
        let (machine, server) = keys();
        let zero = MachinePublic::from_bytes([0; 32]);
        assert!(matches!(
            ClientHandshake::start(&machine, &zero, CapabilityVersion(130)),
            Err(HandshakeError::Malformed("public key of low order"))
        ));
        let (_, mut initiation) = start(&machine, &server);
        initiation[5..37].fill(0);
        assert_eq!(
            ServerHandshake::accept(&initiation, &server).err(),
            Some(HandshakeError::Malformed("public key of low order"))
        );
    }

    #[test]
    fn the_servers_refusal_is_told() {
        let (machine, server) = keys();
        let (client, _) = start(&machine, &server);
        let refusal = encode_error("no such machine");
        assert_eq!(refusal[..3], [3, 0, 15]);
        assert_eq!(
            client.finish(&refusal).err(),
            Some(HandshakeError::Refused("no such machine".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..150)) {
            let (machine, server) = keys();
            prop_assert!(ServerHandshake::accept(&bytes, &server).is_err());
            prop_assert!(start(&machine, &server).0.finish(&bytes).is_err());
        }

        #[test]
        fn any_changed_byte_is_noticed(at in 0..INITIATION_LEN, flip in 1_u8..) {
            let (machine, server) = keys();
            let (_, mut initiation) = start(&machine, &server);
            initiation[at] ^= flip;
            // The top bit of an X25519 coordinate is ignored by definition, but the transcript hash covers it.
            prop_assert!(ServerHandshake::accept(&initiation, &server).is_err());
        }
    }
}
