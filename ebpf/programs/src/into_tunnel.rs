//! `into_tunnel`, TC egress of the WireGuard device: remembers the flows that we start, and never drops.

use abi::{Program, Reason};
use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use packet::{Ip, outbound};

use crate::{
    access::Skb,
    flows::{self, Outcome},
    verdict::{conclude, config, trace},
};

#[classifier]
pub fn into_tunnel(ctx: TcContext) -> i32 {
    let frame = Skb(&ctx);
    let Ok(ip) = Ip::parse(&frame) else { return TC_ACT_UNSPEC };
    let Some(flow) = outbound(&ip, &frame) else { return TC_ACT_UNSPEC };
    let reason = match flows::record(&flow, ip.family) {
        Outcome::Known => return TC_ACT_UNSPEC,
        Outcome::Added => Reason::FlowAdded,
        Outcome::Refused => Reason::FlowRefused,
    };
    trace(&ctx, &config(), Program::IntoTunnel, &ip, reason);
    conclude(&ctx, Program::IntoTunnel, reason)
}
