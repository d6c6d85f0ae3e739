//! The reply-flow table, bounded without evicting what is live.
//!
//! Each peer has a region of the ring. A new flow takes the region's next place if the flow there is over (which is then
//! forgotten): idle for five minutes, or a single query some seconds old. A few places are tried, then the new flow is
//! refused. So a flood costs only the peer it goes to, established flows stay, and nothing has to sweep.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use abi::{
    FLOW_IDLE_NS, FLOW_REGIONS, FLOW_TOUCH_NS, FLOWS_PER_REGION, Family, FlowKey, FlowTimes, PeerKey,
    QUERY_IDLE_NS,
};
use aya_ebpf::{bindings::BPF_NOEXIST, maps::lpm_trie::Key};

use crate::{
    access::now,
    maps::{FLOW_REGION, FLOW_RING, FLOWS, PEERS},
};

/// Places tried for one new flow.
const TRIES: usize = 8;

/// What became of an outbound packet's flow.
pub enum Outcome {
    /// It was remembered already.
    Known,
    /// It is new and remembered.
    Added,
    /// It is new and there is no place.
    Refused,
}

/// Whether we sent on this flow lately: replies may come in.
#[inline(always)]
pub fn is_live(flow: &FlowKey) -> bool {
    // SAFETY: one aligned word of a map value.
    match unsafe { FLOWS.get(flow) } {
        Some(times) => now().saturating_sub(times.last) < FLOW_IDLE_NS,
        None => false,
    }
}

/// Whether a flow must keep its place. A single query may lose it long before replies are refused for lack of packets.
#[inline(always)]
fn keeps_place(flow: &FlowKey, now: u64) -> bool {
    // SAFETY: two aligned words of a map value; a torn pair shifts a deadline by a second.
    let Some(times) = (unsafe { FLOWS.get(flow) }) else { return false };
    let limit = if times.last == times.first { QUERY_IDLE_NS } else { FLOW_IDLE_NS };
    now.saturating_sub(times.last) < limit
}

/// Remembers that a packet of `flow` goes out now.
#[inline(always)]
pub fn record(flow: &FlowKey, family: Family) -> Outcome {
    let now = now();
    if let Some(times) = FLOWS.get_ptr_mut(flow) {
        // SAFETY: one aligned word; a lost race loses one second of lifetime. Written seldom, so that CPUs do not fight
        // for its cache line.
        unsafe {
            if now.saturating_sub((*times).last) > FLOW_TOUCH_NS {
                (*times).last = now;
            }
        }
        return Outcome::Known;
    }
    let region = region_of(flow, family);
    for _ in 0..TRIES {
        let Some(place) = next_place(region) else { return Outcome::Refused };
        if keeps_place(place, now) {
            continue;
        }
        let _ = FLOWS.remove(&*place);
        return match FLOWS.insert(flow, &FlowTimes { first: now, last: now }, u64::from(BPF_NOEXIST)) {
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

/// The peer's region; addresses of no known peer are spread by their last bits.
#[inline(always)]
fn region_of(flow: &FlowKey, family: Family) -> u32 {
    let (bits, last) = match family {
        Family::V4 => (32, flow.remote[0]),
        Family::V6 => (128, flow.remote[3]),
    };
    let key = Key::new(PeerKey::HEAD_BITS + bits, PeerKey::new(family, flow.remote));
    PEERS.get(&key).copied().unwrap_or(u32::from_be(last)) % FLOW_REGIONS
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
