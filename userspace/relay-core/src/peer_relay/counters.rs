//! What a peer relay counts, under Tailscale's names where it has them (`net/udprelay/metrics.go`).

use std::fmt;
use std::net::SocketAddr;

/// Why a packet went nowhere. Its sender is never told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelayDrop {
    /// No Geneve header of the kind used here.
    Malformed,
    /// No session has this VNI.
    UnknownVni,
    /// Data, but not both clients have bound.
    NotBound,
    /// Data from an address that is not bound to this VNI.
    WrongSource,
    /// A control packet that is not DISCO.
    NotDisco,
    /// The sender's key is not one of the session's two.
    UnknownClient,
    /// The box does not open, or is malformed inside.
    Sealed,
    /// A message that no client sends to a relay.
    UnexpectedMessage,
    /// VNI or other client inside the box are not the session's.
    Mismatch,
    /// A handshake's number is zero, or not the one in progress.
    Generation,
    /// The challenge is not ours, too old, or was given to another address.
    Challenge,
}

impl RelayDrop {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::UnknownVni,
        Self::NotBound,
        Self::WrongSource,
        Self::NotDisco,
        Self::UnknownClient,
        Self::Sealed,
        Self::UnexpectedMessage,
        Self::Mismatch,
        Self::Generation,
        Self::Challenge,
    ];
}

impl fmt::Display for RelayDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::UnknownVni => "unknown_vni",
            Self::NotBound => "not_bound",
            Self::WrongSource => "wrong_source",
            Self::NotDisco => "not_disco",
            Self::UnknownClient => "unknown_client",
            Self::Sealed => "sealed",
            Self::UnexpectedMessage => "unexpected_message",
            Self::Mismatch => "mismatch",
            Self::Generation => "generation",
            Self::Challenge => "challenge",
        })
    }
}

/// Packets and their bytes, Geneve header included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// UDP payloads.
    pub packets: u64,
    /// Their lengths.
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }

    /// What came since `before`; zero where a counter started anew.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

/// The counters of one peer relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayCounters {
    /// By the family a packet came by, then the one it left by; IPv4 first.
    forwarded: [[Traffic; 2]; 2],
    dropped: [u64; RelayDrop::ALL.len()],
    /// Allocation requests refused.
    pub refused: u64,
}

impl RelayCounters {
    /// What was forwarded from one family to another.
    pub fn forwarded(&self, from_v6: bool, to_v6: bool) -> Traffic {
        self.forwarded[usize::from(from_v6)][usize::from(to_v6)]
    }

    /// Packets dropped for this reason.
    pub fn dropped(&self, reason: RelayDrop) -> u64 {
        self.dropped[reason as usize]
    }

    pub(super) fn forward(&mut self, from: SocketAddr, to: SocketAddr, traffic: Traffic) {
        self.forwarded[usize::from(from.is_ipv6())][usize::from(to.is_ipv6())].add(traffic);
    }

    pub(super) fn drop(&mut self, reason: RelayDrop) {
        self.dropped[reason as usize] += 1;
    }

    /// Metric names with labels, and values. `connecting` and `open` are the sessions there are now.
    pub fn metrics(&self, connecting: usize, open: usize) -> Vec<(String, u64)> {
        let mut metrics = Vec::new();
        for (from, from_v6) in [("udp4", false), ("udp6", true)] {
            for (to, to_v6) in [("udp4", false), ("udp6", true)] {
                let traffic = self.forwarded(from_v6, to_v6);
                for (unit, value) in [("packets", traffic.packets), ("bytes", traffic.bytes)] {
                    let name = format!(
                        "tailscaled_peer_relay_forwarded_{unit}_total{{transport_in=\"{from}\",transport_out=\"{to}\"}}"
                    );
                    metrics.push((name, value));
                }
            }
        }
        for (state, value) in [("connecting", connecting), ("open", open)] {
            metrics.push((format!("tailscaled_peer_relay_endpoints{{state=\"{state}\"}}"), value as u64));
        }
        let dropped = RelayDrop::ALL.map(|reason| {
            let name = format!("underpass_peer_relay_dropped_packets_total{{reason=\"{reason}\"}}");
            (name, self.dropped(reason))
        });
        metrics.extend(dropped);
        metrics.push(("underpass_peer_relay_refused_allocations_total".to_owned(), self.refused));
        metrics
    }
}
