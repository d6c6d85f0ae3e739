//! The coordination server's decisions, without IO: who may join, what each node is told, and what the policy means.

pub mod addresses;
pub mod policy;
