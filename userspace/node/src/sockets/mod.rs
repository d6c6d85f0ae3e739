//! The daemon's sockets on the underlay and on loopback.
//!
//! DISCO and STUN come in by `controller` (where the `steer` program puts them), leave by `raw` (from the WireGuard port,
//! which the kernel's WireGuard owns), packets of peers reached over DERP pass through `loopback`, and pings inside the
//! tunnel through `tunnel`. Deliberately not
//! here: TCP connections to control and DERP (`transport`).

mod controller;
mod datagram;
mod loopback;
mod raw;
pub(crate) mod tunnel;

pub(crate) use controller::{Controller, Datagram};
pub(crate) use loopback::{FromKernel, Loopback};
pub(crate) use raw::RawSender;

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

/// Marks a packet as our own on the underlay: our rules keep it out of the tunnel (Tailscale's `0x80000/0xff0000`).
pub(crate) const BYPASS_MARK: u32 = 0x80000;

pub(crate) fn set_bypass_mark(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::Mark, &BYPASS_MARK).map_err(io::Error::from)
}
