//! Measurements, ours beside the programs we compete with: same machine, same run, medians.
//!
//! One bench a file; each returns rows. A peer that cannot run here is named in its row with the reason. Absolute figures are
//! this machine's; the ratio is the claim. Deliberately not here: pass or fail in CI, because a shared machine's clock is no
//! judge; `bench/README.md` publishes a run with its machine.

mod crowd;
mod derp;
mod filter;
mod floors;
mod join;
mod kill;
mod memory;
mod ours;
mod paths;
mod peers;
mod plot;
mod relay;
mod rig;
mod row;
mod scaling;
mod stage;
mod start;
mod steer;
mod stun;

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use rig::Effort;
use row::Row;

#[derive(Parser)]
struct Args {
    /// Only these benches
    names: Vec<String>,
    /// One JSON object a row
    #[arg(long)]
    json: bool,
    /// Repetitions of each timed case; 5, or with --quick 3
    #[arg(long)]
    runs: Option<usize>,
    /// Shorter samples and searches of the benches that load paths
    #[arg(long)]
    quick: bool,
}

/// Name, what it measures, and the measurement.
type Bench = (&'static str, fn(Effort) -> anyhow::Result<Vec<Row>>);

const BENCHES: [Bench; 12] = [
    ("join", |effort| join::run(effort.runs)),
    ("start", |effort| start::run(effort.runs)),
    ("kill", |effort| kill::run(effort.runs)),
    ("memory", |_| memory::run()),
    ("filter", |effort| filter::run(effort.runs)),
    ("floors", floors::run),
    ("relay", relay::run),
    ("stun", stun::run),
    ("derp", derp::run),
    ("paths", paths::run),
    ("steer", |effort| steer::run(effort.runs)),
    ("scaling", scaling::run),
];

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> anyhow::Result<()> {
    if lab::skipped("bench") {
        bail!("run it as root");
    }
    if let Some(unknown) = args.names.iter().find(|name| BENCHES.iter().all(|(bench, _)| bench != name)) {
        bail!("no bench named {unknown}; there are: {}", BENCHES.map(|(name, _)| name).join(" "));
    }
    let effort = match args.quick {
        true => Effort::quick(args.runs.unwrap_or(3)),
        false => Effort::thorough(args.runs.unwrap_or(5)),
    };
    let mut rows = Vec::new();
    for (name, bench) in BENCHES {
        if args.names.is_empty() || args.names.iter().any(|wanted| wanted == name) {
            eprintln!("==> {name}");
            let measured = bench(effort)?;
            if args.json {
                for row in &measured {
                    println!("{}", serde_json::to_string(row)?);
                }
            }
            rows.extend(measured);
        }
    }
    if !args.json {
        row::print(&rows);
    }
    Ok(())
}
