//! One load on one path, and the guard against other people's load.

use std::time::Duration;

use super::meter::Spent;

/// A rate counts as free of loss up to this share.
const LOSS: f64 = 0.01;
/// A run during which others used more of the machine than this is repeated.
const FOREIGN: f64 = 0.02;

/// One run's outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    /// How long was sent.
    pub(crate) took: Duration,
    /// The generator's processor time.
    pub(crate) used: Duration,
    /// Of both, waiting on a busy core: no work.
    pub(crate) waited: Duration,
    pub(crate) spent: Spent,
}

#[expect(clippy::cast_precision_loss, reason = "packets of one run are far fewer than 2^52")]
impl Run {
    /// Packets delivered a second.
    pub(crate) fn rate(&self) -> f64 {
        self.delivered as f64 / self.took.as_secs_f64()
    }

    /// Packets sent a second.
    pub(crate) fn offered(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn loses(&self) -> bool {
        self.sent as f64 * (1.0 - LOSS) > self.delivered as f64
    }

    /// The machine's work for a packet sent, in microseconds.
    pub(crate) fn busy_of_sent(&self) -> f64 {
        self.busy() / self.sent as f64
    }

    /// What a delivered packet took beyond sending it, which takes `base` microseconds.
    pub(crate) fn busy_beyond(&self, base: f64) -> f64 {
        (self.busy() - base * self.sent as f64) / self.delivered as f64
    }

    /// The measured process's work for a delivered packet, in microseconds.
    pub(crate) fn process(&self) -> f64 {
        self.spent.process.as_secs_f64() * 1e6 / self.delivered as f64
    }

    /// All work, in microseconds: the machine's, or where others used it too, that of the threads known to do the work.
    fn busy(&self) -> f64 {
        let known = self.used + self.spent.process + self.spent.softirqs;
        let all = if self.disturbed() { known } else { self.spent.busy };
        all.saturating_sub(self.waited).as_secs_f64() * 1e6
    }

    fn disturbed(&self) -> bool {
        self.spent.foreign > FOREIGN
    }
}

/// How long and how often to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Samples of each figure.
    pub(crate) runs: usize,
    /// Length of a sample.
    pub(crate) span: Duration,
    /// Length of one try of the search.
    pub(crate) step: Duration,
    /// Repetitions of a run that others disturbed.
    pub(crate) patience: usize,
}

impl Effort {
    pub(crate) const fn thorough(runs: usize) -> Self {
        Self { runs, span: Duration::from_millis(1500), step: Duration::from_millis(600), patience: 6 }
    }

    pub(crate) const fn quick(runs: usize) -> Self {
        Self { runs, span: Duration::from_millis(700), step: Duration::from_millis(300), patience: 1 }
    }
}

/// Runs `load` until nobody else disturbs it; after [`Effort::patience`] repetitions the quietest run counts, and its row
/// says how loud it was.
pub(crate) fn guarded(effort: Effort, mut load: impl FnMut() -> anyhow::Result<Run>) -> anyhow::Result<Run> {
    let mut best = load()?;
    for _ in 0..effort.patience {
        if !best.disturbed() {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
        let again = load()?;
        if again.spent.foreign < best.spent.foreign {
            best = again;
        }
    }
    Ok(best)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A path that takes `limit` packets a second and drops the rest.
    pub(in crate::rig) fn path(limit: f64) -> impl FnMut(f64) -> anyhow::Result<Run> {
        move |rate| {
            let second = Duration::from_secs(1);
            let spent = Spent { busy: second, process: second, softirqs: Duration::ZERO, foreign: 0.0 };
            let [sent, delivered] = [rate, rate.min(limit)].map(|packets| packets as u64);
            Ok(Run { sent, delivered, took: second, used: second / 2, waited: Duration::ZERO, spent })
        }
    }

    #[test]
    fn work_is_shared_out_over_packets() {
        let run = path(500_000.0)(1e6).unwrap();
        assert!((run.busy_of_sent() - 1.0).abs() < 1e-9);
        assert!((run.busy_beyond(0.5) - 1.0).abs() < 1e-9, "half of it sent, the rest for 500,000 packets");
        assert!(run.loses());
        let loud = Run { spent: Spent { foreign: 0.5, ..run.spent }, ..run };
        assert!(
            (loud.busy_of_sent() - 1.5).abs() < 1e-9,
            "the known threads': 0.5 s to send, 1 s of the process"
        );
    }
}
