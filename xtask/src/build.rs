//! `build`: the eBPF object and the `underpass` binary that embeds it.

use std::path::PathBuf;

use crate::{ebpf, setup, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Unoptimized, faster to build
    #[arg(long)]
    debug: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::building()?;
    let object = ebpf::build_ebpf()?;
    println!("{}", object.display());
    let binary = underpass(!args.debug)?;
    println!("{}", binary.display());
    Ok(())
}

/// Builds `underpass` and returns where it is.
pub(crate) fn underpass(release: bool) -> anyhow::Result<PathBuf> {
    let mut build = step::cargo();
    build.args(["build", "--locked", "--package", "cli"]);
    if release {
        build.arg("--release");
    }
    step::run("build underpass", &mut build)?;
    Ok(target().join(if release { "release" } else { "debug" }).join("underpass"))
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| step::root().join("target"), PathBuf::from)
}
