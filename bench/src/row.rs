//! One measured line: ours, the peer's, their ratio, and whether the aim was met.

use serde::Serialize;

/// A row of the published table.
#[derive(Serialize)]
pub(crate) struct Row {
    bench: &'static str,
    case: String,
    unit: &'static str,
    /// Absent where ours could not run, or where the row is a floor that nothing of ours stands on yet; `case` says why.
    ours: Option<f64>,
    peer_name: String,
    /// Absent when the peer could not run; `peer_name` says why.
    peer: Option<f64>,
    /// Ours divided by the peer's.
    ratio: Option<f64>,
    aim: String,
    /// Absent where there is no aim.
    met: Option<bool>,
    runs: usize,
    /// The largest share of the machine that others took while it was measured, where that was watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    foreign: Option<f64>,
}

/// What a row promises, in the row's unit or as a multiple of the peer's figure.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    /// Ours is at most this, in the row's unit.
    AtMost(f64),
    /// Ours is at most this many times the peer's.
    TimesPeer(f64),
    /// Ours is at least this many times the peer's.
    AtLeastTimesPeer(f64),
    /// Nothing: shown for comparison.
    Shown,
}

/// Samples, or why there are none.
pub(crate) type Samples = Result<Vec<f64>, String>;

impl Row {
    /// Medians of both sides' samples. `peer` is the samples or why there are none.
    pub(crate) fn new(
        bench: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        ours: &[f64],
        peer: (&str, Samples),
        aim: Aim,
    ) -> Self {
        Self::compare(bench, case, unit, Ok(ours.to_vec()), peer, aim)
    }

    /// The same where ours may not have run either.
    pub(crate) fn compare(
        bench: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        ours: Samples,
        (name, peer): (&str, Samples),
        aim: Aim,
    ) -> Self {
        let case = case.into();
        let why = ours.as_ref().err().map(|why| format!("{case} (ours: {why})"));
        let runs = [&ours, &peer].into_iter().find_map(|side| side.as_ref().ok()).map_or(0, Vec::len);
        let peer_name = peer.as_ref().map_or_else(|why| format!("{name}: {why}"), |_| name.to_owned());
        let [ours, peer] = [ours, peer].map(|samples| samples.ok().and_then(|samples| median(&samples)));
        Self {
            bench,
            case: why.unwrap_or(case),
            unit,
            ours,
            peer_name,
            peer,
            ratio: ours.zip(peer).filter(|(_, peer)| *peer != 0.0).map(|(ours, peer)| ours / peer),
            aim: aim.text(unit),
            met: aim.met(ours, peer),
            runs,
            foreign: None,
        }
    }

    /// Says what share of the machine others took.
    pub(crate) fn beside(mut self, foreign: f64) -> Self {
        self.foreign = Some(foreign);
        self
    }
}

impl Aim {
    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {limit} {unit}"),
            Self::TimesPeer(factor) => format!("<= {} x peer", short(factor)),
            Self::AtLeastTimesPeer(factor) => format!(">= {factor} x peer"),
            Self::Shown => "-".to_owned(),
        }
    }

    /// An aim that cannot be judged is not met.
    fn met(self, ours: Option<f64>, peer: Option<f64>) -> Option<bool> {
        let against = |holds: fn(f64, f64) -> bool, factor: f64| {
            ours.zip(peer).is_some_and(|(ours, peer)| holds(ours, factor * peer))
        };
        match self {
            Self::AtMost(limit) => Some(ours.is_some_and(|ours| ours <= limit)),
            Self::TimesPeer(factor) => Some(against(|ours, limit| ours <= limit, factor)),
            Self::AtLeastTimesPeer(factor) => Some(against(|ours, limit| ours >= limit, factor)),
            Self::Shown => None,
        }
    }
}

/// Small factors as the fractions they are.
fn short(factor: f64) -> String {
    if factor < 0.5 { format!("1/{:.0}", 1.0 / factor) } else { factor.to_string() }
}

/// The middle sample; of an even number the lower middle.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// A figure with the digits that mean something.
fn digits(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.3}"),
        middle if middle < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The table as Markdown, ready for `bench/README.md`.
pub(crate) fn print(rows: &[Row]) {
    println!("| bench | case | ours | peer | ratio | aim | met | runs |\n|---|---|---|---|---|---|---|---|");
    for row in rows {
        let ours = row.ours.map_or_else(|| "-".to_owned(), |ours| format!("{} {}", digits(ours), row.unit));
        let peer = row.peer.map_or_else(String::new, |peer| format!(": {}", digits(peer)));
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        let met = row.met.map_or("-", |met| if met { "yes" } else { "**no**" });
        println!(
            "| {} | {} | {ours} | {}{peer} | {ratio} | {} | {met} | {} |",
            row.bench, row.case, row.peer_name, row.aim, row.runs
        );
    }
    if let Some(foreign) = rows.iter().filter_map(|row| row.foreign).max_by(f64::total_cmp) {
        println!("\nOther work took up to {:.1} % of the machine while paths were loaded.", foreign * 100.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aim_is_judged_by_medians() {
        let row = Row::new("b", "c", "ms", &[9.0, 1.0, 2.0], ("p", Ok(vec![4.0])), Aim::TimesPeer(0.5));
        assert!(row.ours == Some(2.0) && row.met == Some(true) && row.runs == 3);
        let alone = Row::new("b", "c", "ms", &[1.0], ("p", Err("absent".into())), Aim::TimesPeer(0.5));
        assert!(alone.met == Some(false) && alone.peer_name == "p: absent");
        let floor = Row::compare("b", "c", "us", Err("not yet".into()), ("f", Ok(vec![4.0])), Aim::Shown);
        assert!(floor.met.is_none() && floor.ours.is_none() && floor.case == "c (ours: not yet)");
        let faster = Row::new("b", "c", "pps", &[9.0], ("p", Ok(vec![3.0])), Aim::AtLeastTimesPeer(3.0));
        assert!(faster.met == Some(true) && faster.aim == ">= 3 x peer");
    }
}
