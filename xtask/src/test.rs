//! `test`: sets up everything, runs every suite, and closes with `N passed, N failed, N skipped`.
//!
//! A test that cannot run on this machine prints a line that starts with `SKIPPED:` and why; libtest counts it as passed,
//! so it is moved from one count to the other here. Suites run one after another: two cores, and honest timings.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::{build, setup, step, vm};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these suites, in this order: unit programs lab interop vm-6.1 vm-6.12
    suites: Vec<String>,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
}

/// Name of a suite, and the packages that it tests.
const SUITES: [(&str, Kind); 6] = [
    (
        "unit",
        Kind::Host(&["--workspace", "--exclude", "programs", "--exclude", "lab", "--exclude", "interop"]),
    ),
    ("programs", Kind::Host(&["--package", "programs"])),
    ("lab", Kind::Host(&["--package", "lab"])),
    ("interop", Kind::Host(&["--package", "interop"])),
    ("vm-6.1", Kind::Guest("6.1")),
    ("vm-6.12", Kind::Guest("6.12")),
];

#[derive(Clone, Copy)]
enum Kind {
    /// `cargo test` with these arguments, on this machine.
    Host(&'static [&'static str]),
    /// The lab's tests on a guest kernel of this series, with kernel WireGuard.
    Guest(&'static str),
}

/// What a suite's output said.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Tally {
    /// A whole suite that cannot run here.
    pub(crate) fn skipped() -> Self {
        Self { skipped: 1, ..Self::default() }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Reads one line of libtest's output.
    fn read(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(count) = count.parse::<u32>() else { continue };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(unknown) = args.suites.iter().find(|name| SUITES.iter().all(|(suite, _)| suite != name)) {
        bail!("no suite named {unknown}; there are: {}", SUITES.map(|(name, _)| name).join(" "));
    }
    setup::run(&setup::Args::with_peers())?;
    let underpass = build::underpass(true)?;
    let mut total = Tally::default();
    let mut table = Vec::new();
    let chosen = |name: &str| args.suites.is_empty() || args.suites.iter().any(|suite| suite == name);
    for (name, kind) in SUITES.into_iter().filter(|(name, _)| chosen(name)) {
        let start = Instant::now();
        let tally = suite(name, kind, &underpass, args.filter.as_deref());
        let tally = tally.unwrap_or_else(|error| {
            eprintln!("{name}: {error:#}");
            Tally { failed: 1, ..Tally::default() }
        });
        table.push((name, tally, start.elapsed()));
        total.add(tally);
    }
    println!("\n{:<10} {:>7} {:>7} {:>8} {:>8}", "suite", "passed", "failed", "skipped", "seconds");
    for (name, tally, took) in table {
        let Tally { passed, failed, skipped } = tally;
        println!("{name:<10} {passed:>7} {failed:>7} {skipped:>8} {:>8.0}", took.as_secs_f64());
    }
    println!("\n{total}");
    if total.failed > 0 || total.passed == 0 {
        std::process::exit(1);
    }
    Ok(())
}

fn suite(name: &str, kind: Kind, underpass: &Path, filter: Option<&str>) -> anyhow::Result<Tally> {
    eprintln!("==> suite {name}");
    match kind {
        Kind::Host(packages) => {
            let mut test = step::cargo();
            test.args(["test", "--locked", "--no-fail-fast"]).args(packages).env("UNDERPASS_BIN", underpass);
            test.args(["--"]).args(filter).arg("--show-output");
            count(&mut test)
        }
        Kind::Guest(series) => vm::lab(series, underpass, filter),
    }
}

/// Runs `command`, shows its output as it comes, and counts the tests in it.
pub(crate) fn count(command: &mut Command) -> anyhow::Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut tally = Tally::default();
    let mut skipped = 0;
    for line in BufReader::new(child.stdout.take().expect("stdout is piped")).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        println!("{line}");
        skipped += u32::from(line.starts_with("SKIPPED:"));
        tally.read(&line);
    }
    tally.passed = tally.passed.saturating_sub(skipped);
    tally.skipped += skipped;
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        eprintln!("the suite did not finish: {status}");
        tally.failed = 1;
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_counted() {
        let mut tally = Tally::default();
        tally.read("test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (5, 2, 1));
    }
}
