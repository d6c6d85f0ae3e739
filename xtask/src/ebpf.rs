//! Builds the eBPF object alone, into `target/ebpf`; building `underpass` does the same through the dataplane crate.

use std::path::PathBuf;

use crate::{build::target, step};

#[path = "../../ebpf/recipe.rs"]
mod recipe;

/// Builds the programs and returns the object's path.
pub(crate) fn build_ebpf() -> anyhow::Result<PathBuf> {
    build_in(&target().join("ebpf"))
}

/// Builds the programs twice, in two empty folders, and compares the bytes.
pub(crate) fn reproducible() -> anyhow::Result<()> {
    let folders = ["ebpf-once", "ebpf-again"].map(|name| target().join(name));
    let mut objects = Vec::new();
    for folder in &folders {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        objects.push(std::fs::read(build_in(folder)?)?);
        std::fs::remove_dir_all(folder)?;
    }
    anyhow::ensure!(objects[0] == objects[1], "two builds of the eBPF object differ");
    eprintln!("==> the eBPF object: two builds, the same {} bytes", objects[0].len());
    Ok(())
}

fn build_in(target: &std::path::Path) -> anyhow::Result<PathBuf> {
    let object = target.join("programs.o");
    recipe::build_ebpf(&step::root(), ("ebpf/programs", "programs"), target, &object)
        .map_err(anyhow::Error::msg)?;
    Ok(object)
}
