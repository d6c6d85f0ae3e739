//! `from_tunnel`, TC ingress of the WireGuard device: the netmap's packet filter, and the gateway's short way out.

use abi::{
    Address, AddressKey, Edge, Family, FlowKey, Gateway, MARK_KNOWN, MARK_REFUSED, MARK_TRANSLATE, PairKey,
    PortRange, Program, ROUTE_TRANSLATED, Reason, STAGE_OPEN, Side, Span, Verdict,
};
use aya_ebpf::{bindings::__sk_buff, macros::classifier, maps::lpm_trie::Key, programs::TcContext};
use packet::{
    Ip, Lookups, decide,
    nat::{self, End, Tables as _, Way},
};

use crate::{
    access::{Skb, SkbMut, now},
    flows, gateway,
    maps::{GENERATION, HOSTS, PAIRS, PREFIXES, RANGES},
    route::{self, ETHERNET},
    tables::Kernel,
    verdict::{conclude, config, trace},
};

// Two global functions, each with a stack of its own, and next to nothing here: Linux 6.1 adds up what is on the way to each.
#[classifier]
pub fn from_tunnel(ctx: TcContext) -> i32 {
    if gateway::settings().is_some() {
        let code = take_short_way(ctx.skb.skb);
        if code != LONG_WAY {
            return code as i32;
        }
    }
    filter(ctx.skb.skb) as i32
}

/// The packet filter; what it lets in and we forward is noted.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn filter(skb: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(skb);
    let frame = Skb(&ctx);
    let ip = match Ip::parse(&frame) {
        Ok(ip) => ip,
        Err(reason) => return conclude(&ctx, Program::FromTunnel, reason) as u32,
    };
    let mut reason = decide(&ip, &frame, &Maps);
    let is_let_in = !matches!(reason.verdict(), Verdict::Drop);
    if is_let_in && gateway::settings().is_some() && enter_gateway(skb) == 0 {
        reason = Reason::SessionRefused;
    }
    trace(&ctx, config(), Program::FromTunnel, &ip, reason);
    conclude(&ctx, Program::FromTunnel, reason) as u32
}

/// No verdict yet.
const LONG_WAY: u32 = 0x7fff;

/// A packet of an open session that the filter in force has let in leaves at once, translated; the answer is what to
/// return, or [`LONG_WAY`]. A global function, for a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_short_way(skb: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(skb);
    match short_way(&ctx) {
        Some(code) => code as u32,
        None => LONG_WAY,
    }
}

#[inline(always)]
fn short_way(ctx: &TcContext) -> Option<i32> {
    let gateway = gateway::settings()?;
    let mut tables = Kernel { ctx, gateway };
    let has_link = gateway::ifindex(ctx) != gateway.tunnel;
    let mut frame = SkbMut::new(ctx, if has_link { ETHERNET } else { 0 });
    let ip = &Ip::parse(&frame).ok()?;
    let tuple = nat::tuple(ip, &frame, Edge::Tunnel)?;
    if !gateway::is_plain(ip, &frame, &tuple) {
        return None;
    }
    let now = now();
    let session = nat::find(&mut tables, &tuple.key, now)?;
    let place = tables.place(session.place)?;
    if place.stage != STAGE_OPEN || place.generation != gateway::generation() {
        return None;
    }
    let hop = route::route(ctx, ip, gateway.tunnel, route::segment(ctx, ip, &frame)?)?;
    let lan = gateway::lan(hop.ifindex)?;
    if session.address != ip.source && session.address != gateway::outer(&lan, ip.family) {
        // The route has changed to a device with another address.
        return None;
    }
    nat::touch(&mut tables, &tuple, &session, Way::Out, ctx.len(), now);
    if !nat::rewrite(&mut frame, ip, &tuple.key, End::Source, &session, true) {
        return Some(conclude(ctx, Program::FromTunnel, Reason::NotRewritten));
    }
    conclude(ctx, Program::FromTunnel, Reason::Forwarded);
    match route::send(ctx, &hop, ip.family, has_link) {
        Some(code) => Some(code),
        None => Some(conclude(ctx, Program::FromTunnel, Reason::NotRewritten)),
    }
}

/// Notes a packet that the filter has let in and that we forward, and marks it for where it leaves. Zero: it is of a new
/// flow that there is no place for. A global function, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enter_gateway(skb: *mut __sk_buff) -> u32 {
    let ctx = &TcContext::new(skb);
    let frame = Skb(ctx);
    let Some(gateway) = gateway::settings() else { return 1 };
    let Ok(ip) = Ip::parse(&frame) else { return 1 };
    let mark = match gateway::forwarding(ip.family, ip.destination) {
        Some(ROUTE_TRANSLATED) => MARK_TRANSLATE,
        Some(_) => MARK_KNOWN,
        None => return 1,
    };
    gateway::set_mark(ctx, mark);
    let Some(tuple) = nat::tuple(&ip, &frame, Edge::Tunnel) else { return 1 };
    let Some(work) = gateway::work() else { return 1 };
    let mut tables = Kernel { ctx, gateway };
    work.key = tuple.key;
    match nat::enter(&mut tables, work, now(), gateway::generation()) {
        Ok(()) => 1,
        Err(_) => {
            gateway::set_mark(ctx, MARK_REFUSED);
            0
        }
    }
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
