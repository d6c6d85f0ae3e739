//! `underlay`, XDP of each underlay device whose driver has it: hands a packet to the program it is for.
//!
//! It runs before the kernel makes a packet of the frame, so what it can finish costs least here. What is for the
//! controller's sockets passes: XDP cannot assign sockets, `steer` does it on the same device a moment later. Tagged frames
//! pass too; their VLAN's own device has `steer`.

use abi::Next;
use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};
use packet::Ports;

use crate::{access::Ethernet, maps::NEXT, verdict::config};

// All programs that meet in `NEXT` must be alike in this: `frags` lets frames of more than a page through, which a device
// with a large MTU has. Only the first page can be read and written, and headers lie there.
#[xdp(frags)]
pub fn underlay(ctx: XdpContext) -> u32 {
    let config = config();
    let ports = Ports { wireguard: config.wireguard_port, relay: config.relay_port, stun: config.stun_port };
    let Some(frame) = Ethernet::untagged(&ctx) else { return XDP_PASS };
    if let Some((_, next)) = packet::next(&frame, &ports) {
        jump(&ctx, next);
    }
    XDP_PASS
}

/// Goes on in another program and never comes back, unless its place is empty.
#[inline(always)]
fn jump(ctx: &XdpContext, next: Next) {
    // SAFETY: nothing is left behind that would have to be dropped.
    unsafe { NEXT.tail_call(ctx, next as u32) };
}
