//! The relay without sockets: DERP sessions between node keys, STUN answers, and peer-relay sessions ([`PeerRelay`]).
//!
//! [`login`] proves a client's key; the shell then asks whether that node may use the relay, and only then calls
//! [`Server::admit`]. From there on frames go in by [`Server::handle_frame`], and whoever has something to be written is
//! named by [`Server::poll_wake`] and drained by [`Server::poll_transmit`]. Time and random bytes are arguments.
//! Deliberately not here: streams, HTTP, who may connect (relay), meshing of several servers.

mod bucket;
mod client;
mod counters;
pub mod login;
mod outbox;
mod peer_relay;
mod server;
mod stun;

pub use bucket::{Rate, TokenBucket};
pub use counters::{Counters, DropReason, PacketKind};
pub use peer_relay::{
    Change, Leg, PLACES, PeerRelay, Refusal, RelayConfig, RelayCounters, RelayDrop, Relayed, Saved,
    SavedSession, SessionReport, Traffic,
};
pub use server::{Config, ConnectionId, Server, Violation};
pub use stun::{StunCounters, StunServer};
