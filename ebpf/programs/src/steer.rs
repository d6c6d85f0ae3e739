//! `steer`, TC ingress of each underlay device: DISCO and STUN answers to WireGuard's port reach the controller, and what
//! came by a detour reaches WireGuard, unless `underlay` has seen to it already.
//!
//! Everything else passes untouched and uncounted; fragments and IPv4 options are left to the stack, and tagged frames to
//! the VLAN's own device, where they come by again.

use abi::Program;
use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use packet::{Datagram, Ports, for_controller};

use crate::{
    access::Skb,
    detour, socket,
    verdict::{conclude, config, trace},
};

#[classifier]
pub fn steer(ctx: TcContext) -> i32 {
    let config = config();
    if config.wireguard_port == [0; 2] || is_tagged(&ctx) {
        return TC_ACT_UNSPEC;
    }
    let (frame, ports) = (Skb(&ctx), Ports::of(config));
    let Some(datagram) = Datagram::parse(&frame) else { return TC_ACT_UNSPEC };
    let arrived =
        if config.detours == 0 { None } else { detour::arrived(&ctx, &datagram, &ports, config) };
    let reason = if let Some(reason) = arrived {
        reason
    } else if let Some(reason) = for_controller(&frame, &datagram, &ports) {
        socket::deliver(&ctx, &datagram, reason, config.controller_port)
    } else {
        return TC_ACT_UNSPEC;
    };
    trace(&ctx, config, Program::Steer, &datagram.ip, reason);
    conclude(&ctx, Program::Steer, reason)
}

#[inline(always)]
fn is_tagged(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid as long as the program runs.
    unsafe { (*ctx.skb.skb).vlan_present != 0 }
}
