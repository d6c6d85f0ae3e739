//! The coordination server's decisions, without IO: who may join, what each node is told, and what the policy means.

pub mod addresses;
pub mod admin;
pub mod auth_key;
mod delta;
pub mod liveness;
pub mod model;
pub mod names;
mod netmap;
pub mod network;
pub mod pending;
pub mod policy;
pub mod record;
pub mod register;
pub mod registry;
pub mod routes;

pub use delta::Tell;

#[cfg(test)]
mod tests;
