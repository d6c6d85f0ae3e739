//! `check`: what review would otherwise have to say. Formatting, lints, the layer table, licenses, unused dependencies;
//! lengths of files and functions are reported, not judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::ebpf;
use crate::step::{self, output};

#[derive(clap::Args)]
pub(crate) struct Args {}

/// Which crate lies on which layer. An arrow goes to a lower layer, or is named in [`LEVEL_EDGES`].
const LAYERS: [(&str, u8); 21] = [
    ("types", 0),
    ("abi", 0),
    ("wire", 1),
    ("node-core", 2),
    ("control-core", 2),
    ("relay-core", 2),
    ("packet", 2),
    ("netlink", 3),
    ("dataplane", 3),
    ("transport", 3),
    ("node", 4),
    ("control", 4),
    ("relay", 4),
    ("wireguard", 4),
    ("cli", 5),
    ("lab", 5),
    ("programs", 5),
    ("interop", 5),
    ("bench", 5),
    ("fuzz", 5),
    ("xtask", 6),
];

/// The edges within a layer: the shell of the data plane drives netlink, the server embeds the relay, the tests of real
/// peers and the bench start their machines with the lab's builder.
const LEVEL_EDGES: [(&str, &str); 5] = [
    ("dataplane", "netlink"),
    ("control", "relay"),
    ("interop", "lab"),
    ("bench", "lab"),
    ("bench", "programs"),
];

/// Crates that a sans-IO crate must never reach, not even through another.
const IO_CRATES: [&str; 5] = ["tokio", "aya", "nix", "rtnetlink", "hyper"];

/// Edges that are not followed: aya's marker trait for map values, for the loader alone; and the Noise records, whose crate
/// has an async adapter beside the codec that `wire` drives by hand.
const INERT_EDGES: [(&str, &str); 3] = [("abi", "aya"), ("wire", "ts_control_noise"), ("wire", "tokio-util")];

const LICENSES: [&str; 15] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "0BSD",
    "MIT-0",
    "Unlicense",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    // gotatun: changes to its own files must stay open, which ours are anyway.
    "MPL-2.0",
    // wireguard-control; the user's choice. Its source is public, so relinking stays possible.
    "LGPL-2.1-or-later",
];

pub(crate) fn run(_: &Args) -> anyhow::Result<()> {
    step::run("formatting", step::cargo().args(["fmt", "--all", "--check"]))?;
    let metadata = output(step::cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let findings =
        [layers(&metadata)?, sans_io(&metadata)?, licenses(&metadata)?, unused(&metadata)?].concat();
    for finding in &findings {
        eprintln!("{finding}");
    }
    lengths(&step::root())?;
    ebpf::reproducible()?;
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    step::run(
        "lints",
        step::cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )
}

fn members(metadata: &Value) -> anyhow::Result<Vec<&Value>> {
    let ids: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .context("no members")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let packages = metadata["packages"].as_array().context("no packages")?;
    Ok(packages.iter().filter(|package| package["id"].as_str().is_some_and(|id| ids.contains(id))).collect())
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Names of a package's dependencies; without those of tests when `kind` is "normal".
fn dependencies(package: &Value, with_dev: bool) -> impl Iterator<Item = &str> {
    let all = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .filter(move |dependency| with_dev || dependency["kind"] != "dev")
        .map(|dependency| text(dependency, "name"))
}

/// Arrows that point up or sideways.
fn layers(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let layer: BTreeMap<&str, u8> = LAYERS.into_iter().collect();
    let mut findings = Vec::new();
    for package in members(metadata)? {
        let name = text(package, "name");
        let Some(&own) = layer.get(name) else {
            findings.push(format!("layers: {name} is in no layer; add it to xtask/src/check.rs"));
            continue;
        };
        for dependency in dependencies(package, false) {
            let Some(&other) = layer.get(dependency) else { continue };
            if other >= own && !LEVEL_EDGES.contains(&(name, dependency)) {
                findings
                    .push(format!("layers: {name} (layer {own}) depends on {dependency} (layer {other})"));
            }
        }
    }
    Ok(findings)
}

/// `-core` crates, `wire`, `types` and `packet` that reach a crate which does IO.
fn sans_io(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("no resolve graph")?;
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .context("no packages")?
        .iter()
        .map(|package| (text(package, "id"), text(package, "name")))
        .collect();
    let edges: BTreeMap<&str, Vec<&str>> = nodes
        .iter()
        .map(|node| {
            let deps = node["deps"].as_array().map(Vec::as_slice).unwrap_or_default();
            let normal = deps.iter().filter(|dep| {
                dep["dep_kinds"]
                    .as_array()
                    .is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
            });
            (text(node, "id"), normal.map(|dep| text(dep, "pkg")).collect())
        })
        .collect();
    let mut findings = Vec::new();
    for package in members(metadata)? {
        let name = text(package, "name");
        if !name.ends_with("-core") && !["types", "packet", "abi"].contains(&name) {
            continue;
        }
        let mut stack = vec![text(package, "id")];
        let mut seen = BTreeSet::new();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            let reached = name_of.get(id).copied().unwrap_or_default();
            if IO_CRATES.contains(&reached) {
                findings.push(format!("sans-IO: {name} reaches {reached}"));
            }
            let followed = |next: &&str| {
                !INERT_EDGES.contains(&(reached, name_of.get(next).copied().unwrap_or_default()))
            };
            stack.extend(edges.get(id).into_iter().flatten().copied().filter(followed));
        }
    }
    Ok(findings)
}

/// Dependencies whose license expression has no alternative that we accept.
fn licenses(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("no packages")?;
    let accepted = |expression: &str| {
        expression.replace('/', " OR ").replace(['(', ')'], "").split(" OR ").any(|alternative| {
            alternative
                .split(" AND ")
                .all(|license| LICENSES.contains(&license.split(" WITH ").next().unwrap_or_default().trim()))
        })
    };
    Ok(packages
        .iter()
        .filter(|package| !accepted(text(package, "license")))
        .map(|package| {
            format!(
                "license: {} {}: {:?}",
                text(package, "name"),
                text(package, "version"),
                package["license"]
            )
        })
        .collect())
}

/// Dependencies that no source file of their crate names.
fn unused(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in members(metadata)? {
        let folder =
            Path::new(text(package, "manifest_path")).parent().context("a manifest lies in a folder")?;
        let mut source = String::new();
        for file in rust_files(folder)? {
            source.push_str(&fs::read_to_string(file)?);
        }
        for dependency in dependencies(package, true) {
            let name = dependency.replace('-', "_");
            let used = source.match_indices(&name).any(|(at, _)| {
                let rest = source[at + name.len()..].chars().next();
                let before = source[..at].chars().next_back();
                !matches!(rest, Some(c) if c.is_alphanumeric() || c == '_')
                    && !matches!(before, Some(c) if c.is_alphanumeric() || c == '_')
            });
            if !used {
                findings.push(format!(
                    "unused: {} does not name its dependency {dependency}",
                    text(package, "name")
                ));
            }
        }
    }
    Ok(findings)
}

fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)?.filter_map(Result::ok) {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Prints files over 400 lines and functions over 60: places to look, not verdicts.
fn lengths(root: &Path) -> anyhow::Result<()> {
    for file in rust_files(root)? {
        let source = fs::read_to_string(&file)?;
        let shown = file.strip_prefix(root).unwrap_or(&file).display();
        let lines: Vec<&str> = source.lines().collect();
        if lines.len() > 400 {
            println!("length: {shown} has {} lines", lines.len());
        }
        for (from, length) in functions(&lines).into_iter().filter(|(_, length)| *length > 60) {
            println!("length: {shown}:{} function of {length} lines", from + 1);
        }
    }
    Ok(())
}

/// First line and length of each function. rustfmt closes a function at the indent of its first line.
fn functions(lines: &[&str]) -> Vec<(usize, usize)> {
    let is_head =
        |line: &str| !line.trim_start().starts_with("//") && line.split_whitespace().any(|word| word == "fn");
    let heads = lines.iter().enumerate().filter(|(_, line)| is_head(line));
    let length = |from: usize, head: &str| {
        let close = format!("{}}}", &head[..head.len() - head.trim_start().len()]);
        lines[from..].iter().position(|line| *line == close)
    };
    heads.filter_map(|(from, head)| Some((from, length(from, head)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_ends_at_the_indent_it_began() {
        let source = ["impl X {", "    pub(crate) fn a() {", "        if x {", "        }", "    }", "}"];
        assert_eq!(functions(&source), [(1, 3)]);
    }
}
