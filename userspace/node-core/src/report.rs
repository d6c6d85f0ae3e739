//! Report: what a netcheck found, as endpoints, home region and control need it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use types::RegionId;
use wire::control::NetInfo;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Best round trip by region over IPv4.
    pub latency_v4: BTreeMap<RegionId, Duration>,
    /// Best round trip by region over IPv6.
    pub latency_v6: BTreeMap<RegionId, Duration>,
    /// The first answer's IPv4 address.
    pub global_v4: Option<SocketAddr>,
    /// The first answer's IPv6 address.
    pub global_v6: Option<SocketAddr>,
    /// How often each address was seen.
    pub seen: BTreeMap<SocketAddr, usize>,
    /// Whether two servers saw different IPv4 mappings; unknown with less than two answers.
    pub mapping_varies: Option<bool>,
}

impl Report {
    /// The best of both families.
    pub(crate) fn latencies(&self) -> BTreeMap<RegionId, Duration> {
        let mut best = self.latency_v4.clone();
        for (region, latency) in &self.latency_v6 {
            let best = best.entry(*region).or_insert(*latency);
            *best = (*best).min(*latency);
        }
        best
    }

    /// The first seen of each family, then what was seen more than once; a single other one is a hard NAT's.
    pub(crate) fn global_addresses(&self) -> Vec<SocketAddr> {
        let first: Vec<SocketAddr> = self.global_v4.into_iter().chain(self.global_v6).collect();
        let often = self.seen.iter().filter(|(addr, count)| **count > 1 && !first.contains(addr));
        let often: Vec<SocketAddr> = often.map(|(addr, _)| *addr).collect();
        [first, often].concat()
    }

    /// As control wants it.
    pub(crate) fn net_info(&self, home: Option<RegionId>) -> NetInfo {
        let seconds = |latencies: &BTreeMap<RegionId, Duration>, family: &str| -> Vec<(String, f64)> {
            latencies.iter().map(|(region, d)| (format!("{region}-{family}"), d.as_secs_f64())).collect()
        };
        let v4 = seconds(&self.latency_v4, "v4");
        let v6 = seconds(&self.latency_v6, "v6");
        NetInfo {
            mapping_varies_by_dest_ip: self.mapping_varies,
            working_ipv6: Some(!v6.is_empty()),
            working_udp: Some(!v4.is_empty() || !v6.is_empty()),
            preferred_derp: home.unwrap_or_default(),
            derp_latency: v4.into_iter().chain(v6).collect(),
            ..NetInfo::default()
        }
    }

    /// One answer: what the server saw, and how long it took.
    pub(crate) fn note(&mut self, family: Family, region: RegionId, seen: SocketAddr, latency: Duration) {
        *self.seen.entry(seen).or_default() += 1;
        match family {
            Family::V6 => {
                self.latency_v6.entry(region).or_insert(latency);
                self.global_v6.get_or_insert(seen);
            }
            Family::V4 => {
                self.latency_v4.entry(region).or_insert(latency);
                match self.global_v4 {
                    None => self.global_v4 = Some(seen),
                    Some(first) => {
                        self.mapping_varies = Some(self.mapping_varies == Some(true) || first != seen);
                    }
                }
            }
        }
    }
}
