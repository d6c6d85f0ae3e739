//! What waits to be written to one connection. Any task puts in, the connection's own takes out; nobody waits for anybody.
//!
//! Packets come as runs: whole frames for one reader that lay side by side in the buffer they were read into. Each lane is
//! bounded in bytes, the oldest run makes room for the newest. Notices are few by construction: a peer is gone once, and
//! answers are rate limited. Deliberately not here: the waker's task and its stream (relay).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use futures_util::task::AtomicWaker;
use wire::derp::Frame;

use crate::PacketKind;

/// A queued run costs its entry too, so that many tiny ones cannot go around the bound.
const OVERHEAD: usize = 64;

/// Whole frames for one reader.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) bytes: Bytes,
    pub(crate) packets: u64,
    /// Bytes of the packets alone.
    pub(crate) payload: u64,
}

/// One connection's queues.
pub(crate) struct Mailbox {
    limit: usize,
    notices: SegQueue<Bytes>,
    lanes: [Lane; PacketKind::ALL.len()],
    /// Packets for its key are to be put here.
    active: AtomicBool,
    closing: AtomicBool,
    reader: AtomicWaker,
}

#[derive(Default)]
struct Lane {
    runs: SegQueue<Run>,
    bytes: AtomicUsize,
}

impl Mailbox {
    /// With room for `limit` bytes of each kind of packet.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            notices: SegQueue::new(),
            lanes: Default::default(),
            active: AtomicBool::new(true),
            closing: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }
    }

    /// Puts a run in; how many packets had to go for it.
    pub(crate) fn push(&self, kind: PacketKind, run: Run) -> u64 {
        let lost = self.lanes[kind as usize].push(run, self.limit);
        self.reader.wake();
        lost
    }

    /// Puts in what the server itself has to say.
    pub(crate) fn notify(&self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.notices.push(bytes.into());
        self.reader.wake();
    }

    pub(crate) fn next_notice(&self) -> Option<Bytes> {
        self.notices.pop()
    }

    /// The next run: DISCO first.
    pub(crate) fn next_run(&self) -> Option<Run> {
        self.lanes.iter().find_map(Lane::pop)
    }

    /// Takes out all packets that nobody will read; how many of each kind there were.
    pub(crate) fn clear(&self) -> [(PacketKind, u64); PacketKind::ALL.len()] {
        PacketKind::ALL.map(|kind| {
            let lane = &self.lanes[kind as usize];
            (kind, std::iter::from_fn(|| lane.pop()).map(|run| run.packets).sum())
        })
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    pub(crate) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }

    /// Has the connection's task end.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.reader.wake();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Who is to be woken when there is something new.
    pub(crate) fn register(&self, reader: &Waker) {
        self.reader.register(reader);
    }

    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.bytes.load(Ordering::Relaxed)).max().unwrap_or_default()
    }
}

impl Lane {
    fn push(&self, run: Run, limit: usize) -> u64 {
        let size = run.bytes.len() + OVERHEAD;
        let mut lost = 0;
        while self.bytes.load(Ordering::Relaxed) + size > limit {
            let Some(oldest) = self.pop() else { break };
            lost += oldest.packets;
        }
        self.bytes.fetch_add(size, Ordering::Relaxed);
        self.runs.push(run);
        lost
    }

    fn pop(&self) -> Option<Run> {
        let run = self.runs.pop()?;
        self.bytes.fetch_sub(run.bytes.len() + OVERHEAD, Ordering::Relaxed);
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(byte: u8, length: usize) -> Run {
        Run { bytes: vec![byte; length].into(), packets: 1, payload: length as u64 }
    }

    #[test]
    fn the_oldest_of_a_kind_makes_room_and_disco_is_not_pushed_out_by_data() {
        let mailbox = Mailbox::new(2 * (100 + OVERHEAD));
        assert_eq!(mailbox.push(PacketKind::Disco, run(9, 100)), 0);
        let lost: Vec<u64> = (0..4).map(|n| mailbox.push(PacketKind::Data, run(n, 100))).collect();
        assert_eq!(lost, [0, 0, 1, 1]);
        assert_eq!(mailbox.push(PacketKind::Data, run(7, 1000)), 2, "the newest fits in any case");
        let seen: Vec<u8> = std::iter::from_fn(|| mailbox.next_run()).map(|run| run.bytes[0]).collect();
        assert_eq!(seen, [9, 7]);
        assert_eq!(mailbox.waiting_bytes(), 0);
    }
}
