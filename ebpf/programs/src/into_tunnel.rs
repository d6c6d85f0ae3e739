//! `into_tunnel`, TC egress of the WireGuard device: remembers the flows that we start, and never drops.

use abi::{Edge, Gateway, MARK_KNOWN, Program, Reason, Session};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use packet::{
    Ip,
    nat::{self, Way},
    outbound,
};

use crate::{
    access::{Skb, now},
    flows::{self, Outcome},
    gateway,
    tables::Kernel,
    verdict::{conclude, config, trace},
};

#[classifier]
pub fn into_tunnel(ctx: TcContext) -> i32 {
    let frame = Skb(&ctx);
    let Ok(ip) = Ip::parse(&frame) else { return TC_ACT_UNSPEC };
    if let Some(gateway) = gateway::settings()
        && comes_from_lan(&ctx, gateway)
    {
        learn(ctx.skb.skb);
    }
    let Some(flow) = outbound(&ip, &frame) else { return TC_ACT_UNSPEC };
    let reason = match flows::record(&flow, ip.family) {
        Outcome::Known => return TC_ACT_UNSPEC,
        Outcome::Added => Reason::FlowAdded,
        Outcome::Refused => Reason::FlowRefused,
    };
    trace(&ctx, config(), Program::IntoTunnel, &ip, reason);
    conclude(&ctx, Program::IntoTunnel, reason)
}

/// Whether the stack forwards the packet from the LAN side, and no hook there knew it.
#[inline(always)]
fn comes_from_lan(ctx: &TcContext, gateway: &Gateway) -> bool {
    let ingress = gateway::ingress(ctx);
    ingress != 0 && ingress != gateway.tunnel && gateway::mark(ctx) != MARK_KNOWN
}

/// Opens a session for a flow that began on the LAN side and goes to a peer as it is: the next packets take the short way.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn learn(skb: *mut __sk_buff) -> u32 {
    let ctx = &TcContext::new(skb);
    let frame = Skb(ctx);
    let Some(gateway) = gateway::settings() else { return 0 };
    let Ok(ip) = Ip::parse(&frame) else { return 0 };
    let Some(tuple) = nat::tuple(&ip, &frame, Edge::Lan) else { return 0 };
    let Some(work) = gateway::work() else { return 0 };
    let now = now();
    let mut tables = Kernel { ctx, gateway };
    let key = &tuple.key;
    let back = Session { address: key.destination, port: key.destination_port, zero: 0, place: 0 };
    work.key = nat::tunnel_key(key, &back);
    let entered = nat::enter(&mut tables, work, now, gateway::generation());
    // A full table costs such a flow the short way, nothing else.
    if entered.is_ok() && nat::open(&mut tables, work, false, gateway, now).is_ok() {
        let session = Session { place: work.session.place, ..back };
        nat::touch(&mut tables, &tuple, &session, Way::In, ctx.len(), now);
    }
    0
}
