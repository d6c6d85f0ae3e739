//! `fuzz`: runs the decoders' fuzz targets (`tests/fuzz`), coverage-guided, for a bounded time each.

use anyhow::bail;

use crate::step::{self, find, output};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this target; without it, all of them
    target: Option<String>,
    /// Seconds a target
    #[arg(long, default_value_t = 30)]
    seconds: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if find("cargo-fuzz").is_none() {
        let root = step::tools();
        let root = root.parent().expect("tools end in bin");
        step::run(
            "install cargo-fuzz",
            step::cargo().args(["install", "--quiet", "--locked", "cargo-fuzz", "--root"]).arg(root),
        )?;
    }
    let folder = step::root().join("tests/fuzz");
    // The sanitizer's flags are unstable; the compiler is the pinned one all the same.
    let fuzz = || {
        let mut command = step::cargo();
        command.arg("fuzz").current_dir(&folder).env("RUSTC_BOOTSTRAP", "1");
        command
    };
    let listing = output(fuzz().args(["list", "--fuzz-dir", "."]))?;
    let targets: Vec<&str> =
        listing.lines().filter(|name| args.target.as_deref().is_none_or(|only| only == *name)).collect();
    if targets.is_empty() {
        bail!("no such target; there are: {}", listing.replace('\n', " "));
    }
    for target in targets {
        let seconds = format!("-max_total_time={}", args.seconds);
        step::run(
            &format!("fuzz {target}"),
            fuzz().args([
                "run",
                "--fuzz-dir",
                ".",
                "--sanitizer",
                "none",
                target,
                "--",
                &seconds,
                "-rss_limit_mb=2048",
            ]),
        )?;
    }
    Ok(())
}
