//! What the loader tells the programs at run time.

/// Value of the `CONFIG` map. All zero is valid: nothing is steered, relayed or traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// WireGuard's UDP port, network order; zero switches steering off.
    pub wireguard_port: [u8; 2],
    /// UDP port the controller's own sockets are bound to, network order.
    pub controller_port: [u8; 2],
    /// UDP port of the peer relay, network order; zero: this machine relays nothing.
    pub relay_port: [u8; 2],
    /// UDP port of a STUN server beside the relay's port, network order; zero: none.
    pub stun_port: [u8; 2],
    /// Not zero: there are detours.
    pub detours: u32,
    /// The device that packets go through to get a Geneve header (its other end has `wrap`); zero: none.
    pub wrap_ifindex: u32,
    /// The mark of our own packets on the underlay, and its mask.
    pub bypass_mark: u32,
    /// As above.
    pub bypass_mask: u32,
    /// More ports that DISCO and WireGuard may arrive on, host order: the first, and how many.
    pub probe_first: u16,
    /// As above; zero: none.
    pub probe_count: u16,
    /// [`TRACE_ON`], [`TRACE_DROPS`], or zero.
    pub trace: u32,
    /// Trace only packets from or to this IPv4 address; zero with `trace_v6` zero: all packets.
    pub trace_v4: u32,
    /// Trace only packets from or to this IPv6 address.
    pub trace_v6: crate::Address,
}

impl Config {
    /// As before the loader wrote any.
    pub const NONE: Self = Self {
        wireguard_port: [0; 2],
        controller_port: [0; 2],
        relay_port: [0; 2],
        stun_port: [0; 2],
        detours: 0,
        wrap_ifindex: 0,
        bypass_mark: 0,
        bypass_mask: 0,
        probe_first: 0,
        probe_count: 0,
        trace: 0,
        trace_v4: 0,
        trace_v6: [0; 4],
    };
}

/// Trace every packet that a program decides about.
pub const TRACE_ON: u32 = 1;
/// Trace only what is dropped. Needs [`TRACE_ON`].
pub const TRACE_DROPS: u32 = 2;

/// Value of the `OBJECT` map: which build of the programs is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Object {
    /// SHA-256 of the object file.
    pub hash: [u8; 32],
}
