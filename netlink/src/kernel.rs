//! WireGuard in the kernel: its generic-netlink calls (`linux/wireguard.h`), split to what the kernel accepts.
//!
//! A step on a peer becomes one or more entries of a SET_DEVICE message; entries that belong together stay in one
//! message, which the kernel works through under one lock. Deliberately not here: the link itself (`link.rs`).

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr as AllowedIp,
    WireguardAttribute as Attribute, WireguardCmd, WireguardMessage, WireguardPeer,
    WireguardPeerAttribute as PeerAttribute, WireguardPeerFlags as Flags,
};
use rtnetlink::packet_core::Emitable as _;
use rtnetlink::sys::protocols::NETLINK_GENERIC;

use crate::socket::{Doing, Socket};
use crate::wireguard::{Device, DeviceChange, Peer, PeerChange, PublicKey};
use crate::{Error, Handle, Result};

/// Bytes of peer entries in one message. The peer list is one attribute, whose length field has 16 bits.
const MESSAGE: usize = 32 << 10;

/// Allowed IPs in one entry: 256 of IPv6 are 10 KiB, so an entry always fits a message.
const ALLOWED_IPS: usize = 256;

/// The kernel before 6.16 cannot take a prefix away from a peer. So the prefix moves to this peer, which is made and
/// removed within the same message; nobody has a private key for this point of the curve.
const DECOY: PublicKey = PublicKey(*b"takes prefixes away from a peer.");

/// A device of the kernel.
#[derive(Clone)]
pub(crate) struct Kernel {
    socket: Socket<GenlMessage<WireguardMessage>>,
    family: u16,
    name: String,
}

impl Kernel {
    pub(crate) async fn open(handle: &Handle, name: &str) -> Result<Self> {
        Ok(Self { socket: handle.wireguard.clone(), family: family("wireguard").await?, name: name.into() })
    }

    pub(crate) async fn device(&self) -> Result<Device> {
        let request = self.message(WireguardCmd::GetDevice, Vec::new());
        let answers = self.socket.dump(request, self.doing("read")).await?;
        let mut device = Device { public_key: None, listen_port: 0, fwmark: 0, peers: Vec::new() };
        for attribute in answers.into_iter().flat_map(|answer| answer.payload.attributes) {
            match attribute {
                Attribute::PublicKey(key) => device.public_key = Some(PublicKey(key)),
                Attribute::ListenPort(port) => device.listen_port = port,
                Attribute::Fwmark(mark) => device.fwmark = mark,
                Attribute::Peers(peers) => peers.iter().for_each(|peer| gather(&mut device.peers, peer)),
                _ => {}
            }
        }
        Ok(device)
    }

    pub(crate) async fn configure(&self, change: &DeviceChange) -> Result<()> {
        let mut attributes = Vec::new();
        attributes.extend(change.private_key.as_ref().map(|key| Attribute::PrivateKey(key.0)));
        attributes.extend(change.listen_port.map(Attribute::ListenPort));
        attributes.extend(change.fwmark.map(Attribute::Fwmark));
        let request = self.message(WireguardCmd::SetDevice, attributes);
        self.socket.acknowledge(request, 0, self.doing("configure")).await
    }

    pub(crate) async fn apply<'a>(&self, changes: impl Iterator<Item = &'a PeerChange>) -> Result<()> {
        for peers in messages(changes) {
            let request = self.message(WireguardCmd::SetDevice, vec![Attribute::Peers(peers)]);
            self.socket.acknowledge(request, 0, self.doing("change peers of")).await?;
        }
        Ok(())
    }

    fn message(&self, cmd: WireguardCmd, mut attributes: Vec<Attribute>) -> GenlMessage<WireguardMessage> {
        attributes.insert(0, Attribute::IfName(self.name.clone()));
        let mut message = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
        message.set_resolved_family_id(self.family);
        message
    }

    fn doing(&self, action: &'static str) -> Doing<'_> {
        Doing { action, object: &self.name }
    }
}

/// The number this kernel gave a generic-netlink family.
///
/// # Errors
/// `is_missing` when it has no such family.
pub(crate) async fn family(name: &str) -> Result<u16> {
    let object = format!("generic-netlink family \"{name}\"");
    let doing = Doing { action: "find", object: &object };
    let socket = Socket::<GenlMessage<GenlCtrl>>::open(NETLINK_GENERIC)?;
    let nlas = vec![GenlCtrlAttrs::FamilyName(name.into())];
    let request = GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas });
    let answer = socket.ask(request, doing).await?;
    let id = answer.iter().flat_map(|answer| &answer.payload.nlas).find_map(|attribute| match attribute {
        GenlCtrlAttrs::FamilyId(id) => Some(*id),
        _ => None,
    });
    id.ok_or_else(|| Error::Malformed {
        action: doing.action,
        object: doing.object.to_string(),
        detail: "no family number".into(),
    })
}

/// Packs the entries of all changes into messages.
pub(crate) fn messages<'a>(changes: impl Iterator<Item = &'a PeerChange>) -> Vec<Vec<WireguardPeer>> {
    let mut messages = vec![Vec::new()];
    let mut bytes = 0;
    for unit in changes.flat_map(entries) {
        let length = unit.as_slice().buffer_len();
        if bytes + length > MESSAGE {
            messages.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        messages.last_mut().into_iter().for_each(|last| last.extend_from_slice(&unit));
    }
    messages.retain(|message| !message.is_empty());
    messages
}

/// The entries of one change; each inner list must stay in one message.
fn entries(change: &PeerChange) -> Vec<Vec<WireguardPeer>> {
    let update = Flags::UpdateOnly;
    let no_more = Vec::new;
    match change {
        PeerChange::Remove { key } => vec![vec![entry(*key, Flags::RemoveMe | update, no_more())]],
        PeerChange::RemoveAllowedIps { nets, .. } => {
            let take = |nets| entry(DECOY, Flags::empty(), vec![allowed_ips(nets)]);
            let remove = || entry(DECOY, Flags::RemoveMe, no_more());
            nets.chunks(ALLOWED_IPS).map(|nets| vec![take(nets), remove()]).collect()
        }
        PeerChange::Set { key, endpoint, allowed_ips, keepalive } => {
            let mut more = vec![PeerAttribute::PersistentKeepalive(*keepalive)];
            more.extend(endpoint.map(PeerAttribute::Endpoint));
            spread(*key, Flags::ReplaceAllowedIps, allowed_ips, more)
        }
        PeerChange::ReplaceAllowedIps { key, nets } => {
            spread(*key, Flags::ReplaceAllowedIps | update, nets, no_more())
        }
        PeerChange::AddAllowedIps { key, nets } => spread(*key, update, nets, no_more()),
        PeerChange::Endpoint { key, endpoint } => {
            vec![vec![entry(*key, update, vec![PeerAttribute::Endpoint(*endpoint)])]]
        }
        PeerChange::Keepalive { key, seconds } => {
            vec![vec![entry(*key, update, vec![PeerAttribute::PersistentKeepalive(*seconds)])]]
        }
    }
}

/// A first entry with `flags` and `more`, and as many further ones as the prefixes need.
fn spread(
    key: PublicKey,
    flags: Flags,
    nets: &[IpNet],
    mut more: Vec<PeerAttribute>,
) -> Vec<Vec<WireguardPeer>> {
    let mut chunks = nets.chunks(ALLOWED_IPS);
    more.extend(chunks.next().map(allowed_ips));
    let first = vec![entry(key, flags, more)];
    let rest = chunks.map(|nets| vec![entry(key, Flags::UpdateOnly, vec![allowed_ips(nets)])]);
    std::iter::once(first).chain(rest).collect()
}

fn entry(key: PublicKey, flags: Flags, more: Vec<PeerAttribute>) -> WireguardPeer {
    let mut attributes = vec![PeerAttribute::PublicKey(key.0)];
    if !flags.is_empty() {
        attributes.push(PeerAttribute::Flags(flags));
    }
    attributes.extend(more);
    WireguardPeer(attributes)
}

fn allowed_ips(nets: &[IpNet]) -> PeerAttribute {
    let one = |net: &IpNet| {
        let family = match net {
            IpNet::V4(_) => WireguardAddressFamily::Ipv4,
            IpNet::V6(_) => WireguardAddressFamily::Ipv6,
        };
        let address: IpAddr = net.network();
        WireguardAllowedIp(vec![
            AllowedIp::Family(family),
            AllowedIp::IpAddr(address),
            AllowedIp::Cidr(net.prefix_len()),
        ])
    };
    PeerAttribute::AllowedIps(nets.iter().map(one).collect())
}

/// Adds an entry of a dump to `peers`. A peer with many allowed IPs comes in several entries, one after the other.
fn gather(peers: &mut Vec<Peer>, entry: &WireguardPeer) {
    let Some(key) = entry.0.iter().find_map(|attribute| match attribute {
        PeerAttribute::PublicKey(key) => Some(PublicKey(*key)),
        _ => None,
    }) else {
        return;
    };
    if peers.last().is_none_or(|last| last.key != key) {
        peers.push(Peer::new(key));
    }
    let Some(peer) = peers.last_mut() else { return };
    for attribute in &entry.0 {
        match attribute {
            PeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
            PeerAttribute::PersistentKeepalive(seconds) => peer.keepalive = *seconds,
            PeerAttribute::RxBytes(bytes) => peer.rx_bytes = *bytes,
            PeerAttribute::TxBytes(bytes) => peer.tx_bytes = *bytes,
            PeerAttribute::LastHandshake(time) => {
                let since = u64::try_from(time.seconds).unwrap_or(0);
                let nanos = u32::try_from(time.nano_seconds).unwrap_or(0);
                peer.last_handshake =
                    (since > 0).then(|| SystemTime::UNIX_EPOCH + Duration::new(since, nanos));
            }
            PeerAttribute::AllowedIps(nets) => peer.allowed_ips.extend(nets.iter().filter_map(net)),
            _ => {}
        }
    }
}

fn net(allowed: &WireguardAllowedIp) -> Option<IpNet> {
    let address = allowed.0.iter().find_map(|attribute| match attribute {
        AllowedIp::IpAddr(address) => Some(*address),
        _ => None,
    })?;
    let length = allowed.0.iter().find_map(|attribute| match attribute {
        AllowedIp::Cidr(length) => Some(*length),
        _ => None,
    })?;
    IpNet::new(address, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u16) -> PublicKey {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        PublicKey(key)
    }

    fn nets(count: u32) -> Vec<IpNet> {
        (0..count)
            .map(|n| IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 32).unwrap())
            .collect()
    }

    fn flags(peer: &WireguardPeer) -> Flags {
        let found = peer.0.iter().find_map(|attribute| match attribute {
            PeerAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        found.unwrap_or(Flags::empty())
    }

    #[test]
    fn one_endpoint_is_one_entry_that_only_updates() {
        let change = PeerChange::Endpoint { key: key(1), endpoint: "192.0.2.1:41641".parse().unwrap() };
        let messages = messages([change].iter());
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].len(), 1);
        assert_eq!(flags(&messages[0][0]), Flags::UpdateOnly);
        assert_eq!(messages[0][0].0.len(), 3, "key, flags, endpoint and nothing else");
        assert!(messages[0].as_slice().buffer_len() <= 72);
    }

    #[test]
    fn thousands_of_peers_are_split_into_messages_the_kernel_takes() {
        let set = |n| PeerChange::Set {
            key: key(n),
            endpoint: Some("192.0.2.1:41641".parse().unwrap()),
            allowed_ips: nets(2),
            keepalive: 0,
        };
        let changes: Vec<_> = (0..5000).map(set).collect();
        let messages = messages(changes.iter());
        assert!(messages.iter().all(|message| message.as_slice().buffer_len() <= MESSAGE));
        assert_eq!(messages.iter().map(Vec::len).sum::<usize>(), 5000);
        assert!(messages.len() < 5000 / 100, "{} messages", messages.len());
    }

    #[test]
    fn a_peer_with_many_prefixes_is_replaced_once_and_then_extended() {
        let messages = messages([PeerChange::ReplaceAllowedIps { key: key(7), nets: nets(1000) }].iter());
        let all: Vec<_> = messages.iter().flatten().map(flags).collect();
        assert_eq!(all[0], Flags::ReplaceAllowedIps | Flags::UpdateOnly);
        assert!(all.len() > 1 && all[1..].iter().all(|flags| *flags == Flags::UpdateOnly), "{all:?}");
    }

    #[test]
    fn a_prefix_is_taken_away_by_a_peer_made_and_removed_in_one_message() {
        let messages = messages([PeerChange::RemoveAllowedIps { key: key(7), nets: nets(1) }].iter());
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].iter().map(flags).collect::<Vec<_>>(), [Flags::empty(), Flags::RemoveMe]);
        assert!(messages[0].iter().all(|peer| peer.0[0] == PeerAttribute::PublicKey(DECOY.0)));
    }

    #[test]
    fn entries_of_one_peer_in_a_dump_become_one_peer() {
        let mut peers = Vec::new();
        let part = |key, range: &[IpNet]| entry(key, Flags::empty(), vec![allowed_ips(range)]);
        for entry in [part(key(1), &nets(2)), part(key(1), &nets(4)[2..]), part(key(2), &nets(1))] {
            gather(&mut peers, &entry);
        }
        assert_eq!(peers.len(), 2);
        assert_eq!(peers[0].allowed_ips, nets(4));
    }
}
