//! The client's loop: an order, sessions until the next order, pauses between them.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::session::{Session, Turn};
use super::{Config, Event, Failure, Order, Report};

/// Runs until the handle is gone.
pub(super) async fn run(
    config: Config,
    mut orders: mpsc::UnboundedReceiver<Order>,
    report: watch::Receiver<Report>,
    events: mpsc::Sender<Event>,
) {
    let mut session = Session::new(config, events, report);
    let mut backoff = Backoff::default();
    let mut wanted = None;
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => {
                let Some(order) = order else { return };
                not_before = Instant::now();
                backoff.reset();
                take(order, &mut wanted, &mut session);
            }
            ended = work(&mut session, &mut wanted, not_before), if wanted.is_some() => {
                if session.progress {
                    backoff.reset();
                }
                match end(ended, &session, &mut backoff).await {
                    Some(pause) => not_before = Instant::now() + pause,
                    None => wanted = None,
                }
            }
        }
    }
}

fn take(order: Order, wanted: &mut Option<Order>, session: &mut Session) {
    match order {
        Order::Reconnect => {}
        Order::Pause => *wanted = None,
        Order::Register(_) | Order::Logout(_) => {
            session.forget_registration();
            *wanted = Some(order);
        }
    }
}

async fn work(
    session: &mut Session,
    wanted: &mut Option<Order>,
    not_before: Instant,
) -> Result<Turn, Failure> {
    sleep_until(not_before).await;
    match wanted {
        Some(Order::Register(registration)) => session.run(registration).await,
        Some(Order::Logout(node_key)) => session.logout(*node_key).await,
        // These two are never kept as wanted.
        Some(Order::Pause | Order::Reconnect) | None => std::future::pending().await,
    }
}

/// Tells how the session ended. How long to wait before the next, or `None` to wait for an order.
async fn end(ended: Result<Turn, Failure>, session: &Session, backoff: &mut Backoff) -> Option<Duration> {
    let (event, pause) = match ended {
        Ok(Turn::KeyExpired) => (Event::KeyExpired, None),
        Ok(Turn::LoggedOut) => (Event::LoggedOut, None),
        Err(failure) => {
            let retry = !failure.needs_person();
            let pause = failure.retry_after().unwrap_or_else(|| backoff.next(random()));
            (Event::Failed { failure, retry }, retry.then_some(pause))
        }
    };
    session.emit(event).await;
    pause
}

/// For spreading only: without a random source every pause is the shortest.
fn random() -> u16 {
    let mut bytes = [0; 2];
    let _ = getrandom::fill(&mut bytes);
    u16::from_ne_bytes(bytes)
}
