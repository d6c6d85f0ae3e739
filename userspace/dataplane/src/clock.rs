//! The clock that programs stamp with.

use std::io;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since boot, without suspend, as of the kernel's last tick: what `bpf_ktime_get_coarse_ns` gives.
pub(crate) fn since_boot() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?.into())
}
