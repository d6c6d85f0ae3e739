//! Builds the eBPF object alone, into `target/ebpf`; building `underpass` does the same through the dataplane crate.

use std::path::PathBuf;

use crate::{build::target, step};

#[path = "../../ebpf/recipe.rs"]
mod recipe;

/// Builds the programs and returns the object's path.
pub(crate) fn build_ebpf() -> anyhow::Result<PathBuf> {
    let target = target().join("ebpf");
    let object = target.join("programs.o");
    recipe::build_ebpf(&step::root(), &target, &object).map_err(anyhow::Error::msg)?;
    Ok(object)
}
