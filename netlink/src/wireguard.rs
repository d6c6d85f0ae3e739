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

use crate::kernel::Kernel;
use crate::uapi::Userspace;
use crate::{Error, Handle, Kind, Result};

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
    /// Takes these prefixes away from the peer. They must be its own: in the kernel they leave whichever peer has them.
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

impl Peer {
    pub(crate) fn new(key: PublicKey) -> Self {
        Self {
            key,
            endpoint: None,
            allowed_ips: Vec::new(),
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
            keepalive: 0,
        }
    }
}

impl PeerChange {
    /// What must happen earlier has the smaller rank: a prefix leaves its old peer before it joins its new one.
    fn rank(&self) -> u8 {
        match self {
            Self::Remove { .. } => 0,
            Self::RemoveAllowedIps { .. } => 1,
            _ => 2,
        }
    }
}

/// One WireGuard device. Use one value as its only writer: a long change is several messages.
#[derive(Clone)]
pub struct Wireguard {
    name: String,
    backend: Backend,
    driver: Driver,
}

#[derive(Clone)]
enum Driver {
    Kernel(Kernel),
    Userspace(Userspace),
}

impl Wireguard {
    /// Finds out who runs device `name` of the handle's network namespace.
    ///
    /// # Errors
    /// [`Error::NotWireguard`] when there is no such link, or it is neither the kernel's nor does a UAPI socket answer.
    pub async fn open(handle: &Handle, name: &str) -> Result<Self> {
        // The socket's path knows no namespaces, so the link must be here as well.
        let absent = || Error::NotWireguard(name.into());
        let link = handle.link(name).await?.ok_or_else(absent)?;
        let (backend, driver) = if link.kind == Kind::Wireguard {
            (Backend::Kernel, Driver::Kernel(Kernel::open(handle, name).await?))
        } else {
            let userspace = Userspace::open(name).await.ok_or_else(absent)?;
            (Backend::Userspace(name.into()), Driver::Userspace(userspace))
        };
        Ok(Self { name: name.into(), backend, driver })
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
        match &self.driver {
            Driver::Kernel(kernel) => kernel.device().await,
            Driver::Userspace(userspace) => userspace.device().await,
        }
    }

    /// Changes the device itself; peers are not touched.
    ///
    /// # Errors
    /// `is_taken` when the port is in use.
    pub async fn configure(&self, change: &DeviceChange) -> Result<()> {
        match &self.driver {
            Driver::Kernel(kernel) => kernel.configure(change).await,
            Driver::Userspace(userspace) => userspace.configure(change).await,
        }
    }

    /// Applies steps on peers: removals first, then the others in their order.
    ///
    /// # Errors
    /// The first refusal; messages before it stay applied.
    pub async fn apply(&self, changes: &[PeerChange]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut ordered: Vec<_> = changes.iter().collect();
        ordered.sort_by_key(|change| change.rank());
        match &self.driver {
            Driver::Kernel(kernel) => kernel.apply(ordered.into_iter()).await,
            Driver::Userspace(userspace) => userspace.apply(ordered.into_iter()).await,
        }
    }
}
