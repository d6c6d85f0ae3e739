//! A bounded queue between two tasks that drops its oldest entry instead of waiting.
//!
//! What WireGuard sends again by itself is better lost than late: a queue that fills up behind a slow relay would only add
//! delay. One side pushes without waiting, the other pops. Deliberately not here: more than one receiver.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The pushing end; clones push into the same queue.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// The popping end.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    entries: Mutex<VecDeque<T>>,
    capacity: usize,
    pushed: Notify,
}

/// A queue of at most `capacity` entries.
pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { entries: Mutex::default(), capacity, pushed: Notify::new() });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    /// Appends `entry`; returns the one that had to go for it.
    pub(crate) fn push(&self, entry: T) -> Option<T> {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = (entries.len() == self.0.capacity).then(|| entries.pop_front()).flatten();
        entries.push_back(entry);
        self.0.pushed.notify_one();
        dropped
    }
}

impl<T> Receiver<T> {
    /// Waits for the oldest entry. Cancel-safe.
    pub(crate) async fn pop(&mut self) -> T {
        loop {
            if let Some(entry) = self.try_pop() {
                return entry;
            }
            self.0.pushed.notified().await;
        }
    }

    /// The oldest entry, if there is one.
    pub(crate) fn try_pop(&mut self) -> Option<T> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_drops_the_oldest_and_keeps_the_order() {
        let (sender, mut receiver) = bounded(2);
        assert_eq!(sender.push(1), None);
        assert_eq!(sender.push(2), None);
        assert_eq!(sender.push(3), Some(1));
        assert_eq!((receiver.pop().await, receiver.pop().await), (2, 3));
        assert_eq!(receiver.try_pop(), None);
    }

    #[tokio::test]
    async fn a_waiting_receiver_is_woken() {
        let (sender, mut receiver) = bounded(2);
        let waiting = tokio::spawn(async move { receiver.pop().await });
        sender.push(7);
        assert_eq!(waiting.await.unwrap(), 7);
    }
}
