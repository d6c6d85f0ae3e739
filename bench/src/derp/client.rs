//! A DERP client of the bench: logged in, then a bare stream, so that sending costs as little as it can.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use types::{NodePrivate, NodePublic};
use wire::derp::{ClientInfo, Decoder, Frame, MAX_BODY_CLIENT};
use wire::nacl::{NONCE_LEN, SharedBox};

const PATIENCE: Duration = Duration::from_secs(5);

/// One end of a pair.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) decoder: Decoder,
    pub(super) key: NodePublic,
}

impl Client {
    /// Connects from the calling thread's machine and logs in with a key of the bench's own, which guards nothing.
    pub(super) fn connect(server: SocketAddrV4, seed: u8) -> anyhow::Result<Self> {
        let key = NodePrivate::from_random([seed; 32]);
        let mut stream = TcpStream::connect(server).context("connect to the DERP server")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET /derp HTTP/1.1\r\nHost: {server}\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
        )?;
        upgraded(&mut stream)?;
        let mut client = Self { stream, decoder: Decoder::new(MAX_BODY_CLIENT), key: key.public() };
        let server = client.wait(|frame| match frame {
            Frame::ServerKey(server) => Some(server),
            _ => None,
        })?;
        let shared = SharedBox::node(&key, &server);
        let sealed = ClientInfo::node("bench").seal(&shared, [seed; NONCE_LEN]);
        let mut login = Vec::new();
        Frame::ClientInfo { key: key.public(), sealed: &sealed }.encode(&mut login);
        client.stream.write_all(&login)?;
        client.wait(|frame| matches!(frame, Frame::ServerInfo { .. }).then_some(()))?;
        client.stream.set_read_timeout(None)?;
        Ok(client)
    }

    /// Reads until a frame is what is wanted.
    fn wait<T>(&mut self, wanted: impl Fn(Frame<'_>) -> Option<T>) -> anyhow::Result<T> {
        loop {
            while let Some((frame, _)) = self.decoder.next_frame()? {
                if let Some(found) = wanted(frame) {
                    return Ok(found);
                }
            }
            let count = self.stream.read(self.decoder.space()).context("log in")?;
            if count == 0 {
                bail!("the DERP server closed the connection during login");
            }
            self.decoder.filled(count);
        }
    }
}

/// Reads the answer to the upgrade and not a byte more.
fn upgraded(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("the answer to the upgrade")?;
        answer.extend(byte);
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        bail!("the server does not upgrade to DERP: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
