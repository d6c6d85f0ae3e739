//! The embedded userspace WireGuard: for machines whose kernel has none.
//!
//! [`run`] is the whole process `underpass wireguard --device NAME`: a TUN device, one UDP socket a family, and the
//! standard UAPI socket `/var/run/wireguard/NAME.sock`, so that `wg`, wireguard-control and `netlink::wireguard` drive it
//! like any other. It knows nothing of the product and outlives whoever started it; it ends when its socket file or its
//! device is deleted. [`spawn`] starts it as a process of its own, or adopts the one that runs. [`stop`] ends it.
//!
//! ```text
//!   TUN ──> outbound ──> UDP        one thread each; `timers` sends what time demands, `uapi` changes the tables
//!   TUN <── inbound  <── UDP        (one inbound thread a family)
//! ```
//!
//! The protocol is gotatun's `Tunn`, Mullvad's fork of boringtun with some ten releases in 2026: ring's assembly for the
//! cipher, staged packets and Linux's own timers. boringtun 0.7.1 neither pads packets nor stops at the limit of messages
//! of a key, and limits handshakes of all senders together. gotatun's device layer is not used: TUN packets come one by
//! one, UDP leaves without segmentation offload, a change of port drops the old socket before it tries the new one, and
//! its life is a tokio runtime's. The loops here move super-packets instead: TSO and USO on the TUN side (tun-rs), UDP GSO
//! and GRO on the other.
//! Deliberately not here: addresses, routes and link state of the device (`netlink`), and sticky source addresses.

mod allowed_ips;
mod device;
mod inbound;
mod outbound;
mod peer;
mod process;
mod request;
mod socket;
mod spawn;
mod timers;
mod uapi;

pub use process::{Options, run};
pub use spawn::{SpawnOptions, Started, spawn, stop};

/// Why an embedded device could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name the kernel would refuse, or one that would leave the socket's folder.
    #[error("{0:?} is no device name: 1 to 15 letters, digits, '-', '_', '.' or '='")]
    Name(String),
    /// A link of that name exists and is not ours.
    #[error(
        "cannot create device {0}: a link of that name exists (delete it with `ip link delete {0}`, or choose another name)"
    )]
    NameTaken(String),
    /// A process answers on the socket of that name, but its device is not in this network namespace.
    #[error("device {0} is run by a process in another network namespace: choose another name")]
    Elsewhere(String),
    /// The TUN device could not be made.
    #[error("cannot create TUN device {device}: {source} (it needs root and /dev/net/tun)")]
    Tun {
        /// The device name.
        device: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A file or socket could not be made.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// A verb.
        action: &'static str,
        /// What it was done to.
        path: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The started process said why it gave up, or ended without a word.
    #[error("the embedded WireGuard for {device} did not start: {message}")]
    Start {
        /// The device name.
        device: String,
        /// Its own words.
        message: String,
    },
    /// The process did not end in time.
    #[error("the embedded WireGuard for {0} did not end within five seconds")]
    Stuck(String),
}
