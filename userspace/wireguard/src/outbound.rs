//! From the TUN device to the network: read a super-packet, seal its packets for their peers, send them as one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use gotatun::packet::Packet;
use gotatun::tun::MtuWatcher;
use tun_rs::{IDEAL_BATCH_SIZE, SyncDevice, VIRTIO_NET_HDR_LEN};

use crate::device::Device;
use crate::peer::Peer;

/// Largest packet a TUN device hands over whole.
const SUPER_PACKET: usize = VIRTIO_NET_HDR_LEN + 65_535;

/// Room beyond the MTU in the buffers of a super-packet's parts: enough that they do not all start in the same cache set.
const ROOM: usize = 192;

/// Runs until the TUN device is gone; returns why.
pub(crate) fn run(device: &Device, tun: &SyncDevice, mtu: u16) -> io::Error {
    let mut raw = vec![0; SUPER_PACKET];
    let mut packets = vec![vec![0; usize::from(mtu) + ROOM]; IDEAL_BATCH_SIZE];
    let mut lengths = vec![0; IDEAL_BATCH_SIZE];
    let mut burst = Burst { sealed: Vec::with_capacity(IDEAL_BATCH_SIZE), to: None };
    let mut mtu = MtuWatcher::new(mtu);
    loop {
        let count = match tun.recv_multiple(&mut raw, &mut packets, &mut lengths, 0) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A packet the splitter does not understand: it is lost, the device is well.
            Err(error) if error.raw_os_error().is_none() => {
                tracing::debug!(%error, "a packet of the TUN device was dropped");
                continue;
            }
            Err(error) => return error,
        };
        let packets = packets.iter().zip(&lengths).take(count).map(|(packet, length)| &packet[..*length]);
        send(device, packets, &mut burst, &mut mtu);
    }
}

/// Sealed packets for one address.
struct Burst {
    sealed: Vec<Packet>,
    to: Option<SocketAddr>,
}

fn send<'a>(
    device: &Device,
    packets: impl Iterator<Item = &'a [u8]>,
    burst: &mut Burst,
    mtu: &mut MtuWatcher,
) {
    let tables = device.read();
    let Some(sockets) = tables.sockets.as_deref().filter(|_| tables.identity.configured) else { return };
    let flush = |burst: &mut Burst| {
        if let Some(to) = burst.to {
            sockets.send(&burst.sealed, to);
        }
        burst.sealed.clear();
    };
    let mut last: Option<(IpAddr, &Arc<Peer>)> = None;
    for packet in packets {
        let Some(to) = destination(packet) else { continue };
        // The packets of a super-packet have one destination: look it up once.
        let peer = match last {
            Some((address, peer)) if address == to => peer,
            _ => {
                let Some(peer) = tables.route(to) else { continue };
                last = Some((to, peer));
                peer
            }
        };
        let mut state = peer.lock();
        // A peer without an endpoint cannot even be asked for a handshake: the packet is dropped, as in the kernel.
        let Some(endpoint) = state.endpoint else { continue };
        let Some(sealed) = state.seal(Packet::from_bytes(BytesMut::from(packet)), mtu) else { continue };
        drop(state);
        device.expect_answers(&sealed, peer);
        if burst.to != Some(endpoint) {
            flush(burst);
            burst.to = Some(endpoint);
        }
        burst.sealed.push(sealed.into());
    }
    flush(burst);
}

/// Where an IP packet goes; `None` when it is not one.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?).into()),
        6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_headers_have_a_destination() {
        let mut v4 = [0u8; 20];
        v4[0] = 0x45;
        v4[16..].copy_from_slice(&[100, 64, 0, 1]);
        assert_eq!(destination(&v4), Some("100.64.0.1".parse().unwrap()));
        assert_eq!(destination(&v4[..19]), None);
        let mut v6 = [0u8; 40];
        v6[0] = 0x60;
        v6[39] = 1;
        assert_eq!(destination(&v6), Some("::1".parse().unwrap()));
        assert_eq!(destination(&[0x10; 40]), None);
        assert_eq!(destination(&[]), None);
    }
}
