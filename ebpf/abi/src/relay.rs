//! Keys and values of the peer relay's sessions, and of what a relay and a STUN server share.
//!
//! A session is two ends that a VNI names. The loader writes ends, programs write use; each in a map of its own, so that
//! neither overwrites the other's. Both maps are arrays, because a look-up in a hash takes as long as all the rest.

use crate::Address;

/// One end of a session: a client, and the address of ours it knows the relay by. All of it comes from the loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RelayEnd {
    /// The client's address.
    pub address: Address,
    /// Our address: where the client sends to, and what we send to it from.
    pub local: Address,
    /// The client's port, network order.
    pub port: [u8; 2],
    /// A [`crate::Family`]; zero in both ends: the session waits for its clients, and its packets are for the socket.
    pub family: u8,
    /// Zero.
    pub zero: u8,
    /// What is added to the complement of a UDP checksum when this end's packet is sent on to the other end. Like the two
    /// below a ones' complement sum in memory order (RFC 1624).
    pub udp_delta: u16,
    /// The same for the IPv4 header, the time to live included; of no use when an end is IPv6.
    pub ip_delta: u16,
    /// Sum of the pseudo header of this end's packets, without the length: what a sender that leaves the checksum to its
    /// device has put into the checksum field.
    pub pseudo: u16,
    /// Zero.
    pub zero2: u16,
}

/// Two clients that may send to each other: the value of `RELAY_SESSIONS`, at the place that its VNI says.
///
/// Programs read it while the loader may be writing: the stamp is read first and last, and nothing was written in between if
/// it is the same. The loader writes 0 into it, then the rest, then the new stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RelaySession {
    /// The VNI below, and above it a number that no other session ever had; zero: no session.
    pub stamp: u64,
    /// The ends, in the order of the relay's allocation.
    pub ends: [RelayEnd; 2],
    /// Zero, up to two cache lines.
    pub zero: [u64; 4],
}

impl RelaySession {
    /// The stamp of a session.
    #[inline(always)]
    pub const fn stamp(vni: u32, number: u32) -> u64 {
        (number as u64) << 32 | vni as u64
    }

    /// The VNI of a stamp.
    #[inline(always)]
    pub const fn vni(stamp: u64) -> u32 {
        stamp as u32
    }

    /// The number of a stamp.
    #[inline(always)]
    pub const fn number(stamp: u64) -> u32 {
        (stamp >> 32) as u32
    }

    /// Where a VNI's session is, in `RELAY_SESSIONS` and in `RELAY_USE`. Who allocates VNIs sees to it that no two sessions
    /// have the same place.
    #[inline(always)]
    pub const fn place(vni: u32) -> u32 {
        vni % crate::MAX_RELAY_SESSIONS
    }
}

/// What became of a session's packets, by the end that sent them: the value of `RELAY_USE`, written by programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RelayUses {
    /// In the order of the session's ends.
    pub ends: [RelayUse; 2],
}

/// What became of one end's packets, and where they go: one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RelayUse {
    /// Packets that this end sent and that were sent on.
    pub packets: u64,
    /// Their UDP payload, the relay's header included, as Tailscale counts.
    pub bytes: u64,
    /// When the last of them came: nanoseconds since boot without suspend; zero: never.
    pub seen: u64,
    /// The way to the other end, as the routes had it a moment ago.
    pub hop: Hop,
    /// Zero.
    pub zero: u64,
}

/// A next hop, remembered for a moment so that not each packet asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Hop {
    /// When the routes were asked, in nanoseconds since boot; zero: never.
    pub asked: u64,
    /// The device.
    pub ifindex: u32,
    /// The longest IP packet that may go there, in bytes.
    pub mtu: u32,
    /// The first twelve bytes of the Ethernet header.
    pub macs: [u32; 3],
    /// The number of the session it was asked for.
    pub number: u32,
}

/// An address of ours on a device with `underlay`: a value of `OWN`, at one of two places that a hash gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Own {
    /// The address.
    pub address: Address,
    /// The device; zero in a place that is free.
    pub ifindex: u32,
    /// A [`crate::Family`].
    pub family: u32,
    /// Not zero: the device is a veth. What a program sends back the way it came lies in the other end's ring until
    /// something else wakes that end (`veth_xdp_flush` looks for an XDP program, not for NAPI); what is redirected does not.
    pub veth: u32,
    /// Zero.
    pub zero: u32,
}

impl Own {
    /// The two places where it may be.
    #[inline(always)]
    pub const fn places(&self) -> [u32; 2] {
        let [a, b, c, d] = self.address;
        let mixed = (a ^ b.rotate_left(7) ^ c.rotate_left(14) ^ d ^ self.ifindex).wrapping_mul(0x9e37_79b1);
        let place = mixed >> 16 & (crate::OWN_PLACES - 1);
        [place, place ^ 1]
    }
}

/// How STUN requests are answered: the value of `STUN`. All zero is valid: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StunSettings {
    /// Nanoseconds that a request of a source costs; zero: nothing.
    pub cost: u64,
    /// Nanoseconds that a source may be ahead.
    pub burst: u64,
    /// Random, so that strangers do not know who shares a bucket.
    pub seed: u32,
    /// Not zero: requests are dropped, the server is leaving.
    pub dropping: u32,
}
