//! The relay without sockets: DERP sessions between node keys, STUN answers, and peer-relay sessions ([`PeerRelay`]).
//!
//! [`login`] proves a client's key; the shell then asks whether that node may use the relay, and only then calls
//! [`Server::admit`]. From there on what the stream brought goes in by [`Link::receive`] and what it is to carry comes out by
//! [`Link::transmit`]; a link belongs to one task, which the server wakes. An [`Uplink`] is the same towards another server of
//! the region. Time and random bytes are arguments. Deliberately not here: streams, HTTP, who may connect (relay).
//!
//! | file | noun |
//! |---|---|
//! | `server` | what an operator chooses, what all connections share |
//! | `registry` | who is connected, where, and who wants to know |
//! | `link`, `uplink` | a connection of a client, a connection to another server |
//! | `mailbox` | what waits for a connection |
//! | `client` | the connections of one key |
//! | `peer_relay` | peer-relay sessions |

mod bucket;
mod client;
mod counters;
mod link;
pub mod login;
mod mailbox;
mod peer_relay;
mod registry;
mod server;
mod stun;
mod uplink;

pub use bucket::{Rate, TokenBucket};
pub use counters::{Counters, DropReason, PacketKind};
pub use link::Link;
pub use peer_relay::{
    Change, Leg, PLACES, PeerRelay, Refusal, RelayConfig, RelayCounters, RelayDrop, Relayed, Saved,
    SavedSession, SessionReport, Traffic,
};
pub use server::{Admission, Config, ConnectionId, Server, Violation};
pub use stun::{StunCounters, StunServer};
pub use uplink::Uplink;
