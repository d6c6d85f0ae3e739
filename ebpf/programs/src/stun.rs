//! `stun`, behind `underlay`: answers binding requests, and sends the answers back out of the device they came in by.

use core::cell::Cell;

use abi::{Address, Family, Program, STUN_BUCKETS, StunSettings};
use aya_ebpf::{bindings::xdp_action::{XDP_PASS, XDP_TX}, macros::xdp, programs::XdpContext};
use packet::{Stun, answer};

use crate::{
    access::{Ethernet, now},
    maps::{STUN, STUN_PAID},
    relay::{find_own, redirect},
    verdict::conclude,
};

#[xdp(frags)]
pub fn stun(ctx: XdpContext) -> u32 {
    let Some(mut frame) = Ethernet::untagged(&ctx) else { return XDP_PASS };
    let settings = STUN.get(0).copied().unwrap_or_default();
    let server = Server { ctx: &ctx, settings, veth: Cell::new(0) };
    let reason = answer(&mut frame, &server);
    let code = conclude(&ctx, Program::Stun, reason);
    if code == XDP_TX && server.veth.get() != 0 {
        // SAFETY: the context is valid as long as the program runs.
        return redirect(unsafe { (*ctx.ctx).ingress_ifindex });
    }
    code
}

struct Server<'a> {
    ctx: &'a XdpContext,
    settings: StunSettings,
    /// As the last question for an own address found it.
    veth: Cell<u32>,
}

impl Stun for Server<'_> {
    #[inline(always)]
    fn is_own(&self, address: &Address, family: Family) -> bool {
        let own = find_own(self.ctx, address, family);
        self.veth.set(own.map_or(0, |own| own.veth));
        own.is_some()
    }

    #[inline(always)]
    fn is_dropping(&self) -> bool {
        self.settings.dropping != 0
    }

    /// The generic cell rate algorithm, one word a bucket. Two CPUs that race for a bucket may both take the last token.
    #[inline(always)]
    fn take(&self, source: &Address, family: Family) -> bool {
        let StunSettings { cost, burst, seed, .. } = self.settings;
        if cost == 0 {
            return true;
        }
        let Some(paid) = STUN_PAID.get_ptr_mut(bucket(source, family, seed)) else { return false };
        let now = now();
        // SAFETY: an aligned word of a map value.
        unsafe {
            let due = (*paid).max(now) + cost;
            if due > now + burst {
                return false;
            }
            *paid = due;
        }
        true
    }
}

/// An IPv4 address or an IPv6 /64, hashed (the finalizer of MurmurHash3).
#[inline(always)]
fn bucket(source: &Address, family: Family, seed: u32) -> u32 {
    let network = match family {
        Family::V4 => u64::from(source[0]),
        Family::V6 => u64::from(source[0]) << 32 | u64::from(source[1]),
    };
    let mut hash = network ^ u64::from(seed) << 16;
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash as u32 % STUN_BUCKETS
}
