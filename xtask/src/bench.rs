//! `bench`: measures side by side with the programs we compete with (`bench/`, binary `bench`).

use crate::{build, setup, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these benches; without a name, all of them
    names: Vec<String>,
    /// One JSON object a row
    #[arg(long)]
    json: bool,
    /// Repetitions of each case; the cases take turns, and the median counts. 5, or with --quick 3
    #[arg(long)]
    runs: Option<usize>,
    /// Shorter samples of the benches that load paths
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::run(&setup::Args::with_peers())?;
    setup::bench_peers()?;
    let underpass = build::underpass(true)?;
    step::run(
        "build the bench",
        step::cargo().args(["build", "--locked", "--release", "--package", "bench"]),
    )?;
    let mut bench = step::command(build::target().join("release/bench"));
    bench.args(&args.names).env("UNDERPASS_BIN", underpass);
    if let Some(runs) = args.runs {
        bench.args(["--runs", &runs.to_string()]);
    }
    bench.args(args.json.then_some("--json")).args(args.quick.then_some("--quick"));
    let status = bench.status()?;
    std::process::exit(status.code().unwrap_or(1));
}
