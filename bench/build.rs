//! Builds the rig's kernel programs, which `src/rig/object.rs` embeds.

use std::path::{Path, PathBuf};

#[path = "../ebpf/recipe.rs"]
mod recipe;

fn main() {
    println!("cargo:rerun-if-env-changed=UNDERPASS_CACHE");
    // Asked when it runs, not when it is compiled: a target folder may be copied from another clone.
    let Some(folder) = std::env::var_os("CARGO_MANIFEST_DIR") else { return };
    let repository = Path::new(&folder).join("..");
    for part in
        ["ebpf/recipe.rs", "bench/programs/src", "bench/programs/Cargo.toml", "bench/programs/Cargo.lock"]
    {
        println!("cargo:rerun-if-changed={}", repository.join(part).display());
    }
    if let Err(message) = object(&repository) {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

fn object(repository: &Path) -> Result<(), String> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // Beside the profiles' folders, so that all of them share one build: target/PROFILE/build/bench-HASH/out.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not below a target folder")?.join("ebpf-rig");
    let repository =
        repository.canonicalize().map_err(|error| format!("{}: {error}", repository.display()))?;
    recipe::build_ebpf(&repository, ("bench/programs", "rig"), &target, &out.join("rig.o"))
}
