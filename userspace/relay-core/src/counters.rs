//! What the relay counts, and under which names. Gauges go down again, everything else only up.

use std::fmt;

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

    pub(crate) fn drop(&mut self, reason: DropReason, kind: PacketKind) {
        self.dropped[reason as usize][kind as usize] += 1;
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
