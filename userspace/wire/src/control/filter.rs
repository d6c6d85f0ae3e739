//! The packet filter as the server sends it (`tailcfg.FilterRule`). Deliberately not here: what a rule means; node-core
//! compiles these into its own filter.

use ipnet::IpNet;

use super::CapMap;
use super::message::message;

message! {
    /// Lets sources reach destinations, or grants them capabilities; a rule with neither is legal and does nothing.
    pub struct FilterRule {
        /// IP, CIDR, range `a-b`, `*`, or `cap:<name>`.
        pub src_ips: Vec<String> = "SrcIPs",
        /// Prefix lengths of `src_ips`, index by index; the form before version 7.
        pub src_bits: Vec<i32> = "SrcBits" omitempty,
        /// Where they may go.
        pub dst_ports: Vec<NetPortRange> = "DstPorts" omitempty,
        /// IP protocol numbers; empty means TCP, UDP and ICMP. Numbers outside 0-255 are ignored.
        pub ip_proto: Vec<i32> = "IPProto" omitempty,
        /// What they are granted.
        pub cap_grant: Vec<CapGrant> = "CapGrant" omitempty,
    }

    /// A destination: addresses and ports.
    pub struct NetPortRange {
        /// IP, CIDR, range `a-b`, or `*`.
        pub ip: String = "IP",
        /// Prefix length of `ip`; the form before version 7.
        pub bits: Option<i32> = "Bits" omitempty,
        /// Ports, both ends included.
        pub ports: PortRange = "Ports",
    }

    /// Ports `first..=last`.
    #[derive(Copy, Eq)]
    pub struct PortRange {
        /// Lowest.
        pub first: u16 = "First",
        /// Highest.
        pub last: u16 = "Last",
    }

    /// Capabilities that the sources of a rule have towards these destinations.
    pub struct CapGrant {
        /// Towards whom.
        pub dsts: Vec<IpNet> = "Dsts",
        /// Names only; the older form.
        pub caps: Vec<String> = "Caps" omitempty,
        /// Names with values.
        pub cap_map: CapMap = "CapMap" omitempty,
    }
}

impl PortRange {
    /// Every port.
    pub const ANY: Self = Self { first: 0, last: 65535 };
}
