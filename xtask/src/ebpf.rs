//! Builds the eBPF object alone, into `target/ebpf`; building `underpass` does the same through the dataplane crate.

use std::path::PathBuf;

use crate::{build::target, step};

#[path = "../../ebpf/recipe.rs"]
mod recipe;

/// Builds the programs and returns the object's path.
pub(crate) fn build_ebpf() -> anyhow::Result<PathBuf> {
    recipe::build_ebpf(&step::root(), &target().join("ebpf")).map_err(anyhow::Error::msg)
}
