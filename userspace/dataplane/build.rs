//! Builds the eBPF object that `src/object.rs` embeds, or takes the one `UNDERPASS_EBPF_OBJECT` names.

use std::path::{Path, PathBuf};

#[path = "../../ebpf/recipe.rs"]
mod recipe;

fn main() {
    println!("cargo:rerun-if-env-changed=UNDERPASS_EBPF_OBJECT");
    println!("cargo:rerun-if-env-changed=UNDERPASS_CACHE");
    // Asked when it runs, not when it is compiled: a target folder may be copied from another clone.
    let Some(folder) = std::env::var_os("CARGO_MANIFEST_DIR") else { return };
    let repository = Path::new(&folder).join("../..");
    for part in
        ["recipe.rs", "abi", "packet/src", "packet/Cargo.toml", "programs", "Cargo.toml", "Cargo.lock"]
    {
        println!("cargo:rerun-if-changed={}", repository.join("ebpf").join(part).display());
    }
    match object(&repository) {
        Ok(object) => println!("cargo:rustc-env=UNDERPASS_EBPF_OBJECT={}", object.display()),
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            std::process::exit(1);
        }
    }
}

fn object(repository: &Path) -> Result<PathBuf, String> {
    if let Some(given) = std::env::var_os("UNDERPASS_EBPF_OBJECT") {
        let given = PathBuf::from(given);
        println!("cargo:rerun-if-changed={}", given.display());
        return given
            .canonicalize()
            .map_err(|error| format!("UNDERPASS_EBPF_OBJECT: {}: {error}", given.display()));
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // Beside the profiles' folders, so that all of them share one build: target/PROFILE/build/dataplane-HASH/out.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not below a target folder")?.join("ebpf");
    let repository =
        repository.canonicalize().map_err(|error| format!("{}: {error}", repository.display()))?;
    let object = out.join("programs.o");
    recipe::build_ebpf(&repository, ("ebpf/programs", "programs"), &target, &object)?;
    Ok(object)
}
