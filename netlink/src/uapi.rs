//! WireGuard in a process: the text protocol of `/var/run/wireguard/NAME.sock` (wireguard.com/xplatform).
//!
//! Each call is one connection, one request, one answer that ends with `errno=N` and an empty line, within a deadline.
//! Deliberately not here: starting such a process; a socket that does not answer is an error.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::wireguard::{Device, DeviceChange, Peer, PeerChange, PublicKey};
use crate::{Error, Result};

/// A process that does not answer for this long is stuck: it does nothing but copy tables to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// A device of a process, by name.
#[derive(Clone)]
pub(crate) struct Userspace {
    name: String,
}

impl Userspace {
    /// `None` when nobody answers on the socket of `name`.
    pub(crate) async fn open(name: &str) -> Option<Self> {
        let device = Self { name: name.into() };
        UnixStream::connect(device.path()).await.ok().map(|_| device)
    }

    pub(crate) async fn device(&self) -> Result<Device> {
        let answer = self.call("read", "get=1\n\n").await?;
        parse(&answer).map_err(|line| self.malformed("read", line))
    }

    pub(crate) async fn configure(&self, change: &DeviceChange) -> Result<()> {
        let mut request = Zeroizing::new(String::from("set=1\n"));
        if let Some(key) = &change.private_key {
            line(&mut request, "private_key", &*Zeroizing::new(hex(&key.0)));
        }
        if let Some(port) = change.listen_port {
            line(&mut request, "listen_port", port);
        }
        if let Some(mark) = change.fwmark {
            line(&mut request, "fwmark", mark);
        }
        request.push('\n');
        self.call("configure", &request).await.map(drop)
    }

    pub(crate) async fn apply<'a>(&self, changes: impl Iterator<Item = &'a PeerChange>) -> Result<()> {
        let request = set(changes);
        self.call("change peers of", &request).await.map(drop)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/var/run/wireguard/{}.sock", self.name))
    }

    /// Sends a request and returns the lines before `errno=0`.
    async fn call(&self, action: &'static str, request: &str) -> Result<Zeroizing<String>> {
        let failed = |error: std::io::Error| Error::os(action, &self.name, &error);
        let exchange = async {
            let mut stream = UnixStream::connect(self.path()).await?;
            stream.write_all(request.as_bytes()).await?;
            // Half-closing would be enough for our own server, but wireguard-go then drops the connection unanswered.
            let mut answer = Zeroizing::new(Vec::with_capacity(4096));
            while !answer.ends_with(b"\n\n") && stream.read_buf(&mut *answer).await? > 0 {}
            Ok(answer)
        };
        let late =
            |_| Error::os(action, &self.name, &std::io::Error::from_raw_os_error(Errno::ETIMEDOUT as i32));
        let answer = tokio::time::timeout(DEADLINE, exchange).await.map_err(late)?.map_err(failed)?;
        let text = std::str::from_utf8(&answer).map_err(|_| self.malformed(action, "not UTF-8"))?;
        let (lines, errno) = split_errno(text).ok_or_else(|| self.malformed(action, "no errno line"))?;
        match errno {
            0 => Ok(Zeroizing::new(lines.to_owned())),
            errno => Err(failed(std::io::Error::from_raw_os_error(errno))),
        }
    }

    fn malformed(&self, action: &'static str, detail: impl Into<String>) -> Error {
        Error::Malformed { action, object: self.name.clone(), detail: detail.into() }
    }
}

/// Splits an answer at its final `errno=` line; wireguard-go counts errors below zero, others above.
fn split_errno(text: &str) -> Option<(&str, i32)> {
    let start = text.rfind("errno=")?;
    let errno: i32 = text[start..].trim_end().strip_prefix("errno=")?.parse().ok()?;
    Some((&text[..start], errno.checked_abs()?))
}

fn set<'a>(changes: impl Iterator<Item = &'a PeerChange>) -> String {
    let mut text = String::from("set=1\n");
    for change in changes {
        match change {
            PeerChange::Remove { key } => {
                peer(&mut text, key, true);
                line(&mut text, "remove", true);
            }
            PeerChange::RemoveAllowedIps { key, nets } => {
                peer(&mut text, key, true);
                nets.iter().for_each(|net| line(&mut text, "allowed_ip", format_args!("-{net}")));
            }
            PeerChange::Set { key, endpoint, allowed_ips, keepalive } => {
                peer(&mut text, key, false);
                endpoint.iter().for_each(|endpoint| line(&mut text, "endpoint", endpoint));
                line(&mut text, "persistent_keepalive_interval", keepalive);
                line(&mut text, "replace_allowed_ips", true);
                allowed_ips.iter().for_each(|net| line(&mut text, "allowed_ip", net));
            }
            PeerChange::ReplaceAllowedIps { key, nets } => {
                peer(&mut text, key, true);
                line(&mut text, "replace_allowed_ips", true);
                nets.iter().for_each(|net| line(&mut text, "allowed_ip", net));
            }
            PeerChange::AddAllowedIps { key, nets } => {
                peer(&mut text, key, true);
                nets.iter().for_each(|net| line(&mut text, "allowed_ip", net));
            }
            PeerChange::Endpoint { key, endpoint } => {
                peer(&mut text, key, true);
                line(&mut text, "endpoint", endpoint);
            }
            PeerChange::Keepalive { key, seconds } => {
                peer(&mut text, key, true);
                line(&mut text, "persistent_keepalive_interval", seconds);
            }
        }
    }
    text.push('\n');
    text
}

fn peer(text: &mut String, key: &PublicKey, update_only: bool) {
    line(text, "public_key", hex(&key.0));
    if update_only {
        line(text, "update_only", true);
    }
}

fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{key}={value}");
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Reads the answer to `get=1`; the error is the key of the line that is not understood, never a value (keys are secret).
fn parse(text: &str) -> std::result::Result<Device, String> {
    let mut device = Device { public_key: None, listen_port: 0, fwmark: 0, peers: Vec::new() };
    for line in text.lines() {
        let (key, value) = line.split_once('=').ok_or("a line without '='")?;
        parse_line(&mut device, key, value).ok_or_else(|| format!("value of {key}"))?;
    }
    Ok(device)
}

fn parse_line(device: &mut Device, key: &str, value: &str) -> Option<()> {
    match key {
        "private_key" => {
            let secret = x25519_dalek::StaticSecret::from(*Zeroizing::new(unhex(value)?));
            device.public_key = Some(PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes()));
        }
        "listen_port" => device.listen_port = value.parse().ok()?,
        "fwmark" => device.fwmark = value.parse().ok()?,
        "public_key" => device.peers.push(Peer::new(PublicKey(unhex(value)?))),
        _ => {
            // Keys this version does not know are allowed by the protocol; those before any peer are the device's.
            let Some(peer) = device.peers.last_mut() else { return Some(()) };
            parse_peer_line(peer, key, value)?;
        }
    }
    Some(())
}

fn parse_peer_line(peer: &mut Peer, key: &str, value: &str) -> Option<()> {
    match key {
        "endpoint" => peer.endpoint = Some(value.parse().ok()?),
        "allowed_ip" => peer.allowed_ips.push(value.parse().ok()?),
        "persistent_keepalive_interval" => peer.keepalive = value.parse().ok()?,
        "rx_bytes" => peer.rx_bytes = value.parse().ok()?,
        "tx_bytes" => peer.tx_bytes = value.parse().ok()?,
        "last_handshake_time_sec" => {
            let seconds: u64 = value.parse().ok()?;
            peer.last_handshake =
                (seconds > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        }
        "last_handshake_time_nsec" => {
            let nanos = Duration::from_nanos(value.parse().ok()?);
            peer.last_handshake = peer.last_handshake.map(|time| time + nanos);
        }
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PublicKey = PublicKey([0xab; 32]);

    #[test]
    fn an_endpoint_step_names_one_peer_and_only_updates() {
        let change = PeerChange::Endpoint { key: KEY, endpoint: "[2001:db8::1]:41641".parse().unwrap() };
        let key = "ab".repeat(32);
        assert_eq!(
            set([change].iter()),
            format!("set=1\npublic_key={key}\nupdate_only=true\nendpoint=[2001:db8::1]:41641\n\n")
        );
    }

    #[test]
    fn an_answer_becomes_a_device_with_its_public_key() {
        let text = format!(
            "private_key={}\nlisten_port=41641\nfwmark=524288\npublic_key={}\nendpoint=192.0.2.1:7\n\
             last_handshake_time_sec=9\nlast_handshake_time_nsec=5\nrx_bytes=1\ntx_bytes=2\n\
             persistent_keepalive_interval=25\nallowed_ip=100.64.0.2/32\nprotocol_version=1\n",
            "77".repeat(32),
            "ab".repeat(32)
        );
        let device = parse(&text).unwrap();
        let secret = x25519_dalek::StaticSecret::from([0x77; 32]);
        assert_eq!(device.public_key, Some(PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())));
        assert_eq!((device.listen_port, device.fwmark), (41641, 0x80000));
        let peer = &device.peers[0];
        assert_eq!((peer.key, peer.rx_bytes, peer.tx_bytes, peer.keepalive), (KEY, 1, 2, 25));
        assert_eq!(peer.last_handshake, Some(SystemTime::UNIX_EPOCH + Duration::new(9, 5)));
    }

    #[test]
    fn bad_lines_are_named_without_their_value() {
        assert_eq!(parse("listen_port=x\n").unwrap_err(), "value of listen_port");
        let error = parse("private_key=secret\n").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn errno_may_be_counted_below_zero() {
        assert_eq!(split_errno("a=1\nerrno=0\n\n"), Some(("a=1\n", 0)));
        assert_eq!(split_errno("errno=-98\n\n"), Some(("", 98)));
        assert_eq!(split_errno("nothing\n\n"), None);
    }
}
