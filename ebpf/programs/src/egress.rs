//! `egress`, TC egress of each underlay device, while there are detours: WireGuard's packets go where they really go.
//!
//! It looks at our own packets alone, which carry our mark.

use abi::Program;
use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use packet::Datagram;

use crate::{
    access::Skb,
    detour,
    verdict::{conclude, config, trace},
};

#[classifier]
pub fn egress(ctx: TcContext) -> i32 {
    let config = config();
    // SAFETY: the context is valid as long as the program runs.
    let mark = unsafe { (*ctx.skb.skb).mark };
    if mark & config.bypass_mask != config.bypass_mark || config.detours == 0 {
        return TC_ACT_UNSPEC;
    }
    let Some(datagram) = Datagram::parse(&Skb(&ctx)) else { return TC_ACT_UNSPEC };
    if datagram.source_port != config.wireguard_port {
        return TC_ACT_UNSPEC;
    }
    let Some(reason) = detour::leaving(&ctx, &datagram, config) else { return TC_ACT_UNSPEC };
    trace(&ctx, config, Program::Egress, &datagram.ip, reason);
    conclude(&ctx, Program::Egress, reason)
}
