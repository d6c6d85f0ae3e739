//! `underlay`, XDP of each underlay device whose driver has it: hands a packet to the program it is for, and takes off a
//! relay's header.
//!
//! It runs before the kernel makes a packet of the frame, so what it can finish costs least here. What is for the
//! controller's sockets passes: XDP cannot assign sockets, `steer` does it on the same device a moment later. Tagged frames
//! pass too; their VLAN's own device has `steer`.

use abi::{Config, Next, Program, Reason};
use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};
use packet::{Datagram, Header, Ports};

use crate::{
    access::Ethernet,
    maps::{DETOURS_IN, NEXT},
    verdict::{conclude, config, trace},
};

// All programs that meet in `NEXT` must be alike in this: `frags` lets frames of more than a page through, which a device
// with a large MTU has. Only the first page can be read and written, and headers lie there.
#[xdp(frags)]
pub fn underlay(ctx: XdpContext) -> u32 {
    let config = config();
    let ports = Ports::of(config);
    let Some(mut frame) = Ethernet::untagged(&ctx) else { return XDP_PASS };
    let Some(datagram) = Datagram::parse(&frame) else { return XDP_PASS };
    if let Some(next) = packet::next(&frame, &datagram, &ports) {
        jump(&ctx, next);
        return XDP_PASS;
    }
    if config.detours == 0 {
        return XDP_PASS;
    }
    let Some(reason) = arrived(&mut frame, &datagram, &ports, config) else { return XDP_PASS };
    trace(&ctx, config, Program::Underlay, &datagram.ip, reason);
    conclude(&ctx, Program::Underlay, reason)
}

/// Goes on in another program and never comes back, unless its place is empty.
#[inline(always)]
fn jump(ctx: &XdpContext, next: Next) {
    // SAFETY: nothing is left behind that would have to be dropped.
    unsafe { NEXT.tail_call(ctx, next as u32) };
}

/// Shows WireGuard what it believes in, if the datagram came by a detour.
#[inline(always)]
fn arrived(frame: &mut Ethernet<'_>, datagram: &Datagram, ports: &Ports, config: &Config) -> Option<Reason> {
    let arrival = packet::detour(frame, datagram, ports)?;
    // SAFETY: one word, replaced as a whole.
    let [s0, s1] = unsafe { DETOURS_IN.get(&arrival) }?.port;
    if arrival.vni != 0 && packet::is_partial(frame, datagram) {
        // `steer` sends it where the stack completes the checksum.
        return None;
    }
    let [d0, d1] = config.wireguard_port;
    let (header, reason) = match arrival.vni {
        0 => (Header::None, Reason::PortIn),
        _ => (Header::Off, Reason::RelayedIn),
    };
    let done = packet::headers(frame, datagram, [s0, s1, d0, d1], header)
        .and_then(|headers| packet::take_off(frame, datagram, &headers, header));
    Some(if done.is_some() { reason } else { Reason::Unwritable })
}
