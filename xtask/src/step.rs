//! Running other programs: where things are, one announced step at a time, with its duration.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

/// The repository's root: xtask is one folder below it.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_path_buf()
}

/// Where tools, guest kernels and real peers are kept between runs and between clones.
/// `UNDERPASS_CACHE` overrides `~/.cache/underpass`.
pub(crate) fn cache() -> PathBuf {
    if let Some(dir) = std::env::var_os("UNDERPASS_CACHE") {
        return dir.into();
    }
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
    Path::new(&home).join(".cache/underpass")
}

/// The folder of the tools that setup installs.
pub(crate) fn tools() -> PathBuf {
    cache().join("tools/bin")
}

/// `PATH` with our tools first and the places where Debian keeps root's programs.
pub(crate) fn path() -> std::ffi::OsString {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let own = [tools(), "/usr/local/sbin".into(), "/usr/sbin".into(), "/sbin".into()];
    let all = own.into_iter().chain(std::env::split_paths(&inherited));
    std::env::join_paths(all).unwrap_or(inherited)
}

/// Finds a program on [`path`].
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path()).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A command in the repository's root with [`path`].
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env("PATH", path());
    command
}

/// Cargo, as this xtask was started by it.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs `command` to its end, says what and how long; an exit status other than 0 is an error.
pub(crate) fn run(what: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("{what}: cannot start {command:?}"))?;
    if !status.success() {
        bail!("{what}: {status} from {command:?}");
    }
    eprintln!("    {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs `command` and returns its standard output, trimmed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether this process may make namespaces, devices and programs.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|uid| uid == "0")
}
