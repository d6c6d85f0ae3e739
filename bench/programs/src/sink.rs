//! `sink` (XDP) and `sink_tc` (TC ingress): count what arrives and drop it. `pass` and `pass_tc` do nothing, which costs
//! something.
//!
//! The XDP sink takes segmentation offload away from the sender's veth; the TC sink does not, and counts a super-packet as
//! its segments. Relays in userspace are counted by both.

use aya_ebpf::{
    bindings::{
        TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    macros::{classifier, map, xdp},
    maps::PerCpuArray,
    programs::{TcContext, XdpContext},
};

use crate::layout::Count;

/// What arrived.
#[map]
pub(crate) static COUNT: PerCpuArray<Count> = PerCpuArray::with_max_entries(1, 0);

#[xdp]
pub fn sink(ctx: XdpContext) -> u32 {
    add(1, (ctx.data_end() - ctx.data()) as u64);
    XDP_DROP
}

#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

#[classifier]
pub fn pass_tc(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[classifier]
pub fn sink_tc(ctx: TcContext) -> i32 {
    // SAFETY: the context is valid as long as the program runs.
    let segments = unsafe { (*ctx.skb.skb).gso_segs };
    add(u64::from(if segments == 0 { 1 } else { segments }), u64::from(ctx.len()));
    TC_ACT_SHOT as i32
}

#[inline(always)]
fn add(packets: u64, bytes: u64) {
    if let Some(count) = COUNT.get_ptr_mut(0) {
        // SAFETY: this processor's own value, and programs are not interrupted by each other here.
        unsafe {
            (*count)[0] += packets;
            (*count)[1] += bytes;
        }
    }
}
