//! The coordination server: sockets, clocks, storage and tasks around `control_core`.
//!
//! Deliberately not here: every decision about who may join, what a node is told and what the policy means.

pub mod admin;
mod config;

pub use config::{Config, ConfigError, DEFAULT_SOCKET, Options, ServerUrl, Tls};
