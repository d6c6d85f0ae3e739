//! Netcheck: what STUN servers of the DERP regions tell about the network (tailscale `net/netcheck/netcheck.go`).
//!
//! One run at a time: probe sets, one a region and address family, each done with its first answer. A full run asks every
//! region, the ones in between only the fastest three and the home. Deliberately not here: what follows for endpoints and
//! home region; HTTPS and ICMP probes, which only matter where UDP is blocked and then decide nothing we need.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use types::RegionId;
use wire::control::{DerpMap, DerpNode, DerpRegion};
use wire::stun::TxId;

use crate::report::{Family, Report};
use crate::rng::Rng;

/// A run ends when this long nothing came (`stunProbeTimeout`).
const TIMEOUT: Duration = Duration::from_secs(3);
/// How often every region is asked (`fullReportInterval`).
const FULL_INTERVAL: Duration = Duration::from_secs(300);
/// Retransmission of a first run, when nothing is known about round trips.
const FIRST_RETRANSMIT: Duration = Duration::from_millis(100);
/// Retransmission where a region was never measured.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// So many regions heard are enough to wait for the others only a little longer.
const ENOUGH: usize = 3;
/// Even on a LAN an answer may be scheduled late.
const GRACE: Duration = Duration::from_millis(50);

/// Which families the machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Families {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

struct ProbeSet {
    region: RegionId,
    family: Family,
    /// When and whom, in order.
    due: VecDeque<(Instant, SocketAddr)>,
    done: bool,
}

struct Sent {
    set: usize,
    at: Instant,
}

struct Run {
    sets: Vec<ProbeSet>,
    sent: BTreeMap<TxId, Sent>,
    deadline: Instant,
    report: Report,
    is_full: bool,
}

/// The present run and what the last one found.
#[derive(Default)]
pub(crate) struct Netcheck {
    run: Option<Run>,
    last: Report,
    last_full: Option<Instant>,
}

impl Netcheck {
    pub(crate) fn last(&self) -> &Report {
        &self.last
    }

    pub(crate) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// The next run asks every region, and a running one is given up: the network changed.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Starts a run unless one is under way. Names that must be looked up first are returned; their servers are left out.
    pub(crate) fn start(
        &mut self,
        derp: &DerpMap,
        names: &BTreeMap<String, Vec<IpAddr>>,
        families: Families,
        home: Option<RegionId>,
        now: Instant,
    ) -> BTreeSet<String> {
        let mut unknown = BTreeSet::new();
        if self.run.is_some() {
            return unknown;
        }
        let known = self.last.latencies();
        let is_full = known.is_empty() || self.last_full.is_none_or(|at| now >= at + FULL_INTERVAL);
        let mut sets = Vec::new();
        for (rank, region) in ranked(derp, &known, home).into_iter().enumerate() {
            let Some(tries) = tries(is_full, rank, home == Some(region.region_id)) else { continue };
            let spacing = match known.get(&region.region_id) {
                _ if is_full => FIRST_RETRANSMIT,
                Some(latency) => *latency * 6 / 5,
                None => RETRANSMIT,
            };
            for (family, present) in [(Family::V4, families.v4), (Family::V6, families.v6)] {
                let attempts = (0..tries).zip(region.nodes.iter().cycle());
                let due: VecDeque<_> = attempts
                    .filter_map(|(attempt, node)| {
                        let addr = stun_address(node, family, present, names, &mut unknown)?;
                        Some((now + spacing * attempt, addr))
                    })
                    .collect();
                if !due.is_empty() {
                    sets.push(ProbeSet { region: region.region_id, family, due, done: false });
                }
            }
        }
        let deadline = if sets.is_empty() { now } else { now + TIMEOUT };
        self.run = Some(Run { sets, sent: BTreeMap::new(), deadline, report: Report::default(), is_full });
        unknown
    }

    /// The requests due now.
    pub(crate) fn poll(&mut self, rng: &mut Rng, now: Instant) -> Vec<(SocketAddr, TxId)> {
        let Some(run) = &mut self.run else { return Vec::new() };
        let mut out = Vec::new();
        for (index, set) in run.sets.iter_mut().enumerate().filter(|(_, set)| !set.done) {
            while let Some((_, addr)) = set.due.pop_front_if(|(at, _)| *at <= now) {
                let tx_id = TxId(rng.bytes());
                run.sent.insert(tx_id, Sent { set: index, at: now });
                out.push((addr, tx_id));
            }
        }
        out
    }

    /// When [`Self::poll`] has something to send.
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        let sets = self.run.iter().flat_map(|run| &run.sets).filter(|set| !set.done);
        sets.filter_map(|set| set.due.front()).map(|(at, _)| *at).min()
    }

    /// When [`Self::finish`] has a report.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.run.as_ref().map(|run| run.deadline)
    }

    /// An answer; whether it is one of this run's.
    pub(crate) fn handle(&mut self, tx_id: TxId, seen: SocketAddr, now: Instant) -> bool {
        let Some(run) = &mut self.run else { return false };
        let Some(sent) = run.sent.remove(&tx_id) else { return false };
        let set = &mut run.sets[sent.set];
        let family = if seen.is_ipv4() { Family::V4 } else { Family::V6 };
        if set.done || set.family != family {
            return true;
        }
        set.done = true;
        run.report.note(family, set.region, seen, now.saturating_duration_since(sent.at));
        let regions: BTreeSet<RegionId> = run.sets.iter().map(|set| set.region).collect();
        let heard = run.report.latencies();
        if heard.len() >= ENOUGH.min(regions.len()) {
            let slowest = heard.values().max().copied().unwrap_or_default();
            let patience = if run.is_full { slowest * 2 } else { slowest } + GRACE;
            run.deadline = run.deadline.min(now + patience);
        }
        if run.sets.iter().all(|set| set.done) {
            run.deadline = now;
        }
        true
    }

    /// The report, when the run is over.
    pub(crate) fn finish(&mut self, now: Instant) -> Option<Report> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let run = self.run.take()?;
        if run.is_full && !run.report.latencies().is_empty() {
            self.last_full = Some(now);
        }
        self.last = run.report;
        Some(self.last.clone())
    }
}

/// How often to ask a region, by its rank among the fastest; `None` leaves it out.
fn tries(is_full: bool, rank: usize, is_home: bool) -> Option<u32> {
    match (is_full, is_home, rank) {
        (true, ..) => Some(3),
        // Try hard to hear the home, so that one lost packet moves nobody.
        (_, true, _) => Some(4),
        (.., 0 | 1) => Some(2),
        (.., 2) => Some(1),
        _ => None,
    }
}

/// The regions that may be measured, fastest first, unmeasured last.
fn ranked<'a>(
    derp: &'a DerpMap,
    latencies: &BTreeMap<RegionId, Duration>,
    home: Option<RegionId>,
) -> Vec<&'a DerpRegion> {
    let mut regions: Vec<&DerpRegion> = derp
        .present()
        .map(|(_, region)| region)
        .filter(|region| !region.no_measure_no_home && (!region.avoid || home == Some(region.region_id)))
        .collect();
    regions.sort_by_key(|region| latencies.get(&region.region_id).copied().unwrap_or(Duration::MAX));
    regions
}

/// Where a node answers STUN in one family, if it does and the machine has the family.
fn stun_address(
    node: &DerpNode,
    family: Family,
    present: bool,
    names: &BTreeMap<String, Vec<IpAddr>>,
    unknown: &mut BTreeSet<String>,
) -> Option<SocketAddr> {
    let port = node.stun()?;
    let fits = |ip: &IpAddr| ip.is_ipv4() == (family == Family::V4);
    if let Ok(ip) = node.stun_test_ip.parse::<IpAddr>() {
        return fits(&ip).then(|| SocketAddr::new(ip, port));
    }
    let literal = if family == Family::V4 { &node.ipv4 } else { &node.ipv6 };
    if !present || literal == "none" {
        return None;
    }
    if let Some(ip) = literal.parse::<IpAddr>().ok().or_else(|| node.host_name.parse().ok()) {
        return fits(&ip).then(|| SocketAddr::new(ip, port));
    }
    let Some(addresses) = names.get(&node.host_name) else {
        unknown.insert(node.host_name.clone());
        return None;
    };
    addresses.iter().find(|ip| fits(ip)).map(|ip| SocketAddr::new(*ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        netcheck: Netcheck,
        rng: Rng,
        start: Instant,
    }

    const V4: Families = Families { v4: true, v6: false };

    fn derp(regions: u8) -> DerpMap {
        let nodes =
            |id: u8| format!(r#"{{"Name":"{id}","HostName":"r{id}","IPv4":"192.0.2.{id}","IPv6":"none"}}"#);
        let entries: Vec<String> = (1..=regions)
            .map(|id| format!(r#""{id}":{{"RegionID":{id},"Nodes":[{}]}}"#, nodes(id)))
            .collect();
        serde_json::from_str(&format!(r#"{{"Regions":{{{}}}}}"#, entries.join(","))).unwrap()
    }

    impl Fixture {
        fn new() -> Self {
            Self { netcheck: Netcheck::default(), rng: Rng::new([1; 32]), start: Instant::now() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Starts at `ms` and returns whom the first packets go to.
        fn start(&mut self, derp: &DerpMap, home: Option<i32>, ms: u64) -> Vec<(SocketAddr, TxId)> {
            let (home, at) = (home.map(RegionId), self.at(ms));
            assert!(self.netcheck.start(derp, &BTreeMap::new(), V4, home, at).is_empty());
            self.netcheck.poll(&mut self.rng, at)
        }

        fn answer(&mut self, tx_id: TxId, seen: &str, ms: u64) -> bool {
            let at = self.at(ms);
            self.netcheck.handle(tx_id, seen.parse().unwrap(), at)
        }
    }

    #[test]
    fn one_answer_a_region_ends_the_run() {
        let mut f = Fixture::new();
        let sent = f.start(&derp(2), None, 0);
        assert_eq!(sent.len(), 2);
        assert!(f.answer(sent[0].1, "203.0.113.1:7", 30));
        assert_eq!(f.netcheck.finish(f.at(30)), None);
        assert!(f.answer(sent[1].1, "203.0.113.1:7", 40));
        let report = f.netcheck.finish(f.at(40)).unwrap();
        assert_eq!(report.latencies()[&RegionId(2)], Duration::from_millis(40));
        assert_eq!(report.mapping_varies, Some(false));
        assert_eq!(report.global_addresses(), ["203.0.113.1:7".parse().unwrap()]);
    }

    #[test]
    fn silence_is_retried_twice_and_ends_after_three_seconds() {
        let mut f = Fixture::new();
        f.start(&derp(1), None, 0);
        assert_eq!(f.netcheck.next_probe(), Some(f.at(100)));
        let at = f.at(250);
        assert_eq!(f.netcheck.poll(&mut f.rng, at).len(), 2);
        assert_eq!(f.netcheck.next_probe(), None);
        assert_eq!(f.netcheck.finish(f.at(2999)), None);
        let report = f.netcheck.finish(f.at(3000)).unwrap();
        assert_eq!(report.net_info(None).working_udp, Some(false));
    }

    #[test]
    fn different_mappings_mean_a_hard_nat() {
        let mut f = Fixture::new();
        let sent = f.start(&derp(2), None, 0);
        f.answer(sent[0].1, "203.0.113.1:7", 10);
        f.answer(sent[1].1, "203.0.113.1:8", 10);
        let report = f.netcheck.finish(f.at(10)).unwrap();
        assert_eq!(report.mapping_varies, Some(true));
        assert_eq!(
            report.global_addresses(),
            ["203.0.113.1:7".parse().unwrap()],
            "a single other one is noise"
        );
    }

    #[test]
    fn later_runs_ask_the_fastest_three_and_the_home() {
        let mut f = Fixture::new();
        let map = derp(6);
        for (index, (_, tx_id)) in f.start(&map, None, 0).into_iter().enumerate() {
            f.answer(tx_id, "203.0.113.1:7", 10 + index as u64);
        }
        f.netcheck.finish(f.at(100)).unwrap();
        let asked = |sent: Vec<(SocketAddr, TxId)>| {
            sent.iter().map(|(to, _)| to.ip().to_string()).collect::<Vec<_>>()
        };
        let sent = f.start(&map, Some(6), 20_000);
        assert_eq!(asked(sent), ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.6"]);
        f.netcheck.finish(f.at(60_000)).unwrap();
        assert_eq!(f.start(&map, Some(6), 61_000).len(), 6, "nothing was heard, so all again");
    }

    #[test]
    fn names_without_addresses_are_looked_up() {
        let mut f = Fixture::new();
        let map: DerpMap = serde_json::from_str(
            r#"{"Regions":{"1":{"RegionID":1,"Nodes":[{"HostName":"derp.example.com"}]},
                "2":{"RegionID":2,"Nodes":[{"HostName":"192.0.2.9"}]},
                "3":{"RegionID":3,"Nodes":[{"HostName":"x","STUNPort":-1}]}}}"#,
        )
        .unwrap();
        let unknown = f.netcheck.start(&map, &BTreeMap::new(), V4, None, f.start);
        assert_eq!(unknown, ["derp.example.com".to_owned()].into());
        let (at, mut rng) = (f.start, Rng::new([2; 32]));
        let sent = f.netcheck.poll(&mut rng, at);
        assert_eq!(sent.iter().map(|(to, _)| to.to_string()).collect::<Vec<_>>(), ["192.0.2.9:3478"]);
    }
}
