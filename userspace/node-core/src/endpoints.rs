//! Endpoints: where this node may be reached, as it tells control and its peers (tailscale
//! `wgengine/magicsock/magicsock.go` `determineEndpoints`, `endpoint_tracker.go`).
//!
//! What the router granted comes first, then what STUN saw, which is kept for five minutes because a NAT's older mappings may
//! still be open; then what the administrator knows to lead here, and the machine's own addresses. Deliberately not here:
//! asking STUN servers (`netcheck`), and peers' candidates.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use types::overlay;
use wire::control::EndpointType;

use crate::report::Report;
use crate::underlay::Underlay;

/// Longer than a full netcheck takes to come round (`endpointTrackerLifetime`).
const STUN_LIFETIME: Duration = Duration::from_secs(310);
/// Mappings remembered for one public address (`endpointTrackerMaxPerAddr`).
const MAX_PER_ADDRESS: usize = 6;
/// How old a STUN answer may be to be told to a peer: NAT mappings live about 30 s.
pub(crate) const FRESH: Duration = Duration::from_secs(27);

/// One candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub addr: SocketAddr,
    /// How it was found.
    pub kind: EndpointType,
}

/// Our own candidates.
#[derive(Default)]
pub(crate) struct Endpoints {
    /// What STUN saw and when it was last seen so.
    seen: BTreeMap<SocketAddr, (EndpointType, Instant)>,
    /// What the router granted.
    mapped: Option<SocketAddr>,
    /// What the administrator knows to lead here.
    fixed: Vec<SocketAddr>,
    list: Vec<Endpoint>,
    refreshed: Option<Instant>,
}

impl Endpoints {
    pub(crate) fn list(&self) -> &[Endpoint] {
        &self.list
    }

    /// Whether the list is new enough for a call-me-maybe.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.refreshed.is_some_and(|at| now < at + FRESH)
    }

    /// What a finished netcheck found.
    pub(crate) fn note(&mut self, report: &Report, port: u16, now: Instant) {
        self.refreshed = Some(now);
        for addr in report.global_addresses() {
            self.seen.insert(addr, (EndpointType::STUN, now));
        }
        // Behind a hard NAT somebody may have forwarded our own port; a wrong guess costs a ping.
        if let (Some(true), Some(addr)) = (report.mapping_varies, report.global_v4) {
            let guess = SocketAddr::new(addr.ip(), port);
            self.seen.entry(guess).or_insert((EndpointType::STUN_4_LOCAL_PORT, now)).1 = now;
        }
    }

    /// What the router granted, if anything.
    pub(crate) fn map(&mut self, external: Option<SocketAddr>) {
        self.mapped = external.filter(|addr| is_candidate(addr.ip()));
    }

    /// What the administrator knows to lead here.
    pub(crate) fn fix(&mut self, fixed: Vec<SocketAddr>) {
        self.fixed = fixed;
    }

    /// What a STUN server saw of another uplink.
    pub(crate) fn note_side(&mut self, addr: SocketAddr, now: Instant) {
        self.seen.insert(addr, (EndpointType::STUN, now));
    }

    /// Forgets what STUN saw: the network changed.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
        self.refreshed = None;
    }

    /// Makes the list anew; whether it differs, in whatever order.
    pub(crate) fn refresh(&mut self, underlay: &Underlay, port: u16, now: Instant) -> bool {
        self.seen.retain(|_, (_, at)| now < *at + STUN_LIFETIME);
        let mut seen: Vec<_> = self.seen.iter().map(|(addr, (kind, at))| (*at, *addr, *kind)).collect();
        seen.sort_by_key(|(at, addr, _)| (std::cmp::Reverse(*at), *addr));
        let mut count_by_ip: BTreeMap<IpAddr, usize> = BTreeMap::new();
        seen.retain(|(_, addr, _)| {
            let count = count_by_ip.entry(addr.ip()).or_default();
            *count += 1;
            *count <= MAX_PER_ADDRESS
        });
        let mapped = self.mapped.map(|addr| Endpoint { addr, kind: EndpointType::PORTMAPPED });
        let seen = seen.into_iter().filter(|(_, addr, _)| Some(*addr) != self.mapped);
        let seen = seen.map(|(_, addr, kind)| Endpoint { addr, kind });
        let mut list: Vec<Endpoint> = mapped.into_iter().chain(seen).collect();
        let fixed = self.fixed.iter().map(|addr| Endpoint { addr: *addr, kind: EndpointType::EXPLICIT });
        let local = underlay.addresses.iter().map(IpNet::addr).filter(|ip| is_candidate(*ip));
        let local = local.map(|ip| Endpoint { addr: SocketAddr::new(ip, port), kind: EndpointType::LOCAL });
        for endpoint in fixed.chain(local) {
            if !list.iter().any(|other| other.addr == endpoint.addr) {
                list.push(endpoint);
            }
        }
        let changed =
            list.len() != self.list.len() || list.iter().any(|endpoint| !self.list.contains(endpoint));
        self.list = list;
        changed
    }
}

/// Whether a packet to `ip` can reach a node from elsewhere, by the underlay.
pub(crate) fn is_candidate(ip: IpAddr) -> bool {
    let special = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(special || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || overlay::contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 41641;

    fn underlay(addresses: &[&str]) -> Underlay {
        Underlay { addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), ..Underlay::default() }
    }

    fn texts(endpoints: &Endpoints) -> Vec<String> {
        endpoints.list().iter().map(|endpoint| endpoint.addr.to_string()).collect()
    }

    #[test]
    fn only_reachable_addresses_are_candidates() {
        let mut endpoints = Endpoints::default();
        let all = underlay(&[
            "127.0.0.1/8",
            "169.254.3.4/16",
            "fe80::1/64",
            "100.64.0.7/32",
            "fd7a:115c:a1e0::7/128",
            "192.168.1.5/24",
            "2001:db8::5/64",
        ]);
        assert!(endpoints.refresh(&all, PORT, Instant::now()));
        assert_eq!(texts(&endpoints), ["192.168.1.5:41641", "[2001:db8::5]:41641"]);
    }

    #[test]
    fn what_stun_saw_comes_first_and_lives_for_five_minutes() {
        let start = Instant::now();
        let mut endpoints = Endpoints::default();
        let seen = |addr: &str| Report { global_v4: Some(addr.parse().unwrap()), ..Report::default() };
        endpoints.note(&seen("203.0.113.1:5"), PORT, start);
        assert!(endpoints.refresh(&underlay(&["192.168.1.5/24"]), PORT, start));
        assert_eq!(texts(&endpoints), ["203.0.113.1:5", "192.168.1.5:41641"]);
        assert!(!endpoints.refresh(&underlay(&["192.168.1.5/24"]), PORT, start), "nothing new");
        let later = start + Duration::from_secs(20);
        endpoints.note(&seen("203.0.113.1:6"), PORT, later);
        endpoints.refresh(&underlay(&[]), PORT, later);
        assert_eq!(texts(&endpoints), ["203.0.113.1:6", "203.0.113.1:5"], "the newest first");
        assert!(endpoints.refresh(&underlay(&[]), PORT, start + STUN_LIFETIME));
        assert_eq!(texts(&endpoints), ["203.0.113.1:6"]);
        assert!(endpoints.is_fresh(later + Duration::from_secs(26)));
        assert!(!endpoints.is_fresh(later + FRESH));
    }

    #[test]
    fn what_the_router_mapped_comes_first_and_is_listed_once() {
        let now = Instant::now();
        let mut endpoints = Endpoints::default();
        let report = Report { global_v4: "203.0.113.1:41641".parse().ok(), ..Report::default() };
        endpoints.note(&report, PORT, now);
        endpoints.map("203.0.113.1:41641".parse().ok());
        assert!(endpoints.refresh(&underlay(&["192.168.1.5/24"]), PORT, now));
        assert_eq!(texts(&endpoints), ["203.0.113.1:41641", "192.168.1.5:41641"]);
        assert_eq!(endpoints.list()[0].kind, EndpointType::PORTMAPPED);
        endpoints.map("0.0.0.0:41641".parse().ok());
        assert!(endpoints.refresh(&underlay(&[]), PORT, now), "a router without an address of its own");
        assert_eq!(endpoints.list()[0].kind, EndpointType::STUN);
    }

    #[test]
    fn what_the_administrator_knows_is_told_as_it_is() {
        let mut endpoints = Endpoints::default();
        endpoints.fix(vec!["198.51.100.9:4000".parse().unwrap()]);
        endpoints.refresh(&underlay(&["192.168.1.5/24"]), PORT, Instant::now());
        assert_eq!(texts(&endpoints), ["198.51.100.9:4000", "192.168.1.5:41641"]);
        assert_eq!(endpoints.list()[0].kind, EndpointType::EXPLICIT);
    }

    #[test]
    fn behind_a_hard_nat_the_own_port_is_a_guess() {
        let now = Instant::now();
        let mut endpoints = Endpoints::default();
        let report = Report {
            global_v4: Some("203.0.113.1:5".parse().unwrap()),
            mapping_varies: Some(true),
            ..Report::default()
        };
        endpoints.note(&report, PORT, now);
        endpoints.refresh(&underlay(&[]), PORT, now);
        assert_eq!(texts(&endpoints), ["203.0.113.1:5", "203.0.113.1:41641"]);
    }
}
