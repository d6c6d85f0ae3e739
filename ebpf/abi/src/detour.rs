//! Detours: WireGuard endpoints that are something else on the wire.
//!
//! A kernel WireGuard knows a peer by address and port. A peer behind a relay is address, port and VNI on the wire, and a
//! peer behind a hard NAT is spoken to from another source port. Each has an endpoint that WireGuard believes in, and the
//! programs turn one into the other, in both directions, so that WireGuard's roaming agrees with us.

use crate::{Address, Family};

/// Where WireGuard sends to: the key of `DETOURS_OUT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Endpoint {
    /// The address, the same on the wire.
    pub address: Address,
    /// The port, network order. Of a relayed peer it is one that we chose.
    pub port: [u8; 2],
    /// A [`Family`].
    pub family: u8,
    /// Zero.
    pub zero: u8,
}

impl Endpoint {
    /// The key of an address and port.
    #[inline(always)]
    pub const fn new(family: Family, address: Address, port: [u8; 2]) -> Self {
        Self { address, port, family: family as u8, zero: 0 }
    }
}

/// What it is on the wire: the value of `DETOURS_OUT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Outward {
    /// The second word of the Geneve header, as the packet carries it ([`vni_word`]); zero: no header.
    pub vni: u32,
    /// The remote port, network order.
    pub port: [u8; 2],
    /// Our port, network order; zero: WireGuard's.
    pub source_port: [u8; 2],
}

/// What comes by a detour: the key of `DETOURS_IN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Arrival {
    /// The sender's address.
    pub address: Address,
    /// The sender's port, network order.
    pub port: [u8; 2],
    /// The port of ours that it is sent to, network order.
    pub local_port: [u8; 2],
    /// As [`Outward::vni`].
    pub vni: u32,
    /// A [`Family`].
    pub family: u32,
}

/// What WireGuard sees: the value of `DETOURS_IN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Inward {
    /// The sender's port, network order.
    pub port: [u8; 2],
    /// Zero.
    pub zero: [u8; 2],
}

/// A VNI of 24 bits as the second word of a Geneve header, in memory order (RFC 8926 section 3.4).
#[inline(always)]
pub const fn vni_word(vni: u32) -> u32 {
    (vni << 8).to_be()
}
