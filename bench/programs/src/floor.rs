//! The floors: what forwarding and answering cost when nothing is looked up.
//!
//! `redirect` (XDP) and `redirect_tc` (TC ingress) write new MAC addresses, lower the TTL and send the frame out of the other
//! device; `reflect` swaps addresses and ports in place and sends it back. Everything that is not IPv4 passes.

use aya_ebpf::{
    bindings::{
        TC_ACT_OK,
        xdp_action::{XDP_PASS, XDP_TX},
    },
    helpers::generated::bpf_redirect,
    macros::{classifier, map, xdp},
    maps::Array,
    programs::{TcContext, XdpContext},
};

use crate::layout::Hop;

/// Where `redirect` and `redirect_tc` send to.
#[map]
pub(crate) static HOP: Array<Hop> = Array::with_max_entries(1, 0);

const IPV4: u16 = 0x0800_u16.to_be();
/// Ethernet, IPv4 without options and UDP.
const HEADERS: usize = 42;

#[xdp]
pub fn redirect(ctx: XdpContext) -> u32 {
    match forward(ctx.data(), ctx.data_end()) {
        // SAFETY: takes no pointer.
        Some(device) => unsafe { bpf_redirect(device, 0) as u32 },
        None => XDP_PASS,
    }
}

#[classifier]
pub fn redirect_tc(ctx: TcContext) -> i32 {
    match forward(ctx.data(), ctx.data_end()) {
        // SAFETY: takes no pointer.
        Some(device) => unsafe { bpf_redirect(device, 0) as i32 },
        None => TC_ACT_OK as i32,
    }
}

#[xdp]
pub fn reflect(ctx: XdpContext) -> u32 {
    let Some(frame) = halves(ctx.data(), ctx.data_end()) else { return XDP_PASS };
    for (one, other, count) in [(0, 3, 3), (13, 15, 2), (17, 18, 1)] {
        for half in 0..count {
            frame.swap(one + half, other + half);
        }
    }
    XDP_TX
}

/// New MAC addresses and a lower TTL; the device to send to.
#[inline(always)]
fn forward(data: usize, end: usize) -> Option<u32> {
    let hop = HOP.get(0)?;
    let frame = halves(data, end)?;
    for half in 0..6 {
        frame[half] = hop[half];
    }
    // RFC 1141: the TTL is the upper byte of its half, so the sum grows by 0x0100.
    frame[11] = frame[11].wrapping_sub(0x0100_u16.to_be());
    let sum = u32::from(frame[12]) + u32::from(0x0100_u16.to_be());
    frame[12] = (sum + u32::from(sum >= 0xffff)) as u16;
    Some(u32::from(hop[6]) | u32::from(hop[7]) << 16)
}

/// The headers as 16-bit halves, if there are such.
#[inline(always)]
fn halves<'a>(data: usize, end: usize) -> Option<&'a mut [u16; HEADERS / 2]> {
    if data + HEADERS > end {
        return None;
    }
    // SAFETY: the frame reaches so far, it starts at an even address, and nobody else holds it while the program runs.
    let frame = unsafe { &mut *(data as *mut [u16; HEADERS / 2]) };
    (frame[6] == IPV4).then_some(frame)
}
