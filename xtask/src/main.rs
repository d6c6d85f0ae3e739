//! `cargo xtask VERB`: everything a developer, CI or a first-time user runs. One verb a file.
//!
//! Depends on no crate of the workspace, so that it runs when they do not build. Deliberately not here: test logic
//! (`tests/`), measurement logic (`bench/`) and the demo itself (`tests/lab`): the verbs build, start and judge them.

mod bench;
mod build;
mod check;
mod demo;
mod dist;
mod ebpf;
mod fuzz;
mod setup;
mod step;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, test, show and measure Underpass")]
struct Xtask {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what the other verbs need; says what it did
    Setup(setup::Args),
    /// Build the eBPF object and the underpass binary
    Build(build::Args),
    /// Formatting, lints, layers, lengths, licenses, unused dependencies
    Check(check::Args),
    /// Set up everything and run every test
    Test(test::Args),
    /// Boot a guest kernel and run a command or the lab tests in it
    Vm(vm::Args),
    /// Set up everything and show the main job, live
    Demo(demo::Args),
    /// Measure, side by side with the programs we compete with
    Bench(bench::Args),
    /// Make a release archive
    Dist(dist::Args),
    /// Fuzz the decoders
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    let done = match Xtask::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::Build(args) => build::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Vm(args) => vm::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Dist(args) => dist::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    eprintln!("xtask: {error:#}");
    ExitCode::FAILURE
}
