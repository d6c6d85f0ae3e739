//! `bench`: measures side by side with the programs we compete with (`bench/`, binary `bench`).

use crate::{build, setup, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these benches; without a name, all of them
    names: Vec<String>,
    /// One JSON object a row
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::run(&setup::Args::with_peers())?;
    let underpass = build::underpass(true)?;
    step::run(
        "build the bench",
        step::cargo().args(["build", "--locked", "--release", "--package", "bench"]),
    )?;
    let mut bench = step::command(build::target().join("release/bench"));
    bench.args(&args.names).env("UNDERPASS_BIN", underpass);
    if args.json {
        bench.arg("--json");
    }
    let status = bench.status()?;
    std::process::exit(status.code().unwrap_or(1));
}
