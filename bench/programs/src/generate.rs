//! `generate`: the source of frames, driven by a test-run with live frames.
//!
//! It writes each frame's head anew, because frames are recycled as their last receiver left them, and paces itself,
//! because one such test-run takes tens of milliseconds to end: user space cannot pace by many short ones.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::XDP_ABORTED,
    helpers::generated::{
        bpf_ktime_get_ns, bpf_loop, bpf_redirect, bpf_xdp_adjust_tail, bpf_xdp_store_bytes,
    },
    macros::{map, xdp},
    maps::Array,
    programs::XdpContext,
};

use crate::layout::{FLOWS, Flow, HEAD_LEN, SLACK, TAG, source};

/// What to do, and how far it is. Written before a run, read after it.
#[map]
pub(crate) static SOURCE: Array<[u64; source::COUNT]> = Array::with_max_entries(1, 0);

/// The head of every frame.
#[map]
pub(crate) static HEAD: Array<[u8; HEAD_LEN]> = Array::with_max_entries(1, 0);

/// What differs between the flows' heads.
#[map]
pub(crate) static FLOW: Array<Flow> = Array::with_max_entries(FLOWS, 0);

/// A generator that fell this far behind forgets the lag rather than sending it as a burst.
const LAG: u64 = 2_000_000;
/// Looks at the clock in one wait; a look takes 20 ns or more.
const LOOKS: u32 = 1 << 22;

#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    frame(&ctx).unwrap_or(XDP_ABORTED)
}

#[inline(always)]
fn frame(ctx: &XdpContext) -> Option<u32> {
    // SAFETY: the value lives as long as the map, and one processor at a time runs the generator.
    let state = unsafe { &mut *SOURCE.get_ptr_mut(0)? };
    if state[source::GAP] != 0 {
        if state[source::LEFT] == 0 {
            pace(state);
        }
        state[source::LEFT] -= 1;
    }
    let flow = state[source::NEXT];
    state[source::NEXT] = if flow + 1 < state[source::FLOWS] { flow + 1 } else { 0 };
    write(ctx, HEAD.get(0)?, state[source::HEAD_LAST], FLOW.get(flow as u32)?)?;
    // SAFETY: takes no pointer.
    Some(unsafe { bpf_redirect(state[source::DEVICE] as u32, 0) } as u32)
}

/// Makes the frame what it is to be, wherever it was before.
#[inline(always)]
fn write(ctx: &XdpContext, head: &[u8; HEAD_LEN], last: u64, flow: &Flow) -> Option<()> {
    // The mask is the verifier's bound.
    let length = (last as u32 & (HEAD_LEN as u32 - 1)) + 1;
    let bytes = head.as_ptr().cast_mut().cast::<c_void>();
    // SAFETY: the helper reads at most `HEAD_LEN` bytes of the map's value.
    let stored = unsafe { bpf_xdp_store_bytes(ctx.as_ptr().cast(), 0, bytes, length) };
    // SAFETY: takes no pointer but the context.
    let cut = unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), -(SLACK as i32)) };
    if stored != 0 || cut != 0 {
        return None;
    }
    let data = ctx.data();
    if data + TAG + 4 > ctx.data_end() {
        return None;
    }
    let [port, check, tag @ ..] = *flow;
    for (offset, value) in [(34, port), (40, check), (TAG, tag[0]), (TAG + 2, tag[1])] {
        // SAFETY: below the frame's end, checked above; frames start at even addresses and the offsets are even.
        unsafe { ((data + offset) as *mut u16).write(value) };
    }
    Some(())
}

struct Wait {
    due: u64,
    now: u64,
}

/// Waits until the next batch is due.
#[inline(always)]
fn pace(state: &mut [u64; source::COUNT]) {
    // SAFETY: takes nothing, touches nothing.
    let start = unsafe { bpf_ktime_get_ns() };
    let due = state[source::DUE];
    state[source::LEFT] = state[source::BATCH];
    if start < due {
        let mut wait = Wait { due, now: start };
        let context = (&raw mut wait).cast::<c_void>();
        // SAFETY: the callback takes what is passed here, and `wait` outlives the call.
        unsafe { bpf_loop(LOOKS, look as *mut c_void, context, 0) };
        state[source::WAITED] += wait.now - start;
    } else if start - due > LAG {
        state[source::DUE] = start;
    }
    state[source::DUE] += state[source::GAP];
}

/// Ends the loop when it is time.
unsafe extern "C" fn look(_turn: u32, wait: *mut Wait) -> i64 {
    // SAFETY: `pace` passes a live `Wait`, and nobody else looks at it meanwhile; the helper takes nothing.
    unsafe {
        (*wait).now = bpf_ktime_get_ns();
        i64::from((*wait).now >= (*wait).due)
    }
}
