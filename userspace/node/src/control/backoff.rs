//! The pause between sessions: grows with the square of the failures, spread so that a thousand nodes do not come back
//! to a restarted server at once (tailscale `util/backoff`).

use std::time::Duration;

/// The longest pause, before spreading.
const MAX: Duration = Duration::from_secs(30);
/// The pause after the first failure, before spreading.
const FIRST: Duration = Duration::from_millis(10);

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// One more failure: how long to wait now. `random` spreads the pause between half and one and a half of it.
    pub(super) fn next(&mut self, random: u16) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = FIRST.saturating_mul(self.failures.saturating_mul(self.failures)).min(MAX);
        pause.mul_f64(0.5 + f64::from(random) / f64::from(u16::MAX))
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u16 = u16::MAX / 2;

    #[test]
    fn grows_by_the_square_up_to_the_limit() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..3).map(|_| backoff.next(MIDDLE).as_secs_f64()).collect();
        for (pause, expected) in pauses.iter().zip([0.010, 0.040, 0.090]) {
            assert!((pause - expected).abs() < 0.001, "{pauses:?}");
        }
        for _ in 0..100_000 {
            backoff.next(MIDDLE);
        }
        assert_eq!(backoff.next(0), MAX / 2);
        assert_eq!(backoff.next(u16::MAX), MAX + MAX / 2);
        backoff.reset();
        assert_eq!(backoff.next(0), FIRST / 2);
    }
}
