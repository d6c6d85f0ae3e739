//! A token bucket in one instant: the generic cell rate algorithm.

use std::time::{Duration, Instant};

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units a second, at least 1: bytes or packets.
    pub per_second: u64,
    /// Units at once, on top.
    pub burst: u64,
}

impl Rate {
    fn duration_of(&self, units: u64) -> Duration {
        let nanoseconds = u128::from(units) * 1_000_000_000 / u128::from(self.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// Remembers when everything taken so far will have been paid for.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: Rate,
    paid_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, paid_at: now }
    }

    /// Takes `units` now if the bucket holds them, else nothing.
    pub fn try_take(&mut self, units: u64, now: Instant) -> bool {
        let before = *self;
        let taken = self.take(units, now).is_none();
        if !taken {
            *self = before;
        }
        taken
    }

    /// Takes `units` in any case; says until when to take nothing more, if the bucket went below empty.
    pub fn take(&mut self, units: u64, now: Instant) -> Option<Instant> {
        self.paid_at = self.paid_at.max(now) + self.rate.duration_of(units);
        let burst = self.rate.duration_of(self.rate.burst);
        (self.paid_at > now + burst).then(|| self.paid_at - burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(Rate { per_second: 10, burst: 5 }, start);
        assert!((0..5).all(|_| bucket.try_take(1, start)));
        assert!(!bucket.try_take(1, start));
        assert!(bucket.try_take(1, start + Duration::from_millis(100)));
        assert!(!bucket.try_take(1, start + Duration::from_millis(150)));
        let later = start + Duration::from_secs(60);
        assert!((0..5).all(|_| bucket.try_take(1, later)));
        assert!(!bucket.try_take(1, later));
    }

    #[test]
    fn taking_beyond_the_burst_says_how_long_to_wait() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(Rate { per_second: 1000, burst: 100 }, start);
        assert_eq!(bucket.take(100, start), None);
        let wait = bucket.take(500, start);
        assert_eq!(wait, Some(start + Duration::from_millis(500)));
        assert_eq!(bucket.take(0, start + Duration::from_millis(500)), None);
    }
}
