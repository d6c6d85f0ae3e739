//! `relay`, behind `underlay`: forwards between the two ends of a session.
//!
//! The next hop of each direction is kept beside its counters and asked for again when it is a second old, by whichever packet
//! comes then: routes and neighbors are followed without a controller, and a packet costs no route lookup.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use abi::{Address, Family, HOP_AGE_NS, Hop, OwnKey, Program, Reason, RelaySession, RelayUse};
use aya_ebpf::{
    bindings::xdp_action::XDP_PASS, helpers::generated::bpf_redirect, macros::xdp, programs::XdpContext,
};
use packet::{Relay, forward};

use crate::{
    access::{Ethernet, now},
    fib,
    maps::{OUTLETS, OWN, RELAY_SESSIONS, RELAY_USE},
    verdict::conclude,
};

#[xdp(frags)]
pub fn relay(ctx: XdpContext) -> u32 {
    let Some(mut frame) = Ethernet::untagged(&ctx) else { return XDP_PASS };
    match forward(&mut frame, &Sessions(&ctx)) {
        Ok(ifindex) => {
            let same = conclude(&ctx, Program::Relay, Reason::Relayed);
            // SAFETY: the context is valid as long as the program runs.
            if ifindex == unsafe { (*ctx.ctx).ingress_ifindex } {
                return same;
            }
            // SAFETY: takes numbers.
            (unsafe { bpf_redirect(ifindex, 0) }) as u32
        }
        Err(reason) => conclude(&ctx, Program::Relay, reason),
    }
}

/// The kernel's maps and routes as what the relay asks.
struct Sessions<'a>(&'a XdpContext);

impl Relay for Sessions<'_> {
    #[inline(always)]
    fn session(&self, vni: u32) -> Option<&RelaySession> {
        // SAFETY: the loader replaces entries as a whole, and frees old ones when no program runs that may have seen them.
        unsafe { RELAY_SESSIONS.get(&vni) }
    }

    #[inline(always)]
    fn is_own(&self, address: &Address, family: Family) -> bool {
        is_own(self.0, address, family)
    }

    #[inline(always)]
    fn way(&self, session: &RelaySession, from: usize, length: u32, payload: u32) -> Result<Hop, Reason> {
        let uses = RELAY_USE.get_ptr_mut(session.slot).ok_or(Reason::RelayNoWay)?;
        // SAFETY: `from` is 0 or 1; the value lives as long as the map.
        let usage = unsafe { &raw mut (*uses).ends[from & 1] };
        let now = now();
        // SAFETY: aligned words. Another CPU may write them at the same time: in the instant that a next hop changes, one
        // packet may leave with half of each.
        let mut hop = unsafe { (*usage).hop };
        if now.saturating_sub(hop.asked) >= HOP_AGE_NS {
            let to = &session.ends[from ^ 1];
            let family = if to.family == Family::V4 as u8 { Family::V4 } else { Family::V6 };
            hop = fib::next_hop(self.0, family, &to.local, &to.address).ok_or(Reason::RelayNoWay)?;
            // SAFETY: the value is a word.
            if unsafe { OUTLETS.get(&hop.ifindex) }.is_none() {
                return Err(Reason::RelayNoWay);
            }
            hop.asked = now;
            // SAFETY: as above.
            unsafe { (*usage).hop = hop };
        }
        if length > hop.mtu {
            return Err(Reason::RelayTooBig);
        }
        count(usage, u64::from(payload), now);
        Ok(hop)
    }
}

#[inline(always)]
fn count(usage: *mut RelayUse, payload: u64, now: u64) {
    // SAFETY: aligned words of a map value, which any CPU may change.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*usage).packets, 1);
        atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*usage).bytes, payload);
        (*usage).seen = now;
    }
}

/// Whether packets to this address end here, on the device that this one came in by.
#[inline(always)]
pub fn is_own(ctx: &XdpContext, address: &Address, family: Family) -> bool {
    // SAFETY: the context is valid as long as the program runs.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    let key = OwnKey { address: *address, ifindex, family: family as u32 };
    // SAFETY: the value is not looked at.
    unsafe { OWN.get(&key) }.is_some()
}
