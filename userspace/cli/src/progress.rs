//! Patience: whoever waits longer than a second is told for what.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

/// What feels like nothing happens.
const QUIET: Duration = Duration::from_secs(1);

/// Waits for `work`; says `what` on standard error when that takes long.
pub(crate) async fn noting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(QUIET, &mut work).await {
        return done;
    }
    eprintln!("{what} ...");
    work.await
}
