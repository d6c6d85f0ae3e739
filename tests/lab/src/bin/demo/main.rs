//! The demo: a small Internet, a server, two sites behind NATs and a gateway; real traffic; a controller killed on the way.
//!
//! Each act prints what it does and what it saw; the last lines are the measured figures and a verdict. Everything is removed
//! at the end, also after Ctrl-C, unless `--keep`.

mod act;
mod figures;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use lab::Lab;
use nix::sys::signal::{SigSet, Signal};

#[derive(Parser)]
struct Args {
    /// The binary to show
    #[arg(long)]
    underpass: PathBuf,
    /// Leave everything running and print the commands to explore it by hand
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match show(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show(args: &Args) -> anyhow::Result<bool> {
    prerequisites()?;
    lab::use_binary(args.underpass.clone());
    let lab = Lab::new()?;
    sweep_on_interrupt(&lab)?;
    let stage = act::Stage::build(&lab)?;
    let verdict = act::play(&stage, &lab);
    if args.keep && verdict.is_ok() {
        act::explain(&stage, &lab, &args.underpass);
        wait_for_interrupt();
    }
    println!("\nremoving everything ...");
    verdict
}

/// What the kernel and the user must have; each line says how to get it.
fn prerequisites() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces, devices and eBPF programs need root: sudo cargo xtask demo");
    }
    let needs = [
        ("/dev/net/tun", "TUN devices: modprobe tun (CONFIG_TUN)"),
        ("/sys/fs/bpf", "the BPF file system: a kernel with CONFIG_BPF_SYSCALL"),
        ("/proc/sys/net/ipv4", "IPv4"),
    ];
    for (path, what) in needs {
        if !std::path::Path::new(path).exists() {
            bail!("this kernel lacks {path}: {what}");
        }
    }
    Ok(())
}

/// Ctrl-C in the middle: nothing of the lab may stay. The main thread may be anywhere, so the sweep goes by the lab's tag.
fn sweep_on_interrupt(lab: &Lab) -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let (tag, folder) = (lab.tag().to_owned(), lab.folder().to_path_buf());
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            eprintln!("\ninterrupted: removing everything ...");
            lab::sweep(&tag, &folder);
            std::process::exit(130);
        }
    });
    Ok(())
}

fn wait_for_interrupt() {
    println!("\nCtrl-C removes everything.");
    loop {
        std::thread::park();
    }
}
