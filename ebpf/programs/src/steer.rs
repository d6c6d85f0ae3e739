//! `steer`, TC ingress of each underlay device: DISCO and STUN answers to WireGuard's port reach the controller.
//!
//! Everything else passes untouched and uncounted; fragments and IPv4 options are left to the stack, and tagged frames to
//! the VLAN's own device, where they come by again.

use abi::{Program, Reason};
use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use packet::for_controller;

use crate::{
    access::Skb,
    socket,
    verdict::{conclude, config, trace},
};

#[classifier]
pub fn steer(ctx: TcContext) -> i32 {
    let config = config();
    if config.wireguard_port == [0; 2] || is_tagged(&ctx) {
        return TC_ACT_UNSPEC;
    }
    let Some(found) = for_controller(&Skb(&ctx), config.wireguard_port) else {
        return TC_ACT_UNSPEC;
    };
    let reason: Reason = socket::deliver(&ctx, &found, config.controller_port);
    trace(&ctx, &config, Program::Steer, &found.datagram.ip, reason);
    conclude(&ctx, Program::Steer, reason)
}

#[inline(always)]
fn is_tagged(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid as long as the program runs.
    unsafe { (*ctx.skb.skb).vlan_present != 0 }
}
