//! Curves: processor time by sessions and by peers, what arrives by what is offered. Rows hold the points, SVG files the
//! curves.

use std::path::Path;

use programs::Loaded;
use programs::cost::{Shape, from_tunnel};
use programs::namespace::Namespace;

use crate::ours;
use crate::peers::{peer_relay, turn};
use crate::plot::{Axis, Curve, Plot};
use crate::rig::{Bed, Effort, Outcome, Sink, sweep, take_turns};
use crate::row::{Aim, Row};

/// Where the curves are kept, from the repository's root.
const FOLDER: &str = "bench/plots";
const RELAY: &str = "Tailscale's peer relay 1.102.5";
const SESSIONS: [u16; 5] = [1, 10, 100, 1_000, 10_000];
const PEERS: [u32; 5] = [1, 10, 100, 1_000, 10_000];
/// Packets a second that are offered.
const RATES: [f64; 10] = [2e4, 5e4, 1e5, 2e5, 4e5, 6e5, 8e5, 1.2e6, 2e6, 4e6];

pub(crate) fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::build()?;
    let mut rows = sessions(&bed, effort)?;
    rows.extend(rate(&bed, effort)?);
    rows.extend(peers(effort)?);
    Ok(rows)
}

/// Sessions in turns, the worst case of any cache.
fn sessions(bed: &Bed, effort: Effort) -> anyhow::Result<Vec<Row>> {
    let [one, ten, hundred, thousand, all] = SESSIONS;
    let cells = [
        ours::relay(bed, one, one, 64, false),
        ours::relay(bed, ten, ten, 64, false),
        ours::relay(bed, hundred, hundred, 64, false),
        ours::relay(bed, thousand, thousand, 64, false),
        ours::relay(bed, all, all, 64, false),
        peer_relay(bed, one, 64, Sink::Xdp, false),
        peer_relay(bed, ten, 64, Sink::Xdp, false),
        peer_relay(bed, hundred, 64, Sink::Xdp, false),
        peer_relay(bed, thousand, 64, Sink::Xdp, false),
    ];
    let outcomes = take_turns(bed, &cells, effort)?;
    let (ours, peer) = outcomes.split_at(SESSIONS.len());
    let curve = |name: &str, outcomes: &[Outcome]| Curve {
        name: name.to_owned(),
        points: SESSIONS
            .into_iter()
            .zip(outcomes)
            .filter_map(|(sessions, outcome)| Some((sessions.into(), outcome.median_cpu()? * 1e3)))
            .collect(),
    };
    let plot = Plot {
        title: "Relay, 64 B, sessions in turns: processor time a packet".to_owned(),
        x: Axis { name: "sessions" },
        y: Axis { name: "ns a packet" },
        curves: vec![curve("ours", ours), curve(RELAY, peer)],
    };
    write("relay-sessions.svg", &plot)?;
    let none = Outcome::absent("not measured");
    let peers = peer.iter().chain(std::iter::repeat(&none));
    let rows = SESSIONS.into_iter().zip(ours).zip(peers).map(|((sessions, ours), peer)| {
        let case = format!("64 B, {sessions} sessions in turns: CPU a packet");
        ours.cpu("scaling", &case, (RELAY, peer), Aim::Shown)
    });
    Ok(rows.collect())
}

/// What arrives of what is offered.
fn rate(bed: &Bed, effort: Effort) -> anyhow::Result<Vec<Row>> {
    let cells =
        [ours::relay(bed, 1, 1, 64, false), peer_relay(bed, 1, 64, Sink::Xdp, false), turn(bed, 1, 64)];
    let mut curves = Vec::new();
    for cell in &cells {
        let points = sweep(bed, cell, &RATES, effort)?;
        curves.push(Curve { name: cell.name.to_owned(), points });
    }
    let rows = RATES.iter().enumerate().map(|(index, rate)| {
        let at = |curve: usize| {
            curves[curve]
                .points
                .get(index)
                .map(|point| vec![point.1])
                .ok_or_else(|| "not measured".to_owned())
        };
        let case = format!("64 B, one session, {:.0} kpps offered: arrived", rate / 1e3);
        Row::compare("scaling", case, "packets/s", at(0), (RELAY, at(1)), Aim::Shown)
    });
    let rows: Vec<Row> = rows.collect();
    let plot = Plot {
        title: "Relay, 64 B, one session: what arrives of what is offered".to_owned(),
        x: Axis { name: "offered, packets/s" },
        y: Axis { name: "arrived, packets/s" },
        curves,
    };
    write("relay-rate.svg", &plot)?;
    Ok(rows)
}

/// `from_tunnel` by the number of peers, each with a rule of its own, by test-run.
fn peers(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let costs = Namespace::new().run(move || {
        let mut programs = Loaded::new("bench1");
        let mut cost = |peers| -> Result<Vec<f64>, dataplane::Error> {
            let one = |_| from_tunnel(&mut programs, Shape::Peers, peers, 1, 100_000);
            (0..effort.runs).map(one).map(|time| Ok(time?.as_secs_f64() * 1e9)).collect()
        };
        PEERS.map(&mut cost)
    });
    let mut points = Vec::new();
    let mut rows = Vec::new();
    for (peers, samples) in PEERS.into_iter().zip(costs) {
        let samples = samples?;
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        points.push((f64::from(peers), sorted[sorted.len() / 2]));
        let case = format!("from_tunnel, {peers} peers with a rule each: a packet, test-run");
        rows.push(Row::new("scaling", case, "ns", &samples, ("-", Err("no counterpart".into())), Aim::Shown));
    }
    let plot = Plot {
        title: "from_tunnel, 64 B, by test-run".to_owned(),
        x: Axis { name: "peers, a rule each" },
        y: Axis { name: "ns a packet" },
        curves: vec![Curve { name: "ours".to_owned(), points }],
    };
    write("filter-peers.svg", &plot)?;
    Ok(rows)
}

fn write(name: &str, plot: &Plot) -> anyhow::Result<()> {
    let path = Path::new(FOLDER).join(name);
    std::fs::create_dir_all(FOLDER)?;
    std::fs::write(&path, plot.svg())?;
    eprintln!("    {}", path.display());
    Ok(())
}
