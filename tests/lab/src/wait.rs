//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::bail;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `condition` answers `Some`, and returns it; the deadline is generous, because it is only met by failures.
///
/// # Errors
/// After `deadline`, naming `what` did not happen.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() > deadline {
            bail!("{what}: not within {:.1} s", deadline.as_secs_f64());
        }
        std::thread::sleep(LOOK);
    }
}
