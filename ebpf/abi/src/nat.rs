//! Keys and values of the gateway's sessions and of its address translation.
//!
//! A *session* is one flow through the gateway. It owns one place of `PLACES`, which bounds how many there are and says
//! how the flow does; `SESSIONS` finds it from either edge and says what its packets become there. A *mapping* gives an
//! inner endpoint one outer port, whomever it speaks to (RFC 4787 REQ-1): `MAPPINGS` finds the port from inside, `OWNERS`
//! the inner endpoint from outside. All of it is written by programs; the loader writes `GATEWAY`, `LANS` and `ROUTES`.

use crate::{Address, Counter};

/// Where a packet enters the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Edge {
    /// Out of the tunnel.
    Tunnel = 1,
    /// From a device of the LAN side.
    Lan = 2,
    /// Not a packet's: says that an outer endpoint has sent to an address lately, whatever the port.
    Contact = 3,
}

/// A packet's flow as it looks where it enters: the key of `SESSIONS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct SessionKey {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// Sender's port, network order. Who asks with an ICMP echo has its identifier for a port, who answers has port 0.
    pub source_port: [u8; 2],
    /// Receiver's port.
    pub destination_port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`crate::Family`]; zero in a place never used.
    pub family: u8,
    /// An [`Edge`].
    pub edge: u8,
    /// Zero.
    pub zero: u8,
}

/// What packets of a session become: out of the tunnel they get this source, from the LAN this destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Session {
    /// The address.
    pub address: Address,
    /// The port, network order.
    pub port: [u8; 2],
    /// Zero.
    pub zero: u16,
    /// The session's place.
    pub place: u32,
}

/// How a session does: a value of `PLACES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// The session's key at the tunnel's edge; whatever else is keyed by it follows from `SESSIONS`.
    pub key: SessionKey,
    /// When its last packet came, to the second: nanoseconds since boot without suspend.
    pub seen: u64,
    /// The filter that last let it in.
    pub generation: u32,
    /// A stage: [`STAGE_FREE`], [`STAGE_NEW`] or [`STAGE_OPEN`].
    pub stage: u8,
    /// What TCP flags have been seen: the bits `TCP_*`.
    pub tcp: u8,
    /// Zero.
    pub zero: u16,
    /// Out of the tunnel.
    pub sent: Counter,
    /// Into the tunnel.
    pub received: Counter,
}

/// Nobody's place.
pub const STAGE_FREE: u8 = 0;
/// The filter let its first packet in; whether the stack forwards it is not known yet.
pub const STAGE_NEW: u8 = 1;
/// The stack has forwarded it: later packets may take the short way.
pub const STAGE_OPEN: u8 = 2;

/// A packet went out of the tunnel.
pub const TCP_OUT: u8 = 1;
/// A packet went into the tunnel.
pub const TCP_IN: u8 = 2;
/// A FIN went out of the tunnel.
pub const TCP_FIN_OUT: u8 = 4;
/// A FIN went into the tunnel.
pub const TCP_FIN_IN: u8 = 8;
/// A reset, and nothing else since.
pub const TCP_RESET: u8 = 16;

/// An inner endpoint and the outer address it is to be hidden behind: the key of `MAPPINGS`. The value is its outer port,
/// network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct InnerKey {
    /// The inner address.
    pub address: Address,
    /// The outer address.
    pub outer: Address,
    /// The inner port, network order.
    pub port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`crate::Family`].
    pub family: u8,
}

/// An outer endpoint: the key of `OWNERS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct OuterKey {
    /// The outer address.
    pub address: Address,
    /// The outer port, network order.
    pub port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`crate::Family`].
    pub family: u8,
}

/// Whose an outer endpoint is. An entry is never removed by programs: when `until` is past and the session in `place` is
/// over, it is anybody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Owner {
    /// Until when, in nanoseconds since boot without suspend. Who swaps it atomically is the new owner.
    pub until: u64,
    /// The inner address.
    pub address: Address,
    /// The inner port, network order.
    pub port: [u8; 2],
    /// Zero.
    pub zero: u16,
    /// The place of its newest session.
    pub place: u32,
}

/// Value of `GATEWAY`. All zero: no fast path and no translation in programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Gateway {
    /// The WireGuard device; zero switches all of it off.
    pub tunnel: u32,
    /// The WireGuard device's MTU.
    pub mtu: u32,
    /// Places in use, at most what `PLACES` holds.
    pub places: u32,
    /// What may come in from outside to an outer endpoint: `FILTER_*`.
    pub filtering: u32,
    /// First and last port that translation gives out, host order; parity is kept.
    pub first_port: u16,
    /// See `first_port`.
    pub last_port: u16,
    /// Zero.
    pub zero: u32,
}

/// Only who was sent to, from the port that was sent to (RFC 4787 section 5).
pub const FILTER_ADDRESS_AND_PORT: u32 = 0;
/// Only who was sent to, from any port.
pub const FILTER_ADDRESS: u32 = 1;
/// Anybody.
pub const FILTER_NONE: u32 = 2;

/// A device of the LAN side: value of `LANS`, found by interface index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Lan {
    /// What IPv4 flows are hidden behind; zero: nothing to hide behind.
    pub v4: u32,
    /// Zero.
    pub zero: [u32; 3],
    /// What IPv6 flows are hidden behind.
    pub v6: Address,
}

/// `ROUTES`: we forward to here, by longest prefix (the key is [`crate::PeerKey`]).
pub const ROUTE_PLAIN: u32 = 1;
/// The same, with the source translated.
pub const ROUTE_TRANSLATED: u32 = 2;

/// The bits of a packet's mark that are ours and Tailscale's (`tsconst/linuxfw.go`).
pub const MARK_MASK: u32 = 0xff_0000;
/// From the tunnel, to be translated where it leaves; Tailscale's mark.
pub const MARK_TRANSLATE: u32 = 0x4_0000;
/// Of a session that needs no translation any more.
pub const MARK_KNOWN: u32 = 0x1_0000;
/// A new flow that no place is left for: the stack refuses it with ICMP.
pub const MARK_REFUSED: u32 = 0x2_0000;

/// Regions of the first half of the places: peers with the same slot modulo this share one. The second half is for all.
pub const PLACE_REGIONS: u32 = 32;
/// Places when nothing else is asked for.
pub const DEFAULT_PLACES: u32 = 65_536;

const SECOND_NS: u64 = 1_000_000_000;
/// UDP and what is like it (RFC 4787 REQ-5: five minutes recommended).
pub const UDP_IDLE_NS: u64 = 300 * SECOND_NS;
/// An ICMP query (RFC 5508 REQ-2: at least 60 s).
pub const ICMP_IDLE_NS: u64 = 60 * SECOND_NS;
/// An established TCP connection (RFC 5382 REQ-5: at least 2 hours 4 minutes).
pub const TCP_IDLE_NS: u64 = (2 * 3600 + 4 * 60) * SECOND_NS;
/// A TCP connection that opens or closes (RFC 5382 REQ-5: at least 4 minutes).
pub const TCP_TRANSITORY_NS: u64 = 240 * SECOND_NS;
/// A flow that the stack has not forwarded: long enough for a neighbor to be found.
pub const NEW_IDLE_NS: u64 = 10 * SECOND_NS;
/// How often a session's time is written.
pub const SESSION_TOUCH_NS: u64 = SECOND_NS;

/// The datagram whose fragments a CPU is sending, and what they become. The stack sends fragments of one datagram one
/// behind the other, first one first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Train {
    /// The sender.
    pub source: Address,
    /// The receiver.
    pub destination: Address,
    /// The new address.
    pub address: Address,
    /// The datagram's identification, as it stands in the packet.
    pub id: u32,
    /// IANA protocol number, and a [`crate::Family`] above it.
    pub kind: u32,
}
