//! What waits to be written to one connection: bounded, the oldest packet makes room for the newest.

use std::borrow::Cow;
use std::collections::VecDeque;

use types::NodePublic;
use wire::derp::{Frame, GoneReason};

use crate::PacketKind;

/// One connection's queues. Notices are few by construction: a peer is gone once, and answers are rate limited.
#[derive(Debug)]
pub(crate) struct Outbox {
    capacity: usize,
    pong: Option<[u8; 8]>,
    keep_alive: bool,
    notices: VecDeque<Notice>,
    disco: VecDeque<Queued>,
    data: VecDeque<Queued>,
}

#[derive(Debug)]
struct Queued {
    source: NodePublic,
    packet: Box<[u8]>,
}

/// What the server itself has to say.
#[derive(Debug)]
pub(crate) enum Notice {
    Gone(NodePublic, GoneReason),
    /// Empty: all is well again.
    Health(&'static str),
    Restarting {
        reconnect_in: std::time::Duration,
        try_for: std::time::Duration,
    },
}

/// What a drain took out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Drained {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Outbox {
    /// With room for `capacity` packets of each kind.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            pong: None,
            keep_alive: false,
            notices: VecDeque::new(),
            disco: VecDeque::new(),
            data: VecDeque::new(),
        }
    }

    /// Queues a packet; true when the oldest of its kind had to go.
    pub(crate) fn push(&mut self, source: NodePublic, packet: &[u8]) -> bool {
        let queue = match PacketKind::of(packet) {
            PacketKind::Disco => &mut self.disco,
            PacketKind::Data => &mut self.data,
        };
        let full = queue.len() >= self.capacity;
        if full {
            queue.pop_front();
        }
        queue.push_back(Queued { source, packet: packet.into() });
        full
    }

    /// Answers a ping; one answer is kept, who pings faster than it reads gets fewer.
    pub(crate) fn pong(&mut self, data: [u8; 8]) {
        self.pong.get_or_insert(data);
    }

    pub(crate) fn keep_alive(&mut self) {
        self.keep_alive = true;
    }

    pub(crate) fn notify(&mut self, notice: Notice) {
        self.notices.push_back(notice);
    }

    /// Packets queued, by kind.
    pub(crate) fn waiting(&self) -> [(PacketKind, usize); 2] {
        [(PacketKind::Disco, self.disco.len()), (PacketKind::Data, self.data.len())]
    }

    /// Appends frames to `out` until it holds `limit` bytes or nothing is left: the server's own first, then DISCO.
    pub(crate) fn drain(&mut self, limit: usize, out: &mut Vec<u8>) -> Drained {
        let mut drained = Drained::default();
        if let Some(data) = self.pong.take() {
            Frame::Pong(data).encode(out);
        }
        if std::mem::take(&mut self.keep_alive) {
            Frame::KeepAlive.encode(out);
        }
        for notice in self.notices.drain(..) {
            notice.frame().encode(out);
        }
        while out.len() < limit {
            let Some(Queued { source, packet }) = self.disco.pop_front().or_else(|| self.data.pop_front())
            else {
                break;
            };
            Frame::RecvPacket { source, packet: &packet }.encode(out);
            drained.packets += 1;
            drained.bytes += packet.len() as u64;
        }
        drained
    }
}

impl Notice {
    const fn frame(&self) -> Frame<'static> {
        match *self {
            Self::Gone(peer, reason) => Frame::PeerGone { peer, reason },
            Self::Health(problem) => Frame::Health(Cow::Borrowed(problem)),
            Self::Restarting { reconnect_in, try_for } => Frame::Restarting { reconnect_in, try_for },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_a_kind_makes_room_and_disco_is_not_pushed_out_by_data() {
        let source = NodePublic::from_bytes([1; 32]);
        let disco = [&wire::disco::MAGIC[..], &[0; 56]].concat();
        let mut outbox = Outbox::new(2);
        assert!(!outbox.push(source, &disco));
        let dropped: Vec<bool> = (0u8..4).map(|n| outbox.push(source, &[n])).collect();
        assert_eq!(dropped, [false, false, true, true]);
        assert_eq!(outbox.waiting(), [(PacketKind::Disco, 1), (PacketKind::Data, 2)]);

        let mut out = Vec::new();
        assert_eq!(outbox.drain(usize::MAX, &mut out), Drained { packets: 3, bytes: 64 });
        let mut expected = Vec::new();
        for packet in [&disco[..], &[2], &[3]] {
            Frame::RecvPacket { source, packet }.encode(&mut expected);
        }
        assert_eq!(out, expected);
    }
}
