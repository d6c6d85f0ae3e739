//! What node and server share above sockets: dialing, TLS with pins, HTTP upgrades, the Noise stream, the DERP client.
//!
//! Async, without policy: who is dialed, when and how often is decided above. Deliberately not here: formats (`wire`).

pub mod derp;
mod derp_server;
pub mod dial;
pub mod fetch;
pub mod noise;
pub mod stream;
pub mod tls;
mod tls_verify;
pub mod ts2021;
pub mod upgrade;
