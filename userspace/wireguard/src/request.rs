//! The UAPI's text (wireguard.com/xplatform): a `set` request read as a whole before anything changes, and the answer to
//! `get`.

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::device::{Member, Tables};

/// Everything one `set` asks for. Secrets are wiped when dropped.
#[derive(Default)]
pub(crate) struct Request {
    pub(crate) private_key: Option<StaticSecret>,
    pub(crate) listen_port: Option<u16>,
    pub(crate) fwmark: Option<u32>,
    pub(crate) replace_peers: bool,
    pub(crate) peers: Vec<PeerRequest>,
}

/// What it asks of one peer.
#[derive(Default)]
pub(crate) struct PeerRequest {
    pub(crate) key: [u8; 32],
    pub(crate) remove: bool,
    pub(crate) update_only: bool,
    pub(crate) preshared_key: Option<StaticSecret>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) keepalive: Option<u16>,
    pub(crate) replace_allowed_ips: bool,
    /// In the order of the request: `true` adds, `false` (written with a minus) removes.
    pub(crate) allowed_ips: Vec<(bool, IpNet)>,
}

impl Request {
    /// Reads the lines after `set=1`; `None` when one is not understood.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut request = Self::default();
        for line in text.lines() {
            let (key, value) = line.split_once('=')?;
            match request.peers.last_mut() {
                _ if key == "public_key" => {
                    request.peers.push(PeerRequest { key: *key_bytes(value)?, ..PeerRequest::default() });
                }
                Some(peer) => peer.set(key, value)?,
                None => request.set(key, value)?,
            }
        }
        Some(request)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "private_key" => self.private_key = Some(secret(value)?),
            "listen_port" => self.listen_port = Some(value.parse().ok()?),
            "fwmark" => self.fwmark = Some(number(value)?),
            "replace_peers" => self.replace_peers = truth(value)?,
            _ => return None,
        }
        Some(())
    }
}

impl PeerRequest {
    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "remove" => self.remove = truth(value)?,
            "update_only" => self.update_only = truth(value)?,
            "preshared_key" => self.preshared_key = Some(secret(value)?),
            "endpoint" => self.endpoint = Some(value.parse().ok()?),
            "persistent_keepalive_interval" => self.keepalive = Some(value.parse().ok()?),
            "replace_allowed_ips" => self.replace_allowed_ips = truth(value)?,
            "allowed_ip" => {
                let removed = value.strip_prefix('-');
                let net: IpNet = removed.unwrap_or(value).parse().ok()?;
                self.allowed_ips.push((removed.is_none(), net.trunc()));
            }
            "protocol_version" => (value == "1").then_some(())?,
            _ => return None,
        }
        Some(())
    }
}

fn truth(value: &str) -> Option<bool> {
    (value == "true").then_some(true)
}

/// `wg` writes marks in decimal, people in hexadecimal.
fn number(value: &str) -> Option<u32> {
    match value.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => value.parse().ok(),
    }
}

fn key_bytes(value: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(value, &mut *bytes).ok()?;
    Some(bytes)
}

fn secret(value: &str) -> Option<StaticSecret> {
    key_bytes(value).map(|bytes| StaticSecret::from(*bytes))
}

/// The lines that answer `get=1`, without the final `errno`.
pub(crate) fn describe(tables: &Tables) -> Zeroizing<String> {
    // Allocated once, so that no freed copy of the private key is left behind by growing.
    let allowed: usize = tables.peers.values().map(|member| member.allowed_ips.len()).sum();
    let mut text = Zeroizing::new(String::with_capacity(512 + 512 * tables.peers.len() + 64 * allowed));
    if tables.identity.configured {
        line(&mut text, "private_key", &*Zeroizing::new(hex::encode(tables.identity.private.as_bytes())));
    }
    if let Some(sockets) = &tables.sockets {
        line(&mut text, "listen_port", sockets.port);
    }
    if tables.fwmark != 0 {
        line(&mut text, "fwmark", tables.fwmark);
    }
    for (key, member) in &tables.peers {
        describe_peer(&mut text, key, member);
    }
    text
}

fn describe_peer(text: &mut String, key: &[u8; 32], member: &Member) {
    line(text, "public_key", hex::encode(key));
    let preshared = member.preshared_key.as_ref().map_or([0; 32], |key| *key.as_bytes());
    line(text, "preshared_key", &*Zeroizing::new(hex::encode(*Zeroizing::new(preshared))));
    line(text, "protocol_version", 1);
    let state = member.peer.lock();
    if let Some(endpoint) = state.endpoint {
        line(text, "endpoint", endpoint);
    }
    let since = state.last_handshake.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let since = since.unwrap_or(Duration::ZERO);
    line(text, "last_handshake_time_sec", since.as_secs());
    line(text, "last_handshake_time_nsec", since.subsec_nanos());
    line(text, "tx_bytes", state.tx_bytes);
    line(text, "rx_bytes", state.rx_bytes);
    line(text, "persistent_keepalive_interval", state.tunnel.persistent_keepalive().unwrap_or(0));
    drop(state);
    for net in &member.allowed_ips {
        line(text, "allowed_ip", net);
    }
}

fn line(text: &mut String, key: &str, value: impl Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{key}={value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_a_whole() {
        let key = "ab".repeat(32);
        let text = format!(
            "private_key={}\nlisten_port=41641\nfwmark=0x80000\nreplace_peers=true\npublic_key={key}\nupdate_only=true\n\
             endpoint=[2001:db8::1]:7\npersistent_keepalive_interval=25\nreplace_allowed_ips=true\n\
             allowed_ip=100.64.0.2/32\nallowed_ip=-10.0.0.1/8\npublic_key={key}\nremove=true\n",
            "01".repeat(32)
        );
        let request = Request::parse(&text).unwrap();
        assert_eq!((request.listen_port, request.fwmark), (Some(41641), Some(0x80000)));
        assert!(request.replace_peers && request.private_key.is_some());
        let peer = &request.peers[0];
        assert!(peer.update_only && peer.replace_allowed_ips && !peer.remove);
        assert_eq!(peer.keepalive, Some(25));
        let nets: Vec<_> = peer.allowed_ips.iter().map(|(add, net)| (*add, net.to_string())).collect();
        assert_eq!(nets, [(true, "100.64.0.2/32".into()), (false, "10.0.0.0/8".into())]);
        assert!(request.peers[1].remove);
    }

    #[test]
    fn one_bad_line_refuses_everything() {
        for text in [
            "listen_port=70000\n",
            "private_key=00\n",
            "no equals sign\n",
            "color=red\n",
            "endpoint=192.0.2.1:1\n",
            "replace_peers=false\n",
        ] {
            assert!(Request::parse(text).is_none(), "{text}");
        }
    }
}
