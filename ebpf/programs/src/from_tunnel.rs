//! `from_tunnel`, TC ingress of the WireGuard device: the netmap's packet filter.
//!
//! Where something is forwarded it goes on in `forward`, which does the same and more: a node waits for its tunnel only as
//! long as the filter alone takes to verify.

use abi::{Address, AddressKey, Family, FlowKey, PairKey, PortRange, Program, Reason, Side, Span, Verdict};
use aya_ebpf::{macros::classifier, maps::lpm_trie::Key, programs::TcContext};
use packet::{Ip, Lookups, decide};

use crate::{
    access::Skb,
    flows, gateway,
    maps::{FORWARD, GENERATION, HOSTS, PAIRS, PREFIXES, RANGES},
    verdict::{conclude, config, trace},
};

#[classifier]
pub fn from_tunnel(ctx: TcContext) -> i32 {
    if gateway::settings().is_some() {
        // SAFETY: nothing is left behind that would have to be dropped. While its place is empty, the stack forwards.
        unsafe { FORWARD.tail_call(&ctx, 0) };
    }
    judge(&ctx, || true)
}

/// The filter's verdict on a packet; what it lets in must be entered as well.
#[inline(always)]
pub fn judge(ctx: &TcContext, enter: impl FnOnce() -> bool) -> i32 {
    let frame = Skb(ctx);
    let ip = match Ip::parse(&frame) {
        Ok(ip) => ip,
        Err(reason) => return conclude(ctx, Program::FromTunnel, reason),
    };
    let mut reason = decide(&ip, &frame, &Maps);
    if !matches!(reason.verdict(), Verdict::Drop) && !enter() {
        reason = Reason::SessionRefused;
    }
    trace(ctx, config(), Program::FromTunnel, &ip, reason);
    conclude(ctx, Program::FromTunnel, reason)
}

/// The kernel's maps as what the filter looks things up in.
struct Maps;

impl Maps {
    /// The exact entry if there is one, else the longest prefix. An exact entry stands for all prefixes around it too.
    #[inline(always)]
    fn class(key: AddressKey) -> Option<u32> {
        // SAFETY: the value is one word, written once before the generation is switched to.
        if let Some(class) = unsafe { HOSTS.get(&key) } {
            return Some(*class);
        }
        let bits = if key.family == Family::V4 as u8 { 32 } else { 128 };
        PREFIXES.get(&Key::new(AddressKey::HEAD_BITS + bits, key)).copied()
    }
}

impl Lookups for Maps {
    #[inline(always)]
    fn generation(&self) -> u32 {
        GENERATION.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn source_class(&self, generation: u32, family: Family, address: Address) -> Option<u32> {
        Self::class(AddressKey::new(generation, Side::Source, family, address))
    }

    #[inline(always)]
    fn destination_class(&self, generation: u32, family: Family, address: Address) -> Option<u32> {
        Self::class(AddressKey::new(generation, Side::Destination, family, address))
    }

    #[inline(always)]
    fn pair(&self, key: PairKey) -> Option<Span> {
        // SAFETY: written once before the generation is switched to.
        unsafe { PAIRS.get(&key) }.copied()
    }

    #[inline(always)]
    fn range(&self, position: u32) -> Option<PortRange> {
        RANGES.get(position).copied()
    }

    #[inline(always)]
    fn is_live(&self, flow: &FlowKey) -> bool {
        flows::is_live(flow)
    }
}
