//! The LocalAPI over a real socket: its HTTP, our command line and the stock one as clients, and who may do what.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod http;
mod ours;
mod scripted;
mod server;
mod stock;
