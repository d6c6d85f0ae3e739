//! Wire formats: bytes to structs and back, no state, no IO. One module a protocol.

pub mod control;
pub mod local;
