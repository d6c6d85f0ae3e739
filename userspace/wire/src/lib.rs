//! Wire formats: bytes to structs and back, no state, no IO. One module a protocol.

pub mod control;
pub mod derp;
pub mod disco;
pub mod geneve;
pub mod local;
pub mod nacl;
pub mod portmap;
pub mod stun;
pub mod ts2021;
