//! Relaying: our XDP relay beside the floor of redirecting and the relays that people use.

use crate::floors;
use crate::ours;
use crate::peers::{peer_relay, turn};
use crate::rig::{Bed, Effort, Sink, take_turns};
use crate::row::{Aim, Row};

/// Sessions that are bound in the cases of many.
const MANY: u16 = 10_000;
/// Flows that take turns where several are used.
const FLOWS: u16 = 8;

pub(crate) fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::build()?;
    let cells = [
        floors::redirect(&bed, 64, false),
        ours::relay(&bed, 1, 1, 64, false),
        peer_relay(&bed, 1, 64, Sink::Xdp, false),
        peer_relay(&bed, 1, 64, Sink::Tc, false),
        turn(&bed, 1, 64),
        floors::redirect(&bed, 64, true),
        ours::relay(&bed, 1, 1, 64, true),
        peer_relay(&bed, 1, 64, Sink::Xdp, true),
        ours::relay(&bed, MANY, FLOWS, 1280, false),
        peer_relay(&bed, FLOWS, 1280, Sink::Xdp, false),
        turn(&bed, FLOWS, 1280),
        ours::relay(&bed, MANY, MANY, 64, false),
    ];
    let [floor, one, peer, gso, coturn, floor_core, one_core, peer_core, big, peer_big, coturn_big, many] =
        take_turns(&bed, &cells, effort)?;
    let name = "XDP redirect without lookup";
    let relay = "Tailscale's peer relay 1.102.5";
    let best = "the same, GSO kept at its exit (its best)";
    Ok(vec![
        one.cpu("relay", "64 B, one session: CPU a packet", (name, &floor), Aim::AtMost(0.20)),
        one.rate(
            "relay",
            "64 B, one session: packets/s without loss",
            (name, &floor),
            Aim::AtLeastTimesPeer(0.85),
        ),
        one.cpu("relay", "64 B, one session: CPU a packet", (relay, &peer), Aim::TimesPeer(1.0 / 9.0)),
        one.cpu("relay", "64 B, one session: CPU a packet", (best, &gso), Aim::TimesPeer(1.0 / 5.0)),
        one.rate("relay", "64 B, one session: packets/s without loss", (relay, &peer), Aim::Shown),
        one.rate("relay", "64 B, one session: packets/s without loss", (best, &gso), Aim::Shown),
        one.cpu("relay", "64 B, one session: CPU a packet", ("coturn", &coturn), Aim::Shown),
        one_core.most(
            "relay",
            "64 B, all work on one core: packets/s",
            (relay, &peer_core),
            Aim::AtLeastTimesPeer(8.0),
        ),
        one_core.most("relay", "64 B, all work on one core: packets/s", (name, &floor_core), Aim::Shown),
        big.cpu(
            "relay",
            "1,280 B, 8 flows, 10,000 sessions: CPU a packet",
            (relay, &peer_big),
            Aim::TimesPeer(1.0 / 8.0),
        ),
        big.cpu(
            "relay",
            "1,280 B, 8 flows, 10,000 sessions: CPU a packet",
            ("coturn", &coturn_big),
            Aim::TimesPeer(1.0 / 30.0),
        ),
        big.rate(
            "relay",
            "1,280 B, 8 flows, 10,000 sessions: packets/s without loss",
            (relay, &peer_big),
            Aim::Shown,
        ),
        many.cpu(
            "relay",
            "64 B, 10,000 sessions in turns: CPU a packet",
            ("ours, 1 session", &one),
            Aim::TimesPeer(1.2),
        ),
    ])
}
