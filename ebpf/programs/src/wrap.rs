//! `wrap`, TC ingress of the far end of our own veth pair: what `egress` and `steer` sent through gets its header on or off.
//!
//! The near end can neither checksum nor segment, so that here each packet is one datagram with a complete checksum. The mark
//! is the index of the device it belongs to.

use abi::{Program, Reason};
use aya_ebpf::{macros::classifier, programs::TcContext};
use packet::{Datagram, Header, Ports};

use crate::{
    access::Skb,
    detour,
    maps::DETOURS_IN,
    verdict::{Context as _, conclude, config, trace},
};

#[classifier]
pub fn wrap(ctx: TcContext) -> i32 {
    let config = config();
    let Some(datagram) = Datagram::parse(&Skb(&ctx)) else {
        return conclude(&ctx, Program::Wrap, Reason::DetourUnknown);
    };
    // SAFETY: the context is valid as long as the program runs.
    let device = unsafe { (*ctx.skb.skb).mark };
    let reason = if datagram.source_port == config.wireguard_port
        && let Some(outward) = detour::outward(&datagram)
    {
        ctx.skb.set_mark(config.bypass_mark);
        detour::wrap(&ctx, &datagram, &outward, device)
    } else if let Some(arrival) = packet::detour(&Skb(&ctx), &datagram, &Ports::of(config))
        // SAFETY: one word, replaced as a whole.
        && let Some(inward) = unsafe { DETOURS_IN.get(&arrival) }
    {
        ctx.skb.set_mark(0);
        detour::inwards(&ctx, &datagram, inward, Header::Off, config)
    } else {
        Reason::DetourUnknown
    };
    trace(&ctx, config, Program::Wrap, &datagram.ip, reason);
    let code = conclude(&ctx, Program::Wrap, reason);
    if reason != Reason::RelayedIn {
        return code;
    }
    detour::arrive_on(device);
    TcContext::code(abi::Verdict::Send)
}
