//! Processor time: what the machine, one process, and everybody else used between two looks.
//!
//! The machine's busy time is what its cores were not idle, exact to a tick at either end. A thread's time is the
//! scheduler's own count, to the nanosecond; it includes the softirqs that ran on top of the thread, unless the kernel was
//! built with `CONFIG_IRQ_TIME_ACCOUNTING`.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Set in `/proc/PID/stat` for kernel threads, whose work is the bench's own.
const PF_KTHREAD: u64 = 0x0020_0000;

/// A look at the clocks.
pub(crate) struct Meter {
    process: Option<Pid>,
    at: Instant,
    idle: Duration,
    stolen: Duration,
    own: Duration,
    softirqs: Duration,
    others: Duration,
}

/// What was used since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// By everybody, on all cores together.
    pub(crate) busy: Duration,
    /// By the process of interest.
    pub(crate) process: Duration,
    /// By the kernel threads that run what softirqs could not finish, and threaded NAPI.
    pub(crate) softirqs: Duration,
    /// The share of the machine that other processes took, and the hypervisor.
    pub(crate) foreign: f64,
}

impl Meter {
    /// Looks now. `process` is what is measured, if it is a process.
    pub(crate) fn start(process: Option<Pid>) -> anyhow::Result<Self> {
        let (idle, stolen) = machine()?;
        let own = process.map_or(Ok(Duration::ZERO), exact)?;
        let (others, softirqs) = (others(process)?, softirqs());
        Ok(Self { process, at: Instant::now(), idle, stolen, own, softirqs, others })
    }

    pub(crate) fn stop(&self) -> anyhow::Result<Spent> {
        let now = Self::start(self.process)?;
        let wall = now.at - self.at;
        let all = wall * u32::try_from(cores())?;
        let stolen = now.stolen - self.stolen;
        let foreign = now.others.saturating_sub(self.others) + stolen;
        Ok(Spent {
            busy: all.saturating_sub(now.idle.saturating_sub(self.idle) + stolen),
            process: now.own.saturating_sub(self.own),
            softirqs: now.softirqs.saturating_sub(self.softirqs),
            foreign: foreign.as_secs_f64() / all.as_secs_f64(),
        })
    }
}

/// Cores that are online.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn ticks(count: u64) -> Duration {
    let rate = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|rate| u64::try_from(rate).ok());
    Duration::from_nanos(count * (1_000_000_000 / rate.unwrap_or(100)))
}

/// Idle and stolen time of all cores together.
fn machine() -> anyhow::Result<(Duration, Duration)> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let fields: Vec<u64> = text
        .lines()
        .next()
        .context("a first line")?
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    anyhow::ensure!(fields.len() >= 8, "/proc/stat has {} fields", fields.len());
    // user nice system idle iowait irq softirq steal
    Ok((ticks(fields[3] + fields[4]), ticks(fields[7])))
}

/// The processor time of every thread of a process, to the nanosecond.
fn exact(process: Pid) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))?.filter_map(Result::ok) {
        // A thread may end between the two reads.
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        sum += text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(sum))
}

fn softirqs() -> Duration {
    let threads =
        super::bed::kernel_threads(|name| name.starts_with("ksoftirqd/") || name.starts_with("napi/rig0-"));
    threads.into_iter().filter_map(|thread| exact(Pid::from_raw(thread)).ok()).sum()
}

/// The time of every process that is neither ours, nor the measured one, nor a kernel thread, with that of children that
/// have ended: compilers live shorter than a measurement.
fn others(measured: Option<Pid>) -> anyhow::Result<Duration> {
    let mine: BTreeSet<i32> =
        measured.map(Pid::as_raw).into_iter().chain([nix::unistd::getpid().as_raw()]).collect();
    let processes = fs::read_dir("/proc")?.filter_map(Result::ok);
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
    let used = ids.filter(|id| !mine.contains(id)).filter_map(|id| {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        used(&text)
    });
    Ok(ticks(used.sum()))
}

/// Ticks of one process and of its ended children, from its `stat` line; none for kernel threads.
fn used(stat: &str) -> Option<u64> {
    // The name may hold spaces and parentheses; what follows the last one does not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
    (field(6)? & PF_KTHREAD == 0).then_some(())?;
    Some((11..15).filter_map(field).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_counts_with_its_ended_children_and_kernel_threads_do_not() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 1 0 5";
        assert_eq!(used(line), Some(127));
        assert_eq!(used(&line.replace("4194304", "2097152")), None);
    }

    #[test]
    fn work_is_seen_as_work() {
        let meter = Meter::start(Some(nix::unistd::getpid())).unwrap();
        let end = Instant::now() + Duration::from_millis(50);
        while Instant::now() < end {}
        let spent = meter.stop().unwrap();
        assert!(spent.process >= Duration::from_millis(5), "{spent:?}");
        assert!(spent.busy <= Duration::from_secs(64), "{spent:?}");
    }
}
