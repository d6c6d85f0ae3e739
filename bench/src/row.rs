//! One measured line: ours, the peer's, their ratio, and whether the aim was met.

use serde::Serialize;

/// A row of the published table.
#[derive(Serialize)]
pub(crate) struct Row {
    bench: &'static str,
    case: String,
    unit: &'static str,
    ours: f64,
    peer_name: String,
    /// Absent when the peer could not run; `peer_name` says why.
    peer: Option<f64>,
    /// Ours divided by the peer's.
    ratio: Option<f64>,
    aim: String,
    met: bool,
    runs: usize,
}

/// What a row promises: at most so much of the row's unit, or of the peer's figure.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    /// Ours is at most this, in the row's unit.
    AtMost(f64),
    /// Ours is at most this many times the peer's.
    TimesPeer(f64),
}

impl Row {
    /// Medians of both sides' samples. `peer` is the samples or why there are none.
    pub(crate) fn new(
        bench: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        ours: &[f64],
        peer: (&str, Result<Vec<f64>, String>),
        aim: Aim,
    ) -> Self {
        let (name, samples) = peer;
        let median_of_peer = samples.as_ref().ok().map(|samples| median(samples));
        let own = median(ours);
        let met = match aim {
            Aim::AtMost(limit) => own <= limit,
            Aim::TimesPeer(factor) => median_of_peer.is_some_and(|peer| own <= factor * peer),
        };
        Self {
            bench,
            case: case.into(),
            unit,
            ours: own,
            peer_name: samples.as_ref().map_or_else(|why| format!("{name}: {why}"), |_| name.to_owned()),
            peer: median_of_peer,
            ratio: median_of_peer.filter(|peer| *peer != 0.0).map(|peer| own / peer),
            aim: match aim {
                Aim::AtMost(limit) => format!("<= {limit} {unit}"),
                Aim::TimesPeer(factor) => format!("<= {factor} x peer"),
            },
            met,
            runs: ours.len(),
        }
    }
}

/// The middle sample; of an even number the lower middle.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// The table as Markdown, ready for `bench/README.md`.
pub(crate) fn print(rows: &[Row]) {
    println!("| bench | case | ours | peer | ratio | aim | met | runs |\n|---|---|---|---|---|---|---|---|");
    for row in rows {
        let peer =
            row.peer.map_or_else(|| row.peer_name.clone(), |peer| format!("{} ({peer:.1})", row.peer_name));
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        println!(
            "| {} | {} | {:.1} {} | {peer} | {ratio} | {} | {} | {} |",
            row.bench,
            row.case,
            row.ours,
            row.unit,
            row.aim,
            if row.met { "yes" } else { "**no**" },
            row.runs
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aim_is_judged_by_medians() {
        let row = Row::new("b", "c", "ms", &[9.0, 1.0, 2.0], ("p", Ok(vec![4.0])), Aim::TimesPeer(0.5));
        assert!((row.ours - 2.0).abs() < f64::EPSILON && row.met);
        let alone = Row::new("b", "c", "ms", &[1.0], ("p", Err("absent".into())), Aim::TimesPeer(0.5));
        assert!(!alone.met && alone.peer_name == "p: absent");
    }
}
