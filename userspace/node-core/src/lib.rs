//! The sans-IO node.
pub mod filter;
