//! Sends frames at a rate, or as fast as it can, from one core: a test-run of `generate` with live frames.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use aya::maps::Array;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use lab::Namespace;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::kernel::{self, Kernel, layout};
use super::{Frames, GENERATOR_CORE};

/// Frames handed over at once, as a NIC's interrupt would bring them.
const BATCH: u32 = 64;
/// Frames of one test-run that is not paced; its end takes tens of milliseconds, so it is long.
const FLAT_OUT: u32 = 1 << 19;

/// How fast.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Packets a second.
    Rate(f64),
    /// As fast as frames can be made and taken.
    FlatOut,
}

/// The source, for one device.
pub(crate) struct Generator<'bed> {
    machine: &'bed Namespace,
    device: u32,
}

/// What was sent.
pub(crate) struct Sent {
    pub(crate) packets: u64,
    pub(crate) took: Duration,
    /// Processor time of that, with the softirqs on top of it.
    pub(crate) used: Duration,
    /// Of both, spent waiting on a busy core.
    pub(crate) waited: Duration,
}

impl<'bed> Generator<'bed> {
    /// A source that sends out of `device` of `machine`.
    pub(crate) fn new(machine: &'bed Namespace, device: &str) -> anyhow::Result<Self> {
        Ok(Self { machine, device: kernel::index(machine, device)? })
    }

    /// Sends for `span`, and at least one test-run.
    pub(crate) fn send(
        &self,
        kernel: &mut Kernel,
        frames: &Frames,
        pace: Pace,
        span: Duration,
    ) -> anyhow::Result<Sent> {
        self.write(kernel, frames, pace)?;
        let data = [&frames.frame[..], &[0; layout::SLACK]].concat();
        let program: &mut Xdp = kernel::program(&mut kernel.ebpf, "generate")?;
        let repeat = match pace {
            Pace::Rate(rate) => (rate * span.as_secs_f64()).max(1.0) as u32,
            Pace::FlatOut => FLAT_OUT,
        };
        let (packets, took, used) = self.machine.enter(|| {
            on_generator_core()?;
            let (start, used) = (Instant::now(), processor_time()?);
            let mut packets = 0;
            loop {
                let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
                program.test_run(TestRunOptions {
                    data_in: Some(&data),
                    repeat,
                    attrs,
                    ..TestRunOptions::new()
                })?;
                packets += u64::from(repeat);
                if matches!(pace, Pace::Rate(_)) || start.elapsed() >= span {
                    return anyhow::Ok((packets, start.elapsed(), processor_time()?.saturating_sub(used)));
                }
            }
        })??;
        let map: Array<_, [u64; layout::source::COUNT]> =
            Array::try_from(kernel.ebpf.map("SOURCE").context("SOURCE")?)?;
        let waited = Duration::from_nanos(map.get(&0, 0)?[layout::source::WAITED]);
        Ok(Sent { packets, took, used, waited })
    }

    fn write(&self, kernel: &mut Kernel, frames: &Frames, pace: Pace) -> anyhow::Result<()> {
        use layout::source;
        let length = frames.frame.len().min(layout::HEAD_LEN);
        let mut head = [0; layout::HEAD_LEN];
        head[..length].copy_from_slice(&frames.frame[..length]);
        let mut map: Array<_, [u8; layout::HEAD_LEN]> =
            Array::try_from(kernel.ebpf.map_mut("HEAD").context("HEAD")?)?;
        map.set(0, head, 0)?;
        let mut map: Array<_, layout::Flow> = Array::try_from(kernel.ebpf.map_mut("FLOW").context("FLOW")?)?;
        for (flow, index) in frames.flows.iter().zip(0..) {
            map.set(index, flow, 0)?;
        }
        let mut state = [0; source::COUNT];
        state[source::DEVICE] = self.device.into();
        state[source::HEAD_LAST] = length as u64 - 1;
        state[source::FLOWS] = frames.flows.len() as u64;
        state[source::BATCH] = BATCH.into();
        if let Pace::Rate(rate) = pace {
            state[source::GAP] = (f64::from(BATCH) / rate * 1e9) as u64;
        }
        // DUE stays 0: the first batch is late, and lateness is forgotten.
        let mut map: Array<_, [u64; source::COUNT]> =
            Array::try_from(kernel.ebpf.map_mut("SOURCE").context("SOURCE")?)?;
        Ok(map.set(0, state, 0)?)
    }
}

/// Binds the calling thread to the generator's core.
pub(crate) fn on_generator_core() -> anyhow::Result<()> {
    let mut core = CpuSet::new();
    core.set(GENERATOR_CORE)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &core)?)
}

/// What this thread has used.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
