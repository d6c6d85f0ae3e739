//! The overlay's address ranges, hard-coded in every client (tailscale `net/tsaddr`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Where nodes' IPv4 addresses come from: 100.64.0.0/10.
pub const CGNAT: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
/// The part of [`CGNAT`] that ChromeOS uses for its own guests; never assigned.
pub const CHROMEOS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 115, 92, 0), 23);
/// Where nodes' IPv6 addresses come from: fd7a:115c:a1e0::/48.
pub const ULA: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0), 48);
/// The resolver inside every node.
pub const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 100);
/// The resolver inside every node.
pub const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0x53);
/// The overlay's MTU: IPv6's minimum, fits almost every underlay.
pub const MTU: u32 = 1280;
/// Both default routes: advertising them makes an exit node.
pub const EXIT_ROUTES: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// Whether `addr` can only be a node of the overlay: such an address is never an underlay endpoint.
pub fn contains(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => CGNAT.contains(&a) && !CHROMEOS.contains(&a),
        IpAddr::V6(a) => ULA.contains(&a),
    }
}

/// A single address as a prefix: /32 or /128.
pub fn host(addr: IpAddr) -> IpNet {
    IpNet::from(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_is_cgnat_without_chromeos_and_the_ula() {
        assert!(contains("100.64.0.1".parse().unwrap()));
        assert!(contains("fd7a:115c:a1e0::1".parse().unwrap()));
        assert!(!contains("100.115.92.2".parse().unwrap()));
        assert!(!contains("192.0.2.1".parse().unwrap()));
    }
}
