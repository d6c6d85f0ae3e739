//! Fifty echoes a second, and the longest time between two answers.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lab::{Namespace, Process, until};

const INTERVAL: &str = "0.02";
/// Answers that show that traffic flows.
const FLOWING: usize = 25;
/// Seconds; less is the interval itself and the machine's own hesitation.
const NOTICEABLE: f64 = 0.1;
/// An event that has no effect by then has none.
const SETTLED: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(60);

/// A running `ping`.
pub(super) struct Echoes(Process);

impl Echoes {
    pub(super) fn start(host: &Namespace, target: IpAddr) -> anyhow::Result<Self> {
        static STARTS: AtomicU32 = AtomicU32::new(0);
        let label = format!("echoes-{}", STARTS.fetch_add(1, Ordering::Relaxed));
        let mut ping = host.command("ping")?;
        ping.args(["-D", "-n", "-i", INTERVAL, &target.to_string()]);
        Ok(Self(host.start(&label, &mut ping)?))
    }

    /// Does `event` while echoes flow, and returns the longest gap in seconds once they flow again.
    pub(super) fn outage(&mut self, event: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        until("echoes flow", DEADLINE, || (self.answers().len() >= FLOWING).then_some(()))?;
        let before = self.answers().len();
        event()?;
        let start = Instant::now();
        until("echoes flow again", DEADLINE, || {
            let answers = self.answers();
            let gap = answers.get(before - 1..).and_then(longest)?;
            let last = answers.len().checked_sub(FLOWING).filter(|last| *last > before)?;
            let flowing = answers.get(last..).and_then(longest)? < gap;
            // Without a gap to speak of, the event must at least have had its time.
            ((flowing && gap > NOTICEABLE) || start.elapsed() > SETTLED).then_some(gap)
        })
    }

    /// When each answer came, in seconds.
    fn answers(&self) -> Vec<f64> {
        self.0.log().lines().filter_map(time).collect()
    }
}

/// The longest time between two answers.
fn longest(answers: &[f64]) -> Option<f64> {
    answers.windows(2).map(|pair| pair[1] - pair[0]).max_by(f64::total_cmp)
}

/// `[1700000000.123456] 64 bytes from ...`
fn time(line: &str) -> Option<f64> {
    let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
    rest.contains("bytes from").then(|| time.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_between_answers() {
        let log = "PING x\n[10.5] 64 bytes from x\n[10.6] From y: unreachable\n[12.75] 64 bytes from x\n[13.0] 64 bytes from x";
        let answers: Vec<f64> = log.lines().filter_map(time).collect();
        assert_eq!(answers, [10.5, 12.75, 13.0]);
        assert_eq!(longest(&answers), Some(2.25));
    }
}
