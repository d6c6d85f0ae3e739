//! DERP home: in which region peers find us (tailscale `net/netcheck`, `addReportHistoryAndSetPreferredDERP`).
//!
//! The fastest region by the best round trip of the last five minutes, left only for one that is clearly faster: peers
//! learn of a move through control, and packets get lost on the way. Without any measurement (UDP is blocked) the region
//! stays, or one is drawn. Deliberately not here: measuring (`netcheck`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use types::RegionId;
use wire::control::DerpMap;

/// A region must be faster by this much (`preferredDERPAbsoluteDiff`).
const CLEARLY_FASTER: Duration = Duration::from_millis(10);
/// A region heard within this time works, whatever STUN says (`PreferredDERPFrameTime`).
const HEARD_RECENTLY: Duration = Duration::from_secs(8);
/// Two keep-alives of a DERP connection (`PreferredDERPKeepAliveTimeout`).
const HEARD_ALIVE: Duration = Duration::from_secs(120);
/// How long a measurement counts: one full netcheck is always among them.
const HISTORY: Duration = Duration::from_secs(305);

/// Round trips of the last minutes.
#[derive(Default)]
pub(crate) struct DerpHome {
    history: Vec<(Instant, BTreeMap<RegionId, Duration>)>,
}

impl DerpHome {
    /// The best recent round trip of each region.
    pub(crate) fn latencies(&self) -> BTreeMap<RegionId, Duration> {
        let mut best: BTreeMap<RegionId, Duration> = BTreeMap::new();
        for (region, latency) in self.history.iter().flat_map(|(_, latencies)| latencies) {
            let best = best.entry(*region).or_insert(*latency);
            *best = (*best).min(*latency);
        }
        best
    }

    /// The region to be home after a netcheck that measured `latencies`. `heard` is when the current home's connection
    /// last brought anything.
    pub(crate) fn choose(
        &mut self,
        latencies: &BTreeMap<RegionId, Duration>,
        derp: &DerpMap,
        home: Option<RegionId>,
        heard: Option<Instant>,
        now: Instant,
    ) -> Option<RegionId> {
        self.history.push((now, latencies.clone()));
        self.history.retain(|(at, _)| now < *at + HISTORY);
        let weigh = |latencies: &BTreeMap<RegionId, Duration>, region: RegionId| {
            latencies.get(&region).map(|latency| weighed(*latency, derp, region))
        };
        let recent = self.latencies();
        let fastest = latencies.keys().filter_map(|region| Some((weigh(&recent, *region)?, *region))).min();
        let silent_for = heard.map(|at| now.saturating_duration_since(at));
        let home = home.filter(|home| derp.present().any(|(region, _)| region == *home));
        let (Some((fastest_latency, fastest)), Some(home)) = (fastest, home) else {
            let kept = home.filter(|_| silent_for.is_some_and(|silence| silence < HEARD_ALIVE));
            return fastest.map(|(_, region)| region).or(kept);
        };
        let current = weigh(latencies, home);
        let works = current.is_some() || silent_for.is_some_and(|silence| silence < HEARD_RECENTLY);
        let current = current.unwrap_or_default();
        let close =
            current.saturating_sub(fastest_latency) < CLEARLY_FASTER || fastest_latency > current / 3 * 2;
        Some(if works && close { home } else { fastest })
    }
}

/// A round trip bent by the map's wish.
fn weighed(latency: Duration, derp: &DerpMap, region: RegionId) -> Duration {
    let score = derp.home_params.as_ref().and_then(|params| params.region_score.get(&region));
    match score {
        Some(score) if score.is_finite() && *score > 0.0 => latency.mul_f64(score.min(1000.0)),
        _ => latency,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derp() -> DerpMap {
        serde_json::from_str(r#"{"Regions":{"1":{"RegionID":1},"2":{"RegionID":2}}}"#).unwrap()
    }

    fn latencies(list: &[(i32, u64)]) -> BTreeMap<RegionId, Duration> {
        list.iter().map(|(region, ms)| (RegionId(*region), Duration::from_millis(*ms))).collect()
    }

    /// The home after measurements `step` seconds apart.
    fn home_after(derp: &DerpMap, heard: bool, step: u64, rounds: &[&[(i32, u64)]]) -> Option<i32> {
        let start = Instant::now();
        let mut choice = DerpHome::default();
        let mut home = None;
        for (round, measured) in rounds.iter().enumerate() {
            let now = start + Duration::from_secs(step) * round as u32;
            home = choice.choose(&latencies(measured), derp, home, heard.then_some(now), now);
        }
        home.map(|region| region.0)
    }

    #[test]
    fn the_fastest_region_is_home_and_is_left_only_for_a_clearly_faster_one() {
        let check = |rounds: &[&[(i32, u64)]]| home_after(&derp(), false, 20, rounds);
        assert_eq!(check(&[&[(1, 20), (2, 30)]]), Some(1));
        assert_eq!(check(&[&[(1, 4), (2, 5)], &[(1, 15), (2, 5)]]), Some(1), "its best recent time counts");
        assert_eq!(check(&[&[(1, 12)], &[(1, 12), (2, 4)]]), Some(1), "less than 10 ms gained");
        assert_eq!(check(&[&[(1, 100)], &[(1, 100), (2, 70)]]), Some(1), "less than a third gained");
        assert_eq!(check(&[&[(1, 100)], &[(1, 100), (2, 60)]]), Some(2));
    }

    #[test]
    fn a_silent_region_is_left_unless_its_connection_lives() {
        let rounds: &[&[(i32, u64)]] = &[&[(1, 20)], &[(2, 30)]];
        assert_eq!(home_after(&derp(), false, 20, rounds), Some(2));
        assert_eq!(home_after(&derp(), true, 20, rounds), Some(1));
    }

    #[test]
    fn without_measurement_a_living_home_stays() {
        assert_eq!(home_after(&derp(), true, 20, &[&[(1, 20)], &[]]), Some(1));
        assert_eq!(home_after(&derp(), false, 20, &[&[(1, 20)], &[]]), None);
    }

    #[test]
    fn old_measurements_are_forgotten() {
        assert_eq!(home_after(&derp(), false, 400, &[&[(1, 4), (2, 30)], &[(1, 100), (2, 30)]]), Some(2));
    }

    #[test]
    fn the_map_may_bend_the_choice() {
        let mut map = derp();
        map.home_params = serde_json::from_str(r#"{"RegionScore":{"2":0.5}}"#).unwrap();
        assert_eq!(home_after(&map, false, 20, &[&[(1, 20), (2, 30)]]), Some(2));
    }
}
