//! `into_lan`, TC egress of the LAN side's devices: what the stack forwards from the tunnel is translated where it leaves.
//!
//! So there is one translation, whether a packet took the short way or the long one. Fragments come here one behind the
//! other, first one first, because connection tracking has reassembled the datagram before. ICMP errors that the stack
//! itself sends about packets to the tunnel name the outer endpoint again. Everything else passes after one look at its
//! mark.

use abi::{Edge, MARK_KNOWN, MARK_TRANSLATE, Program, Reason, Session, SessionKey};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use packet::{
    Ip, Piece,
    nat::{self, End, Refusal, Way},
    proto,
};

use crate::{
    access::{Skb, SkbMut, now},
    gateway::{self, Track},
    route::ETHERNET,
    tables::Kernel,
};

#[classifier]
pub fn into_lan(ctx: TcContext) -> i32 {
    let Some(gateway) = gateway::settings() else { return TC_ACT_UNSPEC };
    if gateway::is_tagged(&ctx) {
        return TC_ACT_UNSPEC;
    }
    let ingress = gateway::ingress(&ctx);
    let reason = if ingress == gateway.tunnel {
        leave(&ctx)
    } else if ingress == 0 {
        turn_own_error(ctx.skb.skb)
    } else {
        0
    };
    let reason = gateway::reason(reason);
    gateway::conclude(&ctx, Program::IntoLan, reason)
}

/// A packet from the tunnel; the answer is a reason.
#[inline(always)]
fn leave(ctx: &TcContext) -> u32 {
    let mark = gateway::mark(ctx);
    if mark != MARK_TRANSLATE && mark != MARK_KNOWN {
        return Reason::NotOurs as u32;
    }
    // Done once, whatever devices are below.
    gateway::set_mark(ctx, 0);
    let hide = mark == MARK_TRANSLATE;
    let opened = open(ctx.skb.skb, u32::from(hide));
    if hide && opened == Reason::Translated as u32 { hide_source(ctx.skb.skb) } else { opened }
}

/// Finds or opens the packet's session and leaves it in `WORK`; the answer is a reason. A global function, so that the
/// verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn open(skb: *mut __sk_buff, hide: u32) -> u32 {
    let ctx = &TcContext::new(skb);
    let frame = Skb(ctx);
    let Some(gateway) = gateway::settings() else { return 0 };
    let Ok(ip) = Ip::parse(&frame) else { return 0 };
    let Some(work) = gateway::work() else { return 0 };
    let mut tables = Kernel { ctx, gateway };
    let now = now();
    if ip.piece == Piece::Later {
        let Some(address) = gateway::train(Track::Out, &ip, &frame) else { return lost(hide) };
        work.session = Session { address, port: [0; 2], zero: 0, place: 0 };
        return Reason::Translated as u32;
    }
    let Some(tuple) = nat::tuple(&ip, &frame, Edge::Tunnel) else {
        let Some(inner) = nat::inner(&ip, &frame, Edge::Tunnel) else { return Reason::NotOurs as u32 };
        let Some(session) = nat::find(&mut tables, &inner.key, now) else { return lost(hide) };
        work.session = session;
        return Reason::Translated as u32;
    };
    if hide != 0 {
        let Some(lan) = gateway::lan(gateway::ifindex(ctx)) else { return Reason::NotOurs as u32 };
        work.outer.address = gateway::outer(&lan, ip.family);
        if work.outer.address == [0; 4] {
            return Reason::NoPort as u32;
        }
        if work.outer.address == ip.source {
            // Netfilter has hidden it, at the moment of a change from one to the other.
            return Reason::NotOurs as u32;
        }
    }
    work.key = tuple.key;
    let opened = nat::enter(&mut tables, work, now, gateway::generation())
        .and_then(|()| nat::open(&mut tables, work, hide != 0, gateway, now));
    match opened {
        Ok(()) => {
            let session = work.session;
            nat::touch(&mut tables, &tuple, &session, Way::Out, ctx.len(), now);
            if hide == 0 { Reason::NotOurs as u32 } else { Reason::Translated as u32 }
        }
        Err(Refusal::NoPort) if hide != 0 => Reason::NoPort as u32,
        Err(_) => lost(hide),
    }
}

/// Without a session, what is not hidden goes the long way each time.
#[inline(always)]
const fn lost(hide: u32) -> u32 {
    if hide == 0 { Reason::NotOurs as u32 } else { Reason::NoSession as u32 }
}

/// Gives the packet its session's outer endpoint for a source.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hide_source(skb: *mut __sk_buff) -> u32 {
    let ctx = &TcContext::new(skb);
    let mut frame = SkbMut::new(ctx, ETHERNET);
    let Some(work) = gateway::work() else { return Reason::NotRewritten as u32 };
    let Ok(ip) = Ip::parse(&frame) else { return Reason::NotRewritten as u32 };
    let session = work.session;
    let done = match nat::tuple(&ip, &frame, Edge::Tunnel) {
        Some(tuple) => {
            if ip.piece == Piece::First {
                gateway::begin_train(Track::Out, &ip, &frame, session.address);
            }
            nat::rewrite(&mut frame, &ip, &tuple.key, End::Source, &session, false)
        }
        None if ip.piece == Piece::Later => {
            nat::rewrite(&mut frame, &ip, &SessionKey::default(), End::Source, &session, false)
        }
        None => match nat::inner(&ip, &frame, Edge::Tunnel) {
            Some(inner) => {
                let outer = session.address;
                nat::rewrite_error(&mut frame, &ip, &inner, End::Source, &outer, &session)
            }
            None => false,
        },
    };
    if done { Reason::Translated as u32 } else { Reason::NotRewritten as u32 }
}

/// An ICMP error of our own about a packet that was on its way to a peer.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn turn_own_error(skb: *mut __sk_buff) -> u32 {
    let ctx = &TcContext::new(skb);
    let Some(gateway) = gateway::settings() else { return 0 };
    let mut frame = SkbMut::new(ctx, ETHERNET);
    let Ok(ip) = Ip::parse(&frame) else { return 0 };
    if !matches!(ip.protocol, proto::ICMP | proto::ICMPV6) {
        return 0;
    }
    let Some(inner) = nat::inner(&ip, &frame, Edge::Tunnel) else { return 0 };
    let mut tables = Kernel { ctx, gateway };
    let Some(session) = nat::find(&mut tables, &inner.key, now()) else { return 0 };
    if session.address == inner.key.source {
        return 0;
    }
    let done = nat::rewrite_error(&mut frame, &ip, &inner, End::Source, &ip.source, &session);
    if done { Reason::Translated as u32 } else { Reason::NotRewritten as u32 }
}
