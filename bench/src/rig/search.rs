//! The search for the highest rate that loses nothing.

use super::Run;

/// The search ends when it knows the rate this closely.
const CLOSE: f64 = 0.03;

/// What [`search`] found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The highest rate to ask for that loses nothing; none if even a tenth of what gets through at most loses.
    pub(crate) rate: Option<f64>,
    /// The most that got through at any rate.
    pub(crate) most: f64,
}

/// The highest rate without loss, by bisection below `top`, the rate that got through when the source did not pace itself.
pub(crate) fn search(top: f64, mut load: impl FnMut(f64) -> anyhow::Result<Run>) -> anyhow::Result<Found> {
    let mut most = top;
    let mut bad = 0.0;
    // A source that shares the core with the path is slowed down by it and loses nothing at any rate.
    for factor in [1.3, 2.0] {
        let run = load(top * factor)?;
        most = f64::max(most, run.rate());
        if !run.loses() {
            return Ok(Found { rate: Some(top * factor), most });
        }
        bad = if bad == 0.0 { most * 1.1 } else { bad };
    }
    let mut good = 0.0;
    let mut next = most * 0.95;
    while (bad - good) / bad > CLOSE {
        let run = load(next)?;
        most = f64::max(most, run.rate());
        if run.loses() {
            bad = next;
            if good == 0.0 && next < most / 10.0 {
                return Ok(Found { rate: None, most });
            }
        } else {
            good = next;
        }
        next = if good == 0.0 { bad * 0.7 } else { f64::midpoint(good, bad) };
    }
    Ok(Found { rate: Some(good), most })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::run::tests::path;

    #[test]
    fn the_search_ends_close_below_the_limit() {
        for limit in [1e3, 3.3e5, 4.2e6] {
            let found = search(limit, path(limit)).unwrap();
            let rate = found.rate.unwrap();
            assert!((0.95..=1.011).contains(&(rate / limit)) && found.most >= limit * 0.999, "{found:?}");
        }
    }

    #[test]
    fn a_path_that_always_loses_has_no_rate() {
        let mut lossy = path(1e6);
        let found = search(1e6, |rate| lossy(rate).map(|run| Run { delivered: run.delivered / 2, ..run }));
        assert!(found.unwrap().rate.is_none());
    }
}
