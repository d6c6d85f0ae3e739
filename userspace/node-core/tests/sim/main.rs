//! Whole nodes against each other in virtual time: real `Node`s, a model of the kernel's WireGuard, NATs, DERP, STUN and
//! control. The same seed gives the same run.
//!
//! `world` has the hosts and the clock, `traffic` moves everything, `kernel` and `nat` are models; the rest are the tests.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod alone;
mod failover;
mod kernel;
mod nat;
mod pairs;
mod relay;
mod restart;
mod traffic;
mod traps;
mod uplinks;
mod world;
