//! What the kernel programs and the loader agree on: map keys and values, reasons, limits.
//!
//! Plain old data. Every struct is `repr(C)` without implicit padding, because the kernel compares and hashes map keys as
//! bytes. Addresses and ports are bytes in network order. Deliberately not here: any logic (`packet`), and the maps
//! themselves (`programs/src/maps.rs`).
#![no_std]

mod config;
mod detour;
mod disco;
mod filter;
mod flow;
mod nat;
#[cfg(feature = "user")]
mod pod;
mod reason;
mod relay;

pub use config::{Config, Object, TRACE_DROPS, TRACE_ON};
pub use detour::{Arrival, Endpoint, Inward, Outward, vni_word};
pub use disco::{
    ANSWERED_RING, Answered, BUCKETS, DiscoPeer, KeyWords, MAX_DISCO_PEERS, Nonces, SOURCE_BUCKETS, Shield,
};
pub use filter::{AddressKey, PairKey, PortRange, Side, Span};
pub use flow::{FlowKey, FlowRegion, FlowTimes, PeerKey};
pub use nat::*;
pub use reason::{Counter, Hook, Next, Program, REASONS, Reason, Verdict};
pub use relay::{Hop, Own, RelayEnd, RelaySession, RelayUse, RelayUses, StunSettings};

/// Folder of the pins below `/sys/fs/bpf/underpass`. Any change of a map's layout or meaning needs a new one.
pub const PIN_VERSION: &str = "v2";

/// Distinct prefixes of one filter, sources and destinations together; the maps hold two generations.
pub const MAX_PREFIXES: u32 = 65_536;
/// Pairs of source class and destination class of one filter that some rule opens.
pub const MAX_PAIRS: u32 = 65_536;
/// Port ranges of one filter, after merging and sharing. `log2` of it bounds the program's search.
pub const MAX_RANGES: u32 = 131_072;

/// Reply flows one peer can hold. Tailscale holds 512 for all peers together (`wgengine/filter/filter.go`, `lruMax`), but
/// evicts; we never evict a live one.
pub const FLOWS_PER_REGION: u32 = 2_048;
/// Regions of the flow table. Peer slot `n` uses region `n % FLOW_REGIONS`.
pub const FLOW_REGIONS: u32 = 32;
/// Reply flows of a node.
pub const MAX_FLOWS: u32 = FLOWS_PER_REGION * FLOW_REGIONS;
/// How long a flow without outbound packets still lets replies in (RFC 4787 REQ-5: 5 minutes recommended), in nanoseconds.
pub const FLOW_IDLE_NS: u64 = 300 * SECOND_NS;
/// How long a flow that sent only once, such as a DNS query, keeps its place when others need it. With
/// [`FLOWS_PER_REGION`], about a hundred queries a second to one peer.
pub const QUERY_IDLE_NS: u64 = 20 * SECOND_NS;
/// A flow that sends again after this long is no single query, and is touched at most this often.
pub const FLOW_TOUCH_NS: u64 = SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;
/// Prefixes of all peers, for finding the region of a flow.
pub const MAX_PEER_PREFIXES: u32 = 65_536;
/// Sessions of a peer relay: pairs of clients. A power of two.
pub const MAX_RELAY_SESSIONS: u32 = 16_384;
/// How long a next hop is believed before the routes are asked again, in nanoseconds.
pub const HOP_AGE_NS: u64 = SECOND_NS;
/// Places for addresses of ours on devices with `underlay`. A power of two.
pub const OWN_PLACES: u32 = 4_096;
/// Sources of STUN requests share so many token buckets, by hash. A power of two.
pub const STUN_BUCKETS: u32 = 4_096;
/// Prefixes a gateway forwards to.
pub const MAX_ROUTES: u32 = 65_536;
/// Detours: relayed peers and peers behind hard NATs together.
pub const MAX_DETOURS: u32 = 4_096;
/// Attachments one set of programs can have: underlay devices and the tunnel.
pub const MAX_ATTACHMENTS: u32 = 256;

/// An IPv4 or IPv6 address as the packet carries it: words in memory order, IPv4 in the first and zeros behind.
///
/// Words, not bytes: the BPF target has no unaligned access, so byte arrays would be copied byte by byte.
pub type Address = [u32; 4];

/// Address family, as the keys carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}
