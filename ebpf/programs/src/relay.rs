//! `relay`, behind `underlay`: forwards between the two ends of a session.
//!
//! The next hop of each direction is kept beside its counters and asked for again when it is a second old, by whichever packet
//! comes then: routes and neighbors are followed without a controller, and a packet costs no route lookup.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use abi::{Address, Family, HOP_AGE_NS, Hop, Own, Program, Reason, RelayEnd, RelaySession, RelayUse};
use aya_ebpf::{
    bindings::xdp_action::XDP_PASS, helpers::generated::bpf_redirect, macros::xdp, programs::XdpContext,
};
use packet::{Relay, Sender, forward};

use crate::{
    access::{Ethernet, now},
    fib,
    maps::{OUTLETS, OWN, RELAY_SESSIONS, RELAY_USE},
    verdict::conclude,
};

#[xdp(frags)]
pub fn relay(ctx: XdpContext) -> u32 {
    let Some(mut frame) = Ethernet::untagged(&ctx) else { return XDP_PASS };
    match forward(&mut frame, &Sessions { ctx: &ctx, now: now() }) {
        Ok(ifindex) => {
            conclude(&ctx, Program::Relay, Reason::Relayed);
            redirect(ifindex)
        }
        Err(reason) => conclude(&ctx, Program::Relay, reason),
    }
}

/// The kernel's maps and routes as what the relay asks.
struct Sessions<'a> {
    ctx: &'a XdpContext,
    now: u64,
}

impl Relay for Sessions<'_> {
    #[inline(always)]
    fn session(&self, vni: u32) -> Option<(&RelaySession, u64)> {
        let session = RELAY_SESSIONS.get(RelaySession::place(vni))?;
        let stamp = stamp(session);
        (RelaySession::vni(stamp) == vni && stamp != 0).then_some((session, stamp))
    }

    #[inline(always)]
    fn is_own(&self, address: &Address, family: Family) -> bool {
        is_own(self.ctx, address, family)
    }

    #[inline(always)]
    fn way(&self, from: &Sender<'_>, length: u32) -> Result<Hop, Reason> {
        let usage = usage(from).ok_or(Reason::RelayNoWay)?;
        let number = RelaySession::number(from.stamp);
        // SAFETY: aligned words. Another CPU may write them at the same time: in the instant that a next hop changes, one
        // packet may leave with half of each.
        let mut hop = unsafe { (*usage).hop };
        if hop.number != number || self.now.wrapping_sub(hop.asked) >= HOP_AGE_NS {
            hop = self.ask(from.to())?;
            hop.number = number;
            // SAFETY: as above.
            unsafe { (*usage).hop = hop };
        }
        if length > hop.mtu { Err(Reason::RelayTooBig) } else { Ok(hop) }
    }

    #[inline(always)]
    fn count(&self, from: &Sender<'_>, payload: u32) -> bool {
        // All that was read before is used before, as far as the compiler is concerned. Processors that reorder reads may
        // still let one packet of a session that is being replaced through.
        compiler_fence();
        let Some(usage) = usage(from) else { return false };
        if stamp(from.session) != from.stamp {
            return false;
        }
        // SAFETY: aligned words of a map value, which any CPU may change.
        unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*usage).packets, 1);
            atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*usage).bytes, u64::from(payload));
            (*usage).seen = self.now;
        }
        true
    }
}

impl Sessions<'_> {
    /// The next hop to an end, by a device that takes frames.
    #[inline(always)]
    fn ask(&self, to: &RelayEnd) -> Result<Hop, Reason> {
        let family = if to.family == Family::V4 as u8 { Family::V4 } else { Family::V6 };
        let mut hop = fib::next_hop(self.ctx, family, &to.local, &to.address).ok_or(Reason::RelayNoWay)?;
        // SAFETY: the value is not looked at.
        if unsafe { OUTLETS.get(&hop.ifindex) }.is_none() {
            return Err(Reason::RelayNoWay);
        }
        hop.asked = self.now;
        Ok(hop)
    }
}

/// A session's stamp as it is now.
#[inline(always)]
fn stamp(session: &RelaySession) -> u64 {
    // SAFETY: an aligned word of a map value.
    unsafe { (&raw const session.stamp).read_volatile() }
}

/// What an end has used.
#[inline(always)]
fn usage(from: &Sender<'_>) -> Option<*mut RelayUse> {
    let uses = RELAY_USE.get_ptr_mut(RelaySession::place(RelaySession::vni(from.stamp)))?;
    // SAFETY: the index is 0 or 1; the value lives as long as the map.
    Some(unsafe { &raw mut (*uses).ends[from.index & 1] })
}

#[inline(always)]
fn compiler_fence() {
    // SAFETY: no instruction at all; it is said to touch memory.
    unsafe { core::arch::asm!("", options(nostack, preserves_flags)) };
}

/// Sends the frame out of a device.
#[inline(always)]
pub fn redirect(ifindex: u32) -> u32 {
    // SAFETY: takes numbers.
    (unsafe { bpf_redirect(ifindex, 0) }) as u32
}

/// Whether packets to this address end here, on the device that this one came in by.
#[inline(always)]
pub fn is_own(ctx: &XdpContext, address: &Address, family: Family) -> bool {
    find_own(ctx, address, family).is_some()
}

/// What the loader says of this address, on the device that this packet came in by.
#[inline(always)]
pub fn find_own(ctx: &XdpContext, address: &Address, family: Family) -> Option<&'static Own> {
    // SAFETY: the context is valid as long as the program runs.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    let own = Own { address: *address, ifindex, family: family as u32, veth: 0, zero: 0 };
    let [first, second] = own.places();
    own_at(first, &own).or_else(|| own_at(second, &own))
}

#[inline(always)]
fn own_at(place: u32, own: &Own) -> Option<&'static Own> {
    OWN.get(place).filter(|at| {
        at.ifindex == own.ifindex
            && at.family == own.family
            && at.address[0] == own.address[0]
            && at.address[1] == own.address[1]
            && at.address[2] == own.address[2]
            && at.address[3] == own.address[3]
    })
}
