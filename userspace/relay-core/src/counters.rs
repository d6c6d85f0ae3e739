//! What the relay counts, and under which names. Gauges go down again, everything else only up.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a packet was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Nobody with that key is connected.
    UnknownDestination,
    /// The destination disconnected before its queue was written.
    Disconnected,
    /// The destination reads too slowly: the oldest packet made room.
    QueueHead,
}

impl DropReason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 3] = [Self::UnknownDestination, Self::Disconnected, Self::QueueHead];
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownDestination => "unknown_dest",
            Self::Disconnected => "gone_disconnected",
            Self::QueueHead => "queue_head",
        })
    }
}

/// What kind of packet; DISCO has a queue of its own, for a path lost to a full queue stays relayed for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PacketKind {
    /// Path discovery.
    Disco,
    /// Everything else.
    Data,
}

impl PacketKind {
    /// Every kind, in the order of the counters.
    pub const ALL: [Self; 2] = [Self::Disco, Self::Data];

    /// By the packet's first bytes.
    pub fn of(packet: &[u8]) -> Self {
        if wire::disco::looks_like_disco(packet) { Self::Disco } else { Self::Data }
    }
}

impl fmt::Display for PacketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disco => "disco",
            Self::Data => "other",
        })
    }
}

/// The counters of one DERP server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections admitted.
    pub accepts: u64,
    /// Connections now (gauge).
    pub connections: u64,
    /// Keys now connected more than once (gauge).
    pub duplicate_keys: u64,
    /// Connections that call this server their home (gauge).
    pub homes: u64,
    /// Packets from clients.
    pub packets_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Packets handed to the streams of clients.
    pub packets_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// "Peer gone" notices because it disconnected.
    pub gone_disconnected: u64,
    /// "Peer gone" notices because it was never here.
    pub gone_not_here: u64,
    /// Pings of clients.
    pub pings: u64,
    /// Frames of unknown type or of the wrong direction.
    pub unknown_frames: u64,
    /// How often a client over its rate was not read for a while.
    pub rate_waits: u64,
    /// Packets handed to another server of the region.
    pub forwarded_out: u64,
    /// Packets taken from another server of the region.
    pub forwarded_in: u64,
    dropped: [[u64; PacketKind::ALL.len()]; DropReason::ALL.len()],
}

impl Counters {
    /// Packets not delivered for this reason.
    pub fn dropped(&self, reason: DropReason, kind: PacketKind) -> u64 {
        self.dropped[reason as usize][kind as usize]
    }

    /// Packets not delivered for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().flatten().sum()
    }

    /// Metric names, with labels where there are any, and values.
    pub fn metrics(&self) -> Vec<(String, u64)> {
        let plain = [
            ("derp_accepts_total", self.accepts),
            ("derp_connections", self.connections),
            ("derp_duplicate_keys", self.duplicate_keys),
            ("derp_home_connections", self.homes),
            ("derp_packets_received_total", self.packets_received),
            ("derp_bytes_received_total", self.bytes_received),
            ("derp_packets_sent_total", self.packets_sent),
            ("derp_bytes_sent_total", self.bytes_sent),
            ("derp_peer_gone_disconnected_total", self.gone_disconnected),
            ("derp_peer_gone_not_here_total", self.gone_not_here),
            ("derp_pings_total", self.pings),
            ("derp_unknown_frames_total", self.unknown_frames),
            ("derp_rate_limit_waits_total", self.rate_waits),
            ("derp_packets_forwarded_out_total", self.forwarded_out),
            ("derp_packets_forwarded_in_total", self.forwarded_in),
        ];
        let dropped = DropReason::ALL.into_iter().flat_map(|reason| {
            PacketKind::ALL.into_iter().map(move |kind| {
                let name = format!("derp_packets_dropped_total{{reason=\"{reason}\",kind=\"{kind}\"}}");
                (name, self.dropped(reason, kind))
            })
        });
        plain.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(dropped).collect()
    }
}

/// What the tasks of all connections count side by side.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) packets_received: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) packets_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) gone_not_here: AtomicU64,
    pub(crate) pings: AtomicU64,
    pub(crate) unknown_frames: AtomicU64,
    pub(crate) rate_waits: AtomicU64,
    pub(crate) forwarded_out: AtomicU64,
    pub(crate) forwarded_in: AtomicU64,
    dropped: [[AtomicU64; PacketKind::ALL.len()]; DropReason::ALL.len()],
}

impl Live {
    pub(crate) fn drop(&self, reason: DropReason, kind: PacketKind, packets: u64) {
        if packets > 0 {
            self.dropped[reason as usize][kind as usize].fetch_add(packets, Ordering::Relaxed);
        }
    }

    pub(crate) fn add_to(&self, counters: &mut Counters) {
        for (counter, live) in [
            (&mut counters.packets_received, &self.packets_received),
            (&mut counters.bytes_received, &self.bytes_received),
            (&mut counters.packets_sent, &self.packets_sent),
            (&mut counters.bytes_sent, &self.bytes_sent),
            (&mut counters.gone_not_here, &self.gone_not_here),
            (&mut counters.pings, &self.pings),
            (&mut counters.unknown_frames, &self.unknown_frames),
            (&mut counters.rate_waits, &self.rate_waits),
            (&mut counters.forwarded_out, &self.forwarded_out),
            (&mut counters.forwarded_in, &self.forwarded_in),
        ] {
            *counter += live.load(Ordering::Relaxed);
        }
        for (counters, lives) in counters.dropped.iter_mut().zip(&self.dropped) {
            for (counter, live) in counters.iter_mut().zip(lives) {
                *counter += live.load(Ordering::Relaxed);
            }
        }
    }
}
