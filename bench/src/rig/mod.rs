//! The rig: what loads a path with packets, and weighs it.
//!
//! ```text
//!   a (a0) ------- (rig0) relay (rig1) ------- (b0) b
//!   192.0.2.2   192.0.2.1       198.51.100.1   198.51.100.2
//! ```
//!
//! [`Generator`] sends from `a` on core 0; what is measured runs in `relay`: a program or the kernel on core 0, in the
//! generator's own context, because veth receives on its sender's core; a process on core 1. A [`Counter`] in `b`, or in `a`
//! for what answers, counts and drops. A [`Cell`] is one such case with its figures. Deliberately not here: what is compared
//! with what (`relay`, `stun`, `derp`).

mod bed;
mod cell;
mod frames;
mod generator;
mod kernel;
mod meter;
mod run;
mod search;

pub(crate) use bed::Bed;
pub(crate) use cell::{Cell, Figures, Outcome, Running, Sink, on_relay_core, sweep, take_turns};
pub(crate) use frames::{Frames, Udp};
pub(crate) use generator::on_generator_core;
pub(crate) use kernel::{Hop, Kernel, index};
pub(crate) use meter::Meter;
pub(crate) use run::{Effort, Run, guarded};
pub(crate) use search::{Found, search};

/// Where the generator and all that the kernel does on its behalf run.
pub(crate) const GENERATOR_CORE: usize = 0;
/// Where a relay's process runs, and with threaded NAPI all that it receives too.
pub(crate) const RELAY_CORE: usize = 1;
