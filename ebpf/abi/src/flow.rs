//! Keys and values of the reply-flow table.
//!
//! Outbound UDP and SCTP open a flow; its replies pass the filter. The table is bounded without ever evicting a live
//! flow: each flow occupies one place of `FLOW_RING`, each peer owns one region of the ring, and a new flow takes a
//! place whose flow is over.

use crate::{Address, Family};

/// A flow as seen from here: the key of `FLOWS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Our side.
    pub local: Address,
    /// The peer's side.
    pub remote: Address,
    /// Our port, network order.
    pub local_port: [u8; 2],
    /// The peer's port, network order.
    pub remote_port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`Family`]; zero in a ring place never used.
    pub family: u8,
    /// Zero.
    pub zero: u16,
}

/// When a flow sent: the value of `FLOWS`, in nanoseconds since boot without suspend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowTimes {
    /// Its first packet.
    pub first: u64,
    /// Its last one, to the second.
    pub last: u64,
}

/// Finds the peer slot (a `u32`) that an address is routed to, by longest prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct PeerKey {
    /// A [`Family`].
    pub family: u32,
    /// The address.
    pub address: Address,
}

impl PeerKey {
    /// Bits before the address.
    pub const HEAD_BITS: u32 = 32;

    /// The key of `address`.
    #[inline(always)]
    pub const fn new(family: Family, address: Address) -> Self {
        Self { family: family as u32, address }
    }
}

/// State of one region of the flow ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowRegion {
    /// Places handed out so far; the next is this modulo the region's size.
    pub cursor: u64,
}
