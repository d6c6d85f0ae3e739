//! The reply-flow table, bounded without evicting what is live.
//!
//! Each peer has a region of the ring. A new flow takes the region's next place if the flow there has expired (which is
//! then forgotten); a few places are tried, then the new flow is refused. So a flood costs only the peer it goes to,
//! established flows stay, and nothing has to sweep: an old flow goes when its place is needed.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use abi::{FLOW_IDLE_NS, FLOW_REGIONS, FLOWS_PER_REGION, Family, FlowKey, PeerKey};
use aya_ebpf::{bindings::BPF_NOEXIST, maps::lpm_trie::Key};

use crate::{
    access::now,
    maps::{FLOW_REGION, FLOW_RING, FLOWS, PEERS},
};

/// Places tried for one new flow.
const TRIES: usize = 8;
/// A flow's time is written at most this often, so that CPUs do not fight for its cache line.
const TOUCH_NS: u64 = 1_000_000_000;

/// What became of an outbound packet's flow.
pub enum Outcome {
    /// It was remembered already.
    Known,
    /// It is new and remembered.
    Added,
    /// It is new and there is no place.
    Refused,
}

/// Whether we sent on this flow lately.
#[inline(always)]
pub fn is_live(flow: &FlowKey) -> bool {
    // SAFETY: the value is one word.
    match unsafe { FLOWS.get(flow) } {
        Some(used) => now().saturating_sub(*used) < FLOW_IDLE_NS,
        None => false,
    }
}

/// Remembers that a packet of `flow` goes out now.
#[inline(always)]
pub fn record(flow: &FlowKey, family: Family) -> Outcome {
    let now = now();
    if let Some(used) = FLOWS.get_ptr_mut(flow) {
        // SAFETY: one aligned word; a lost race loses one second of lifetime.
        unsafe {
            if now.saturating_sub(*used) > TOUCH_NS {
                *used = now;
            }
        }
        return Outcome::Known;
    }
    let region = region_of(flow, family);
    for _ in 0..TRIES {
        let Some(place) = next_place(region) else { return Outcome::Refused };
        if is_live(place) {
            continue;
        }
        let _ = FLOWS.remove(&*place);
        return match FLOWS.insert(flow, &now, u64::from(BPF_NOEXIST)) {
            Ok(()) => {
                *place = *flow;
                Outcome::Added
            }
            // Another CPU added the same flow, in a place of its own; or, after a lost race for places, all are taken.
            Err(_) => match FLOWS.get_ptr(flow) {
                Some(_) => Outcome::Known,
                None => Outcome::Refused,
            },
        };
    }
    Outcome::Refused
}

/// Addresses of no known peer share the region of slot zero.
#[inline(always)]
fn region_of(flow: &FlowKey, family: Family) -> u32 {
    let bits = if matches!(family, Family::V4) { 32 } else { 128 };
    let key = Key::new(PeerKey::HEAD_BITS + bits, PeerKey::new(family, flow.remote));
    PEERS.get(&key).copied().unwrap_or(0) % FLOW_REGIONS
}

/// The region's next place. The cursor is shared by all CPUs, so two of them never get the same one.
#[inline(always)]
fn next_place(region: u32) -> Option<&'static mut FlowKey> {
    let state = FLOW_REGION.get_ptr_mut(region)?;
    // Not `Relaxed`: for that LLVM emits an add that returns nothing, and takes the operand for the old value.
    // SAFETY: a map value that lives as long as the program; only ever changed by this atomic add.
    let turn =
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*state).cursor, 1) } as u32;
    let place = FLOW_RING.get_ptr_mut(region * FLOWS_PER_REGION + turn % FLOWS_PER_REGION)?;
    // SAFETY: a map value that lives as long as the program, and this CPU's turn.
    Some(unsafe { &mut *place })
}
