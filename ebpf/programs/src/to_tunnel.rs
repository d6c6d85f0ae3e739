//! `to_tunnel`, TC ingress of the LAN side's devices: answers to the gateway's sessions, straight into the tunnel.
//!
//! What is of an open session goes into the WireGuard device at once; what the stack must see (a first SYN, a packet larger
//! than the tunnel, one without hops left, an ICMP error) is translated and passes. Fragments pass as they are.

use abi::{Edge, MARK_KNOWN, Program, Reason, STAGE_OPEN};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use packet::{
    Ip, Piece,
    nat::{self, End, Tables as _, Way},
};

use crate::{
    access::{Skb, SkbMut, now},
    gateway,
    route::{self, ETHERNET},
    tables::Kernel,
    verdict::conclude,
};

#[classifier]
pub fn to_tunnel(ctx: TcContext) -> i32 {
    if gateway::settings().is_none() || gateway::is_tagged(&ctx) {
        return TC_ACT_UNSPEC;
    }
    let answered = answer(ctx.skb.skb);
    if answered < Answer::First as u32 {
        return answered as i32;
    }
    let reason = gateway::reason(match answered {
        FIRST => match admit(ctx.skb.skb) {
            TRANSLATED => hide_destination(ctx.skb.skb),
            other => other,
        },
        ERROR => turn_error(ctx.skb.skb),
        _ => return TC_ACT_UNSPEC,
    });
    gateway::conclude(&ctx, Program::ToTunnel, reason)
}

/// What [`answer`] says besides a verdict.
enum Answer {
    /// The packet is of no session.
    First = 0x7ffd,
    /// It may be an ICMP error.
    Error = 0x7ffe,
    /// It is nothing for us.
    Pass = 0x7fff,
}
const FIRST: u32 = Answer::First as u32;
const ERROR: u32 = Answer::Error as u32;
const TRANSLATED: u32 = Reason::Translated as u32;

/// A packet of a session: what to return, or an [`Answer`]. A global function, for a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer(skb: *mut __sk_buff) -> u32 {
    let ctx = &TcContext::new(skb);
    let mut frame = SkbMut::new(ctx, ETHERNET);
    let Some(gateway) = gateway::settings() else { return Answer::Pass as u32 };
    let Ok(ip) = Ip::parse(&frame) else { return Answer::Pass as u32 };
    if ip.piece != Piece::Whole {
        return Answer::Pass as u32;
    }
    let Some(tuple) = nat::tuple(&ip, &frame, Edge::Lan) else { return Answer::Error as u32 };
    let mut tables = Kernel { ctx, gateway };
    let now = now();
    let Some(session) = nat::find(&mut tables, &tuple.key, now) else { return Answer::First as u32 };
    nat::touch(&mut tables, &tuple, &session, Way::In, ctx.len(), now);
    let is_open = tables.place(session.place).is_some_and(|place| place.stage == STAGE_OPEN);
    let fits = route::segment(ctx, &ip, &frame).is_some_and(|length| length <= gateway.mtu);
    let is_short = is_open && fits && gateway::is_plain(&ip, &frame, &tuple);
    // What the stack forwards without translation it gets as it is.
    let is_translated = session.address != ip.destination || session.port != tuple.key.destination_port;
    gateway::set_mark(ctx, MARK_KNOWN);
    if (is_short || is_translated)
        && !nat::rewrite(&mut frame, &ip, &tuple.key, End::Destination, &session, is_short)
    {
        return conclude(ctx, Program::ToTunnel, Reason::NotRewritten) as u32;
    }
    if !is_short {
        conclude(ctx, Program::ToTunnel, Reason::Translated);
        return Answer::Pass as u32;
    }
    conclude(ctx, Program::ToTunnel, Reason::Forwarded);
    route::to(gateway.tunnel) as u32
}

/// Gives the packet the inner endpoint of the session in `WORK` for a destination; the answer is a reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hide_destination(skb: *mut __sk_buff) -> u32 {
    let ctx = &TcContext::new(skb);
    let mut frame = SkbMut::new(ctx, ETHERNET);
    let Some(work) = gateway::work() else { return Reason::NotRewritten as u32 };
    let Ok(ip) = Ip::parse(&frame) else { return Reason::NotRewritten as u32 };
    let Some(tuple) = nat::tuple(&ip, &frame, Edge::Lan) else { return Reason::NotRewritten as u32 };
    gateway::set_mark(ctx, MARK_KNOWN);
    match nat::rewrite(&mut frame, &ip, &tuple.key, End::Destination, &work.session, false) {
        true => Reason::Translated as u32,
        false => Reason::NotRewritten as u32,
    }
}

/// Opens a session from outside if the filtering allows it, and leaves it in `WORK`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admit(skb: *mut __sk_buff) -> u32 {
    let ctx = &TcContext::new(skb);
    let frame = Skb(ctx);
    let Some(gateway) = gateway::settings() else { return 0 };
    let Ok(ip) = Ip::parse(&frame) else { return 0 };
    let Some(tuple) = nat::tuple(&ip, &frame, Edge::Lan) else { return 0 };
    let Some(work) = gateway::work() else { return 0 };
    let mut tables = Kernel { ctx, gateway };
    let (now, generation) = (now(), gateway::generation());
    match nat::admit(&mut tables, work, &tuple.key, gateway, generation, now) {
        None => Reason::NotOurs as u32,
        Some(Err(_)) => Reason::NotAsked as u32,
        Some(Ok(session)) => {
            work.session = session;
            nat::touch(&mut tables, &tuple, &session, Way::In, ctx.len(), now);
            Reason::Translated as u32
        }
    }
}

/// An ICMP error about a packet that we have translated; the answer is a reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn turn_error(skb: *mut __sk_buff) -> u32 {
    let ctx = &TcContext::new(skb);
    let mut frame = SkbMut::new(ctx, ETHERNET);
    let Some(gateway) = gateway::settings() else { return 0 };
    let Ok(ip) = Ip::parse(&frame) else { return 0 };
    let Some(inner) = nat::inner(&ip, &frame, Edge::Lan) else { return 0 };
    let mut tables = Kernel { ctx, gateway };
    let Some(session) = nat::find(&mut tables, &inner.key, now()) else { return 0 };
    gateway::set_mark(ctx, MARK_KNOWN);
    let outer = session.address;
    match nat::rewrite_error(&mut frame, &ip, &inner, End::Destination, &outer, &session) {
        true => Reason::Translated as u32,
        false => Reason::NotRewritten as u32,
    }
}
