//! How an eBPF object is built: one recipe, used by the build scripts of the dataplane and of the bench and by
//! `cargo xtask build`.
//!
//! Plain cargo with the pinned stable compiler: `core` is built for the BPF target, and bpf-linker, itself linked against
//! the compiler's own LLVM, turns bitcode into BPF. Paths are remapped and nothing of the environment gets in, so two
//! builds give the same bytes. Deliberately not here: getting the tools (`cargo xtask setup`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiler's flags. v3 is what every kernel since 5.12 understands; it has 32-bit arithmetic and atomics that return.
const FLAGS: [&str; 5] = [
    "-Cdebuginfo=2",
    "-Ctarget-cpu=v3",
    // Types for the verifier's messages and for map keys.
    "-Clink-arg=--btf",
    // Small copies and clears become instructions; otherwise LLVM asks for a `memset` there is not.
    "-Clink-arg=--disable-expand-memcpy-in-order",
    "-Clinker=bpf-linker",
];

/// Builds the package in `folder` below `repository` (its binary is called `name`) in the folder `target` and writes the
/// object to `object`.
///
/// # Errors
/// What is missing and how to get it, or the compiler's messages.
pub(crate) fn build_ebpf(
    repository: &Path,
    (folder, name): (&str, &str),
    target: &Path,
    object: &Path,
) -> Result<(), String> {
    let sysroot = sysroot()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .current_dir(repository.join(folder))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--target",
            "bpfel-unknown-none",
            "-Zbuild-std=core",
        ])
        .arg("--target-dir")
        .arg(target)
        .env("PATH", path_with_linker()?)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(repository, &sysroot))
        // What the outer cargo set for the host's build.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET");
    finish(&format!("building {folder}"), &mut build)?;
    strip(&target.join("bpfel-unknown-none/release").join(name), object, &sysroot)
}

/// Leaves out the DWARF, which only the linker needed to make BTF: nine tenths of the file, and the crates' hashes in it
/// differ between clones. A toolchain without the tool embeds it as it is.
fn strip(built: &Path, object: &Path, sysroot: &Path) -> Result<(), String> {
    let hosts = std::fs::read_dir(sysroot.join("lib/rustlib")).into_iter().flatten().filter_map(Result::ok);
    match hosts.map(|host| host.path().join("bin/rust-objcopy")).find(|tool| tool.is_file()) {
        Some(tool) => finish(
            "stripping the eBPF object",
            Command::new(tool)
                .arg("--strip-debug")
                .args([built, object])
                .env("LD_LIBRARY_PATH", sysroot.join("lib")),
        ),
        None => {
            std::fs::copy(built, object).map(drop).map_err(|error| format!("{}: {error}", built.display()))
        }
    }
}

fn finish(what: &str, command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{what}: cannot start {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{what} failed:\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// `PATH` with the folder in front that `cargo xtask setup` installs bpf-linker to, unless one is on it already.
fn path_with_linker() -> Result<OsString, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cache = std::env::var_os("UNDERPASS_CACHE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/underpass"));
    let installed = cache.or(home).map(|cache| cache.join("tools/bin"));
    let folders: Vec<PathBuf> = installed.into_iter().chain(std::env::split_paths(&path)).collect();
    if !folders.iter().any(|folder| folder.join("bpf-linker").is_file()) {
        return Err(
            "bpf-linker is not on PATH nor where setup installs it; run: cargo xtask setup".to_owned()
        );
    }
    std::env::join_paths(folders).map_err(|error| format!("PATH: {error}"))
}

/// The compiler's folder, which must have its sources.
fn sysroot() -> Result<PathBuf, String> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("cannot start rustc: {error}"))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        return Err("the compiler's sources (rust-src) are missing; run: cargo xtask setup".to_owned());
    }
    Ok(sysroot)
}

/// Flags as cargo wants them: separated by 0x1f, so that paths may contain spaces.
fn flags(repository: &Path, sysroot: &Path) -> String {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    let remapped =
        [(Some(repository), "/underpass"), (cargo_home.as_deref(), "/cargo"), (Some(sysroot), "/rust")];
    let remaps = remapped
        .into_iter()
        .filter_map(|(from, to)| Some(format!("--remap-path-prefix={}={to}", from?.display())));
    FLAGS.into_iter().map(str::to_owned).chain(remaps).collect::<Vec<_>>().join("\x1f")
}
