//! `forward`, behind `from_tunnel` on a gateway: the short way out for open sessions, else the filter and a session's entry.
//!
//! Everything is counted as `from_tunnel`'s: to whoever reads the counters they are one program.

use abi::{Edge, MARK_KNOWN, MARK_REFUSED, MARK_TRANSLATE, Program, ROUTE_TRANSLATED, Reason, STAGE_OPEN};
use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use packet::{
    Ip,
    nat::{self, End, Tables as _, Way},
};

use crate::{
    access::{Skb, SkbMut, now},
    from_tunnel::judge,
    gateway,
    route::{self, ETHERNET},
    tables::Kernel,
    verdict::conclude,
};

// Two global functions, each with a stack of its own, and next to nothing here: Linux 6.1 adds up what is on the way to each.
#[classifier]
pub fn forward(ctx: TcContext) -> i32 {
    let code = take_short_way(ctx.skb.skb);
    if code != LONG_WAY {
        return code as i32;
    }
    take_long_way(ctx.skb.skb) as i32
}

/// The filter; what it lets in and we forward is noted. A global function, for a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_long_way(skb: *mut __sk_buff) -> u32 {
    judge(&TcContext::new(skb), || enter_gateway(skb) != 0) as u32
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
