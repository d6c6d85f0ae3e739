//! How the eBPF object is built: one recipe, used by the dataplane's build script and by `cargo xtask build`.
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

/// Builds `ebpf/programs` below `repository` into `target` and returns the object's path.
///
/// # Errors
/// What is missing and how to get it, or the compiler's messages.
pub(crate) fn build_ebpf(repository: &Path, target: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .current_dir(repository.join("ebpf/programs"))
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
        .env("CARGO_ENCODED_RUSTFLAGS", flags(repository)?)
        // What the outer cargo set for the host's build.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET");
    let output = build.output().map_err(|error| format!("cannot start cargo for ebpf/programs: {error}"))?;
    if !output.status.success() {
        return Err(format!("building ebpf/programs failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(target.join("bpfel-unknown-none/release/programs"))
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

/// Flags as cargo wants them: separated by 0x1f, so that paths may contain spaces.
fn flags(repository: &Path) -> Result<String, String> {
    let sysroot = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("cannot start rustc: {error}"))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        return Err("the compiler's sources (rust-src) are missing; run: cargo xtask setup".to_owned());
    }
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home =
        cargo_home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let remapped =
        [(Some(repository.to_owned()), "/underpass"), (cargo_home, "/cargo"), (Some(sysroot), "/rust")];
    let remaps = remapped
        .into_iter()
        .filter_map(|(from, to)| Some(format!("--remap-path-prefix={}={to}", from?.display())));
    Ok(FLAGS.into_iter().map(str::to_owned).chain(remaps).collect::<Vec<_>>().join("\x1f"))
}
