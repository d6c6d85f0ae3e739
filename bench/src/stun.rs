//! Answering STUN: our XDP program beside Tailscale's, and the servers in userspace.

use crate::floors;
use crate::ours;
use crate::peers::{derper_stun, request, turn_stun, xdp_stun};
use crate::rig::{Bed, Effort, take_turns};
use crate::row::{Aim, Row};

pub(crate) fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::build()?;
    let cells = [
        floors::reflect(&bed, request()?),
        ours::stun(&bed),
        xdp_stun(&bed),
        derper_stun(&bed),
        turn_stun(&bed),
    ];
    let [floor, ours, xdp, derper, coturn] = take_turns(&bed, &cells, effort)?;
    let [cpu, rate, most] = ["CPU an answer", "answers/s without loss", "answers/s at most"];
    Ok(vec![
        ours.cpu("stun", cpu, ("XDP_TX, nothing parsed", &floor), Aim::AtMost(0.20)),
        ours.cpu("stun", cpu, ("xdpderper 1.102.5", &xdp), Aim::TimesPeer(0.5)),
        ours.cpu("stun", cpu, ("derper 1.102.5", &derper), Aim::Shown),
        ours.cpu("stun", cpu, ("coturn", &coturn), Aim::Shown),
        ours.rate("stun", rate, ("XDP_TX, nothing parsed", &floor), Aim::Shown),
        ours.rate("stun", rate, ("xdpderper 1.102.5", &xdp), Aim::Shown),
        ours.most("stun", most, ("derper 1.102.5", &derper), Aim::AtLeastTimesPeer(20.0)),
        ours.most("stun", most, ("coturn", &coturn), Aim::AtLeastTimesPeer(20.0)),
    ])
}
