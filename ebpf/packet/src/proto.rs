//! The IANA protocol numbers the programs know by name.

/// IPv6 hop-by-hop options; as an IPv4 protocol number it does not exist.
pub const HOP_BY_HOP: u8 = 0;
/// ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// IGMP.
pub const IGMP: u8 = 2;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// IPv6 fragment header (RFC 8200 section 4.5).
pub const FRAGMENT: u8 = 44;
/// ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
/// Tailscale's messages inside the tunnel (`net/packet/tsmp.go`).
pub const TSMP: u8 = 99;
/// SCTP.
pub const SCTP: u8 = 132;
/// Reserved; Tailscale uses it inside for fragments and drops it on the wire.
pub const RESERVED: u8 = 255;
