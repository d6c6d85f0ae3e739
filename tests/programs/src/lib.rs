//! What the tests of the kernel programs share: packets, cases, namespaces, and the measurement that `bench` prints.
//!
//! The cases are data: `tests/host.rs` judges them with `packet` and the compiled tables, `tests/kernel.rs` runs the same
//! bytes through the loaded programs. Tests that need root print a line beginning with `SKIPPED:` without it.

pub mod cases;
pub mod cost;
pub mod disco_cases;
pub mod frame;
pub mod gateway;
pub mod namespace;
pub mod packets;
pub mod relay_cases;
pub mod shield_cases;
pub mod stun_cases;
pub mod sums;
pub mod tables;

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use dataplane::{Hook, Program, Programs, Reason, Verdict};

/// What a program returns for "pass" and "drop".
const TC_CODES: [i32; 2] = [-1, 2];
const XDP_CODES: [i32; 2] = [2, 1];

/// Says why a test cannot run here; tests return then.
pub fn skipped(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return false;
    }
    println!("SKIPPED: {test}: eBPF programs and network namespaces need root");
    true
}

/// Runs a packet (from its IP header on) through a program and says what it decided: the counter that moved. None if no
/// counter moved, which means "not ours" and a pass.
pub fn judge(programs: &Programs, program: Program, packet: &[u8]) -> Option<Reason> {
    let before = counts(programs, program);
    let frame = packets::ethernet(packet);
    let (code, _) = programs.test_run(program, &frame, 1).expect("the kernel runs the packet");
    let after = counts(programs, program);
    let moved: Vec<Reason> = Reason::ALL
        .into_iter()
        .filter(|reason| after[*reason as usize] != before[*reason as usize])
        .collect();
    assert!(moved.len() <= 1, "one packet counted twice: {moved:?}");
    let reason = moved.first().copied();
    let dropped = reason.is_some_and(|reason| reason.verdict() == Verdict::Drop);
    let codes = if program.hook() == Hook::Xdp { XDP_CODES } else { TC_CODES };
    assert_eq!(code, codes[usize::from(dropped)], "{reason:?} has its verdict");
    reason
}

/// Packets counted by a program, by reason.
pub fn counts(programs: &Programs, program: Program) -> [u64; Reason::ALL.len()] {
    let mut by_reason = [0; Reason::ALL.len()];
    for count in programs.counters().expect("counters can be read") {
        if count.program == program {
            by_reason[count.reason as usize] = count.packets;
        }
    }
    by_reason
}

/// The programs of one test; gone with it, also when it fails.
pub struct Loaded {
    device: &'static str,
    programs: Programs,
}

impl Loaded {
    /// Loads them for `device` in the calling thread's namespace.
    pub fn new(device: &'static str) -> Self {
        Self { device, programs: Programs::load_or_adopt(device).expect("the programs load") }
    }
}

impl std::ops::Deref for Loaded {
    type Target = Programs;

    fn deref(&self) -> &Programs {
        &self.programs
    }
}

impl std::ops::DerefMut for Loaded {
    fn deref_mut(&mut self) -> &mut Programs {
        &mut self.programs
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let removed = Programs::remove_all(self.device);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

/// The folder of a device's pins in the calling thread's namespace.
pub fn pins(device: &str) -> PathBuf {
    let inode = std::fs::metadata("/proc/thread-self/ns/net").expect("a namespace").ino();
    format!("/sys/fs/bpf/underpass/{}/{}@{inode}", abi::PIN_VERSION, device.replace('.', ":")).into()
}
