//! One peer: its protocol state, where it is, and what it has sent and received.
//!
//! The lock is held for one packet's cryptography or one burst's, never across a system call, and never while another
//! lock is taken.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgCookieReply, WgData, WgHandshakeInit, WgHandshakeResp, WgKind};
use gotatun::tun::MtuWatcher;

/// A peer, shared by the threads.
pub(crate) struct Peer {
    /// Its identity.
    pub(crate) key: [u8; 32],
    state: Mutex<State>,
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) tunnel: Tunn,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) last_handshake: Option<SystemTime>,
    /// We answered a handshake; it is complete when data arrives (the initiator might have missed the answer).
    confirming: bool,
}

/// What an authenticated datagram led to.
#[derive(Default)]
pub(crate) struct Received {
    /// An IP packet of the peer, with padding.
    pub(crate) deliver: Option<Packet>,
    /// Messages to send to where the datagram came from: an answer, and what waited for the handshake.
    pub(crate) send: Vec<WgKind>,
}

impl Peer {
    pub(crate) fn new(key: [u8; 32], tunnel: Tunn) -> Self {
        let state = State {
            tunnel,
            endpoint: None,
            rx_bytes: 0,
            tx_bytes: 0,
            last_handshake: None,
            confirming: false,
        };
        Self { key, state: Mutex::new(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Encrypts an IP packet, or keeps it and starts a handshake; `None` when there is nothing to send now.
    pub(crate) fn seal(&mut self, packet: Packet, mtu: &mut MtuWatcher) -> Option<WgKind> {
        let sealed = self.tunnel.handle_outgoing_packet(packet, Some(mtu))?;
        self.count_sent(&sealed);
        Some(sealed)
    }

    /// Works an incoming datagram. The endpoint follows whoever authenticates, as in the kernel; a cookie does not.
    pub(crate) fn open(&mut self, message: WgKind, from: SocketAddr, mtu: &mut MtuWatcher) -> Received {
        let (bytes, completes, starts) = match &message {
            WgKind::HandshakeInit(_) => (length(&message), false, true),
            WgKind::HandshakeResp(_) => (length(&message), true, false),
            WgKind::Data(_) => (length(&message), self.confirming, false),
            WgKind::CookieReply(_) => (0, false, false),
        };
        let mut received = Received::default();
        match self.tunnel.handle_incoming_packet(message) {
            TunnResult::Done | TunnResult::Err(_) => return received,
            TunnResult::WriteToNetwork(answer) => received.send.push(answer),
            TunnResult::WriteToTunnel(packet) => {
                received.deliver = Some(packet).filter(|packet| !packet.is_empty());
            }
        }
        self.endpoint = Some(from);
        self.rx_bytes += bytes;
        self.confirming = starts;
        if completes {
            self.last_handshake = Some(SystemTime::now());
            received.send.extend(self.tunnel.get_queued_packets(mtu));
        }
        received.send.iter().for_each(|message| self.count_sent(message));
        received
    }

    /// What has become due: a handshake to start or repeat, a keep-alive.
    pub(crate) fn tick(&mut self) -> Option<WgKind> {
        // The error says that a handshake was given up; the next packet starts another.
        let due = self.tunnel.update_timers().ok().flatten()?;
        self.endpoint?;
        self.count_sent(&due);
        Some(due)
    }

    fn count_sent(&mut self, message: &WgKind) {
        self.tx_bytes += length(message);
    }
}

/// Bytes of a message in its datagram.
fn length(message: &WgKind) -> u64 {
    let bytes = match message {
        WgKind::HandshakeInit(_) => WgHandshakeInit::LEN,
        WgKind::HandshakeResp(_) => WgHandshakeResp::LEN,
        WgKind::CookieReply(_) => WgCookieReply::LEN,
        WgKind::Data(packet) => WgData::OVERHEAD + packet.encrypted_encapsulated_packet().len(),
    };
    bytes as u64
}

/// The number under which answers to a handshake message of ours arrive (`sender_index` of the paper).
pub(crate) fn receiver_index(message: &WgKind) -> Option<u32> {
    match message {
        WgKind::HandshakeInit(packet) => Some(packet.sender_idx.get()),
        WgKind::HandshakeResp(packet) => Some(packet.sender_idx.get()),
        _ => None,
    }
}
