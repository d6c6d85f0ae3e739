//! Keys and values of the packet filter.
//!
//! A filter is compiled to classes: every source address belongs to one source class (the set of rules that name it),
//! every local address to one destination class, and a pair of classes has one sorted list of ranges. So a packet
//! costs the same few lookups whether there is one rule or ten thousand.

use crate::{Address, Family};

/// Which end of the packet an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Side {
    /// The sender.
    Source = 1,
    /// The receiver.
    Destination = 2,
}

/// Finds an address's class: exact in `HOSTS`, by longest prefix in `PREFIXES`. The value is the class, a `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct AddressKey {
    /// The filter this entry belongs to; never zero.
    pub generation: u32,
    /// A [`Side`].
    pub side: u8,
    /// A [`Family`].
    pub family: u8,
    /// Zero.
    pub zero: u16,
    /// The address.
    pub address: Address,
}

impl AddressKey {
    /// Bits before the address; a prefix of length `n` has key length `HEAD_BITS + n`.
    pub const HEAD_BITS: u32 = 64;

    /// The key of `address` in filter `generation`.
    #[inline(always)]
    pub const fn new(generation: u32, side: Side, family: Family, address: Address) -> Self {
        Self { generation, side: side as u8, family: family as u8, zero: 0, address }
    }
}

/// Finds what some source class may do to some destination class. No entry: no rule opens the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct PairKey {
    /// The filter this entry belongs to.
    pub generation: u32,
    /// Class of the source.
    pub source: u32,
    /// Class of the destination.
    pub destination: u32,
}

/// A stretch of the `RANGES` array. It may be empty: then the pair is open to ICMP only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Span {
    /// Position of the first range.
    pub start: u32,
    /// Number of ranges: ascending, disjoint.
    pub count: u32,
}

/// Protocols and ports as one line of numbers: `protocol << 16 | port`, in host order. A protocol without ports is
/// matched as port 0 of a range that covers all its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct PortRange {
    /// First number.
    pub first: u32,
    /// Last number, included.
    pub last: u32,
}

impl PortRange {
    /// The point `protocol`, `port` on the line.
    #[inline(always)]
    pub const fn point(protocol: u8, port: u16) -> u32 {
        (protocol as u32) << 16 | port as u32
    }
}
