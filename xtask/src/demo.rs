//! `demo`: sets up, builds, and runs the main job in namespaces of its own (`tests/lab`, binary `demo`).

use anyhow::bail;

use crate::{build, setup, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave everything running and print the commands to explore it by hand
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !step::is_root() {
        bail!(
            "the demo makes network namespaces, devices and eBPF programs: run it as root (sudo cargo xtask demo)"
        );
    }
    setup::run(&setup::Args::without_peers())?;
    let underpass = build::underpass(true)?;
    step::run(
        "build the demo",
        step::cargo().args(["build", "--locked", "--release", "--package", "lab", "--bin", "demo"]),
    )?;
    let mut demo = step::command(build::target().join("release/demo"));
    demo.arg("--underpass").arg(underpass);
    if args.keep {
        demo.arg("--keep");
    }
    let status = demo.status()?;
    if !status.success() {
        bail!("the demo ended with {status}");
    }
    Ok(())
}
