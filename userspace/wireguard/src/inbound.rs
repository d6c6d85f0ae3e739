//! From the network to the TUN device: receive what has come, open it, hand it over merged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use gotatun::noise::TunnResult;
use gotatun::noise::handshake::parse_handshake_anon;
use gotatun::packet::{Packet, WgKind};
use gotatun::tun::MtuWatcher;
use tun_rs::{GROTable, IDEAL_BATCH_SIZE, SyncDevice, VIRTIO_NET_HDR_LEN};

use crate::device::{Device, Tables};
use crate::peer::Peer;
use crate::socket::{Socket, Sockets};

/// Runs until the socket is closed.
pub(crate) fn run(device: &Device, sockets: &Sockets, socket: &Socket, tun: &SyncDevice, mtu: u16) {
    let mut buffer = vec![0; 1 << 16];
    let mut opened: Vec<BytesMut> = Vec::with_capacity(2 * IDEAL_BATCH_SIZE);
    let mut merger = GROTable::default();
    let mut mtu = MtuWatcher::new(mtu);
    let mut wait = true;
    loop {
        match socket.receive(&mut buffer, wait) {
            Some((bytes, each, from)) => {
                let tables = device.read();
                for datagram in buffer[..bytes].chunks(each).filter(|datagram| is_wireguard(datagram)) {
                    opened.extend(open(device, &tables, sockets, datagram, from, &mut mtu));
                }
                // Everything that is there already is merged together, up to a batch.
                wait = opened.len() >= IDEAL_BATCH_SIZE;
            }
            None if wait => return,
            None => wait = true,
        }
        if wait && !opened.is_empty() {
            // The device may be down, which loses the packets as it should.
            if let Err(error) = tun.send_multiple(&mut merger, &mut opened, VIRTIO_NET_HDR_LEN) {
                tracing::trace!(%error, "packets for the TUN device were dropped");
            }
            opened.clear();
        }
    }
}

/// Message types 1 to 4 with three zero bytes. All else on the port (DISCO, STUN) is not ours, and ignored in silence.
fn is_wireguard(datagram: &[u8]) -> bool {
    matches!(datagram, [1..=4, 0, 0, 0, ..])
}

/// Opens one datagram, answers it, and returns the IP packet in it with headroom for the TUN device's header.
fn open(
    device: &Device,
    tables: &Tables,
    sockets: &Sockets,
    datagram: &[u8],
    from: SocketAddr,
    mtu: &mut MtuWatcher,
) -> Option<BytesMut> {
    let identity = tables.identity.configured.then_some(&tables.identity)?;
    let message = match identity.limiter.verify_packet(from, Packet::from_bytes(BytesMut::from(datagram))) {
        Ok(message) => message,
        Err(TunnResult::WriteToNetwork(cookie)) => {
            sockets.send(&[Packet::from(cookie)], from);
            return None;
        }
        Err(_) => return None,
    };
    let peer = match &message {
        WgKind::HandshakeInit(packet) => {
            let sender = parse_handshake_anon(&identity.private, &identity.public, packet).ok()?;
            Arc::clone(&tables.peers.get(&sender.peer_static_public)?.peer)
        }
        WgKind::HandshakeResp(packet) => device.peer_of(packet.receiver_idx.get())?,
        WgKind::CookieReply(packet) => device.peer_of(packet.receiver_idx.get())?,
        WgKind::Data(packet) => device.peer_of(packet.header.receiver_idx.get())?,
    };
    let received = peer.lock().open(message, from, mtu);
    if !received.send.is_empty() {
        received.send.iter().for_each(|message| device.expect_answers(message, &peer));
        let packets: Vec<Packet> = received.send.into_iter().map(Packet::from).collect();
        sockets.send(&packets, from);
    }
    received.deliver.and_then(|packet| deliver(tables, &peer, &packet))
}

/// Cuts the padding, and refuses a packet from an address that is not the peer's (cryptokey routing).
fn deliver(tables: &Tables, peer: &Arc<Peer>, packet: &[u8]) -> Option<BytesMut> {
    let (source, length) = source(packet)?;
    tables.route(source).filter(|owner| Arc::ptr_eq(owner, peer))?;
    let packet = packet.get(..length)?;
    let mut bytes = BytesMut::with_capacity(VIRTIO_NET_HDR_LEN + packet.len());
    bytes.resize(VIRTIO_NET_HDR_LEN, 0);
    bytes.extend_from_slice(packet);
    Some(bytes)
}

/// Where an IP packet comes from, and its length without padding.
fn source(packet: &[u8]) -> Option<(IpAddr, usize)> {
    let length = |at: usize| {
        let bytes = packet.get(at..at + 2)?;
        Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    };
    match packet.first()? >> 4 {
        4 => {
            let address: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            Some((Ipv4Addr::from(address).into(), length(2)?)).filter(|(_, length)| *length >= 20)
        }
        6 => {
            let address: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            Some((Ipv6Addr::from(address).into(), 40 + length(4)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disco_and_stun_are_not_wireguard() {
        assert!(is_wireguard(&[4, 0, 0, 0, 9]));
        assert!(!is_wireguard(b"TS\xf0\x9f\x92\xac and more"));
        assert!(!is_wireguard(&[0, 1, 0, 0]));
        assert!(!is_wireguard(&[4, 0, 0]));
        assert!(!is_wireguard(&[5, 0, 0, 0]));
    }

    #[test]
    fn the_length_is_the_packets_own() {
        let mut v4 = vec![0u8; 32];
        (v4[0], v4[3]) = (0x45, 25);
        assert_eq!(source(&v4), Some((Ipv4Addr::UNSPECIFIED.into(), 25)));
        v4[3] = 19;
        assert_eq!(source(&v4), None, "shorter than its header");
        let mut v6 = vec![0u8; 48];
        (v6[0], v6[5]) = (0x60, 3);
        assert_eq!(source(&v6), Some((Ipv6Addr::UNSPECIFIED.into(), 43)));
        assert_eq!(source(&[]), None);
    }
}
