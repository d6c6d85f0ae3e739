//! A small Internet on one machine: network namespaces, NATs and real binaries, built and removed by Rust values.
//!
//! ```text
//!   site a                       internet 203.0.113.0/24                     gateway's LAN
//!   192.0.2.0/25     +-------+        +--------+          +---------+     198.51.100.0/24
//!   a ---------------| nat-a |--------|        |----------| gateway |------------ lan-host
//!                    +-------+        | switch |          +---------+
//!   b ---------------| nat-b |--------|        |---- server 203.0.113.10
//!   192.0.2.128/25   +-------+        +--------+
//! ```
//!
//! Every name carries the lab's tag, every value removes what it made when dropped, and processes are ended by the id they
//! were started with. All addresses are from documentation ranges; nothing leaves the namespaces. Deliberately not here:
//! what is tested (`tests/`), and packet generators (`bench`).

pub mod internet;
pub mod namespace;
pub mod node;
pub mod process;
pub mod server;
pub mod stock;
pub mod wait;

pub use internet::{Internet, Nat};
pub use namespace::{Lab, Namespace, sweep};
pub use node::Node;
pub use process::Process;
pub use server::Server;
pub use stock::Stock;
pub use wait::until;

static BINARY: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();

/// Names the binary under test, once, before the lab starts anything.
pub fn use_binary(path: std::path::PathBuf) {
    let _ = BINARY.set(path);
}

/// The binary under test: what [`use_binary`] named, `UNDERPASS_BIN`, else the one next to this executable's target folder.
///
/// # Errors
/// When there is none, with the command that builds it.
pub fn underpass() -> anyhow::Result<std::path::PathBuf> {
    if let Some(path) = BINARY.get() {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os("UNDERPASS_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let target = own.ancestors().find(|dir| dir.join("release").is_dir() || dir.join("debug").is_dir());
    ["release", "debug"]
        .iter()
        .filter_map(|profile| Some(target?.join(profile).join("underpass")))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow::anyhow!("no underpass binary: run `cargo xtask build`, or set UNDERPASS_BIN"))
}

/// Why the lab cannot run here, if so: prints the line that the test runner counts as skipped.
pub fn skipped(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return false;
    }
    println!("SKIPPED: {test}: network namespaces, devices and eBPF programs need root");
    true
}
