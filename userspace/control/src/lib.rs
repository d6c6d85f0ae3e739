//! The coordination server: sockets, clocks, storage and tasks around `control_core`.
//!
//! `server` starts and stops it; `coordinator` is the one task that owns the state; `http` is its face to nodes, `admin`
//! to the administrator; `store` keeps what must survive. Deliberately not here: every decision about who may join, what
//! a node is told and what the policy means.

pub mod admin;
mod certificate;
mod config;
mod coordinator;
mod http;
mod regions;
mod server;
mod state;
mod store;

pub use config::{Config, ConfigError, DEFAULT_SOCKET, Options, ServerUrl, Tls};
pub use server::{run, run_until};

/// Random bytes for keys and jitter.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel's random source never fails once it is seeded");
    bytes
}
