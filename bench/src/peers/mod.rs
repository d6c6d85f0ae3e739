//! The real programs that ours is compared with, started in the rig's middle machine on the relay's core.
//!
//! Each is started afresh for every sample and proves by a real handshake that it serves; one that is not installed says so,
//! and its row names it. Deliberately not here: stock clients (`lab::stock`).

mod coturn;
mod peer_relay;
mod stun;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use lab::{Process, until};

use crate::rig::{Bed, on_relay_core};

pub(crate) use coturn::{turn, turn_stun};
pub(crate) use peer_relay::peer_relay;
pub(crate) use stun::{DERP_PORT, PORT as STUN_PORT, derper, derper_stun, request, xdp_stun};

/// How long a program may take to serve.
const DEADLINE: Duration = Duration::from_secs(10);

/// Starts a program in the relay's machine, found where stock programs are, with a log of its own.
fn start(bed: &Bed, name: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let program = lab::stock::program(name)
        .or_else(|| Some(std::path::PathBuf::from("/usr/bin").join(name)).filter(|path| path.is_file()))
        .with_context(|| format!("{name} is not installed; `cargo xtask setup` says how to get it"))?;
    static STARTS: AtomicU32 = AtomicU32::new(0);
    let label = format!("{name}-{}", STARTS.fetch_add(1, Ordering::Relaxed));
    bed.relay.start(&label, on_relay_core(&bed.relay, program)?.args(arguments))
}

/// Waits until `condition` holds or the program ends.
pub(crate) fn serving<T>(
    what: &str,
    process: &mut Process,
    mut condition: impl FnMut(&Process) -> Option<T>,
) -> anyhow::Result<T> {
    let outcome = until(what, DEADLINE, || match condition(process) {
        Some(value) => Some(Some(value)),
        None => process.ended().map(|_| None),
    });
    outcome.and_then(|value| value.context("the program ended")).with_context(|| process.log())
}

/// Whether something listens on `port` of the relay's machine; `kind` is `t` for TCP, `u` for UDP.
pub(crate) fn listens(bed: &Bed, kind: char, port: u16) -> Option<()> {
    let found = bed.relay.sh(&format!("ss -Hln{kind} sport = :{port}")).ok()?;
    (!found.is_empty()).then_some(())
}
