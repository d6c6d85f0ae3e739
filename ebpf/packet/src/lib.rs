//! What a packet is and what to do with it, as pure functions over "give me the words at this offset".
//!
//! The same code runs in the kernel (`programs` implements [`Frame`] and the lookups on the program's context and maps)
//! and on the host, where it is tested without root. Deliberately not here: maps, helpers, counters, and link layers: a
//! frame begins at its network header, because the kernel knows where that is, with or without Ethernet and VLAN tags.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod bucket;
mod checksum;
mod classify;
pub mod crypto;
mod detour;
pub mod disco;
mod filter;
mod fingerprint;
mod flow;
mod frame;
mod ip;
mod link;
pub mod nat;
pub mod proto;
mod relay;
pub mod shield;
mod steer;
mod stun;
mod udp;

pub use classify::{Class, classify, is_stun_request};
pub use detour::{
    GENEVE, Header, Headers, arrival, endpoint, geneve, headers, is_partial, relayed_vni, take_off,
};
pub use filter::{Lookups, decide};
pub use flow::{outbound, reply_of};
pub use frame::{Bytes, BytesMut, Frame, FrameMut};
pub use ip::{Ip, Piece};
pub use link::LinkFrame;
pub use relay::{Relay, Sender, forward, link_ends};
pub use steer::{Ports, detour, for_controller, next};
pub use stun::{Stun, answer};
pub use udp::Datagram;
