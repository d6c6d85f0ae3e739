//! `dist`: a release archive: the stripped binary, the systemd units, README and license, and its SHA-256.

use std::fs;

use crate::{build, setup, step};

const UNITS: [&str; 2] = ["underpass.service", "underpass-server.service"];

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> anyhow::Result<()> {
    setup::building()?;
    step::run(
        "build underpass for release",
        step::cargo().args(["build", "--locked", "--profile", "dist", "--package", "cli"]),
    )?;
    let folder = build::target().join("dist-archive");
    fs::create_dir_all(&folder)?;
    fs::copy(build::target().join("dist/underpass"), folder.join("underpass"))?;
    for file in ["README.md", "LICENSE"] {
        fs::copy(step::root().join(file), folder.join(file))?;
    }
    for unit in UNITS {
        fs::copy(step::root().join("userspace/cli/systemd").join(unit), folder.join(unit))?;
    }
    let name = format!("underpass-{}-{}.tar.gz", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    // Fixed owner, order and time: the same tree gives the same archive.
    let mut tar = step::command("tar");
    tar.current_dir(&folder).args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]);
    step::run(
        "pack",
        tar.args(["-czf", &name, "underpass", "README.md", "LICENSE"]).args(UNITS).env("GZIP", "-n"),
    )?;
    let sum = step::output(step::command("sha256sum").arg(&name).current_dir(&folder))?;
    fs::write(folder.join(format!("{name}.sha256")), format!("{sum}\n"))?;
    println!("{}\n{sum}", folder.join(name).display());
    Ok(())
}
