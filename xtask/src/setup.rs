//! `setup`: finds or installs what building, testing and showing need, and says what it did.
//!
//! Idempotent: a second run only looks. Nothing is installed outside Debian's package manager, rustup's components and
//! our own cache folder (`step::cache`).

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::step::{self, command, find, output, tools};

/// The linker of the eBPF programs; verified with the compiler that rust-toolchain.toml pins.
const BPF_LINKER: &str = "0.13.0";
/// The real peers of the interop tests.
pub(crate) const TAILSCALE: &str = "1.102.5";
const PEERS: [&str; 8] =
    ["tailscale", "tailscaled", "derper", "xdpderper", "stunc", "derpprobe", "tsp", "testcontrol"];
/// Those of the bench that Tailscale ships only as a library: a Go module with one folder each.
const BENCH_PEERS: (&str, [&str; 1]) = ("bench/peers", ["udprelay"]);

/// Program, and the Debian package that brings it.
const PACKAGES: [(&str, &str); 19] = [
    ("cc", "gcc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("wg", "wireguard-tools"),
    ("iperf3", "iperf3"),
    ("tcpdump", "tcpdump"),
    ("ethtool", "ethtool"),
    ("curl", "curl"),
    ("socat", "socat"),
    ("conntrack", "conntrack"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("modprobe", "kmod"),
    ("dpkg-deb", "dpkg"),
    ("faketime", "faketime"),
    ("miniupnpd", "miniupnpd-nftables"),
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the Go peers of the interop tests (their tests then count as skipped)
    #[arg(long)]
    no_peers: bool,
}

impl Args {
    /// What everything but the interop tests needs.
    pub(crate) fn without_peers() -> Self {
        Self { no_peers: true }
    }

    /// Everything.
    pub(crate) fn with_peers() -> Self {
        Self { no_peers: false }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    building()?;
    packages()?;
    if !args.no_peers {
        peers()?;
    }
    Ok(())
}

/// What compiling needs: the standard library's source and the eBPF linker.
pub(crate) fn building() -> anyhow::Result<()> {
    let sysroot = PathBuf::from(output(command("rustc").args(["--print", "sysroot"]))?);
    if sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        println!("rust-src      present");
    } else {
        step::run("install rust-src", command("rustup").args(["component", "add", "rust-src"])).context(
            "rust-src is needed to build core for eBPF; with rustup: rustup component add rust-src",
        )?;
    }
    bpf_linker(&sysroot)
}

/// Builds bpf-linker against the compiler's own LLVM, so that the two can never disagree about bitcode.
fn bpf_linker(sysroot: &Path) -> anyhow::Result<()> {
    let wanted = format!("bpf-linker {BPF_LINKER}");
    let found = find("bpf-linker").and_then(|path| output(command(path).arg("--version")).ok());
    if found.as_deref() == Some(wanted.as_str()) {
        println!("bpf-linker    present ({BPF_LINKER})");
        return Ok(());
    }
    let llvm = step::cache().join("llvm/lib");
    std::fs::create_dir_all(&llvm)?;
    let library = std::fs::read_dir(sysroot.join("lib"))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so")))
        .context(
            "this Rust toolchain has no libLLVM.so; use the one rust-toolchain.toml names, from rustup",
        )?;
    let link = llvm.join("libLLVM.so");
    if link.is_symlink() {
        std::fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(library, link)?;
    let root = tools();
    let root = root.parent().expect("tools end in bin");
    step::run(
        &format!("install bpf-linker {BPF_LINKER} (about a minute and a half)"),
        step::cargo()
            .args(["install", "--quiet", "--locked", "bpf-linker", "--version", BPF_LINKER, "--root"])
            .arg(root)
            .env("LLVM_PREFIX", step::cache().join("llvm"))
            .env_remove("CARGO_TARGET_DIR"),
    )
}

/// Debian packages of the lab, the guests and the bench.
fn packages() -> anyhow::Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        println!("packages      present ({})", PACKAGES.map(|(_, package)| package).join(" "));
        return Ok(());
    }
    let by_hand = format!("apt-get install {}", missing.join(" "));
    if find("apt-get").is_none() || !step::is_root() {
        bail!("missing programs; as root on Debian or Ubuntu: {by_hand}");
    }
    let apt = |arguments: &[&str]| {
        let mut apt = command("apt-get");
        apt.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        apt.stdout(std::process::Stdio::null());
        apt
    };
    step::run("refresh the package list", &mut apt(&["update"]))?;
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&missing);
    step::run(&by_hand, &mut apt(&install))
}

/// What only the bench needs: the peer relay by itself, and coturn. What cannot be had is missing in its rows, with the reason.
pub(crate) fn bench_peers() -> anyhow::Result<()> {
    let (folder, programs) = BENCH_PEERS;
    if find("go").is_some() {
        // Go itself knows whether anything changed.
        let packages = programs.map(|program| format!("./{program}"));
        let mut build = command("go");
        build.current_dir(step::root().join(folder)).args(["build", "-trimpath", "-o"]).arg(tools());
        step::run("build the bench's Go peers", build.args(packages).env("CGO_ENABLED", "0"))?;
    } else {
        println!("udprelay      absent: no `go` on PATH (1.26 or newer); its rows will say so");
    }
    if find("turnserver").is_some() {
        println!("coturn        present");
        return Ok(());
    }
    if find("apt-get").is_none() || !step::is_root() {
        println!("coturn        absent; as root on Debian or Ubuntu: apt-get install coturn");
        return Ok(());
    }
    // A runlevel that starts nothing: the package's own server is not wanted, now or at the next boot.
    let mut install = command("apt-get");
    install.args(["-qq", "-o", "Dpkg::Use-Pty=0", "install", "-y", "--no-install-recommends", "coturn"]);
    install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    step::run("apt-get install coturn", install.stdout(std::process::Stdio::null()))?;
    if find("systemctl").is_some() {
        step::run("disable its service", command("systemctl").args(["disable", "--quiet", "coturn"]))?;
    }
    Ok(())
}

/// Stock Tailscale programs for the interop tests. Without Go they stay absent, and those tests say so.
fn peers() -> anyhow::Result<()> {
    let version = |path: PathBuf| output(command(path).arg("version")).ok();
    let found = tools().join("tailscale");
    let current = found.is_file() && version(found).is_some_and(|text| text.starts_with(TAILSCALE));
    if current && PEERS.iter().all(|peer| tools().join(peer).is_file()) {
        println!("Go peers      present (Tailscale {TAILSCALE})");
        return Ok(());
    }
    if find("go").is_none() {
        println!("Go peers      absent: no `go` on PATH (1.26 or newer); the interop tests will be skipped");
        return Ok(());
    }
    std::fs::create_dir_all(tools())?;
    let packages = PEERS.map(|peer| format!("tailscale.com/cmd/{peer}@v{TAILSCALE}"));
    let built = step::run(
        &format!("build Tailscale {TAILSCALE} peers (about three minutes)"),
        command("go").arg("install").args(packages).env("GOBIN", tools()).env("CGO_ENABLED", "0"),
    );
    if let Err(error) = built {
        println!("Go peers      absent: {error:#}; the interop tests will be skipped");
    }
    Ok(())
}
