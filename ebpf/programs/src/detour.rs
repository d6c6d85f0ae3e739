//! Taking detours, in TC: the headers are computed by `packet`, written here.

use abi::{Config, Inward, Outward, Reason};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_INGRESS, bpf_adj_room_mode::BPF_ADJ_ROOM_NET},
    helpers::generated::{bpf_check_mtu, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_head},
    programs::TcContext,
};
use packet::{Datagram, Frame as _, GENEVE, Header, Headers, Ports, geneve, headers, is_partial};

use crate::{
    access::{ETHERNET, Skb},
    maps::{DETOURS_IN, DETOURS_OUT},
};

/// `BPF_F_RECOMPUTE_CSUM`: a sum over the whole packet, where the driver gave one, stays right.
const RECOMPUTE: u64 = 1;

/// A datagram from outside: what is done if it came by a detour.
#[inline(always)]
pub fn arrived(ctx: &TcContext, datagram: &Datagram, ports: &Ports, config: &Config) -> Option<Reason> {
    if is_super_packet(ctx) && ports.are_wireguards(datagram.destination_port) {
        // Its payload may be outside of linear memory.
        let end = link(ctx, datagram) + datagram.payload + GENEVE;
        ctx.pull_data(end as u32).ok()?;
    }
    let arrival = packet::detour(&Skb(ctx), datagram, ports)?;
    // SAFETY: one word, replaced as a whole.
    let inward = *unsafe { DETOURS_IN.get(&arrival) }?;
    let header = if arrival.vni == 0 { Header::None } else { Header::Off };
    if header == Header::Off && (is_super_packet(ctx) || is_partial(&Skb(ctx), datagram)) {
        // Each datagram of a super-packet has a header; and where the checksum begins cannot be moved. On the way through our own
        // device the stack cuts the one and completes the other.
        return Some(go_through(ctx, datagram, config, Reason::RelayedUnfinished));
    }
    Some(inwards(ctx, datagram, &inward, header, config))
}

/// Shows WireGuard what it believes in.
#[inline(always)]
pub fn inwards(
    ctx: &TcContext,
    datagram: &Datagram,
    inward: &Inward,
    header: Header,
    config: &Config,
) -> Reason {
    let ([s0, s1], [d0, d1]) = (inward.port, config.wireguard_port);
    let Some(headers) = headers(&Skb(ctx), datagram, [s0, s1, d0, d1], header) else {
        return Reason::Unwritable;
    };
    let (link, transport) = (link(ctx, datagram), datagram.payload - 8);
    let done = if header == Header::Off {
        // The UDP header goes where the Geneve header was; then what is behind the network header is cut out.
        write(ctx, link + transport + GENEVE, &headers.udp)
            && write(ctx, link, &headers.network)
            && adjust(ctx, -(GENEVE as i32))
    } else {
        write(ctx, link + transport, &headers.udp)
    };
    match (done, header) {
        (false, _) => Reason::Unwritable,
        (true, Header::Off) => Reason::RelayedIn,
        (true, _) => Reason::PortIn,
    }
}

/// A datagram of WireGuard on its way out: what is done if it takes a detour.
#[inline(always)]
pub fn leaving(ctx: &TcContext, datagram: &Datagram, config: &Config) -> Option<Reason> {
    let outward = outward(datagram)?;
    if outward.vni != 0 {
        return Some(go_through(ctx, datagram, config, Reason::RelayedOut));
    }
    let place = link(ctx, datagram) + datagram.payload - 8;
    // The device may still have to finish the checksum; the helper knows, and then there is nothing to change: the ports are
    // not in the part that is summed so far.
    let old = u16::from_ne_bytes(datagram.source_port).into();
    let new = u16::from_ne_bytes(outward.source_port);
    let flags = MANGLED_ZERO | size_of::<u16>() as u64;
    let done = ctx.l4_csum_replace(place + 6, old, new.into(), flags).is_ok() && write(ctx, place, &new);
    Some(if done { Reason::PortOut } else { Reason::Unwritable })
}

/// `BPF_F_MARK_MANGLED_0`: no checksum stays none, and one that becomes zero is written as ones.
const MANGLED_ZERO: u64 = 1 << 5;

/// What the datagram's destination is on the wire.
#[inline(always)]
pub fn outward(datagram: &Datagram) -> Option<Outward> {
    // SAFETY: two words; a torn pair costs one packet.
    unsafe { DETOURS_OUT.get(&packet::endpoint(datagram)) }.copied()
}

/// Puts the Geneve header on and sends the packet out of `device`. The checksum must be complete.
#[inline(always)]
pub fn wrap(ctx: &TcContext, datagram: &Datagram, outward: &Outward, device: u32) -> Reason {
    let [s0, s1] = if outward.source_port == [0; 2] { datagram.source_port } else { outward.source_port };
    let [d0, d1] = outward.port;
    let header = Header::On(outward.vni);
    let Some(Headers { network, udp }) = headers(&Skb(ctx), datagram, [s0, s1, d0, d1], header) else {
        return Reason::Unwritable;
    };
    let mut mtu = 0;
    // SAFETY: the context is valid as long as the program runs, and the number as long as the call.
    if unsafe { bpf_check_mtu(ctx.as_ptr(), device, &raw mut mtu, GENEVE as i32, 0) } > 0 {
        return Reason::RelayedTooBig;
    }
    let transport = ETHERNET + datagram.payload - 8;
    let [g0, g1] = geneve(outward.vni);
    let done = adjust(ctx, GENEVE as i32)
        && write(ctx, ETHERNET, &network)
        && write(ctx, transport, &[udp[0], udp[1], g0, g1]);
    if !done {
        return Reason::Unwritable;
    }
    // SAFETY: takes numbers only.
    unsafe { bpf_redirect(device, 0) };
    Reason::RelayedOut
}

/// Lets the packet arrive on `device`, where it came from.
#[inline(always)]
pub fn arrive_on(device: u32) {
    // SAFETY: takes numbers only.
    unsafe { bpf_redirect(device, BPF_F_INGRESS.into()) };
}

/// Sends the packet through our own device, whose other end has `wrap`: on the way the stack cuts super-packets and
/// completes checksums, which no program can. The mark says which device it belongs to.
#[inline(always)]
fn go_through(ctx: &TcContext, datagram: &Datagram, config: &Config, reason: Reason) -> Reason {
    if config.wrap_ifindex == 0 {
        return Reason::RelayedNoDevice;
    }
    if link(ctx, datagram) == 0 && !give_link(ctx) {
        return Reason::Unwritable;
    }
    // SAFETY: the context is valid as long as the program runs.
    let device = unsafe { (*ctx.skb.skb).ifindex };
    ctx.skb.set_mark(device);
    // SAFETY: takes numbers only.
    unsafe { bpf_redirect(config.wrap_ifindex, 0) };
    reason
}

/// A packet of a device without Ethernet gets an empty Ethernet header; on its way back to that device it is left behind.
#[inline(always)]
fn give_link(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid as long as the program runs.
    let kind = unsafe { (*ctx.skb.skb).protocol } as u16;
    // SAFETY: as above.
    (unsafe { bpf_skb_change_head(ctx.as_ptr().cast(), ETHERNET as u32, 0) }) == 0
        && write(ctx, ETHERNET - 2, &kind)
}

/// Bytes in front of the network header: those of an Ethernet header, or none. No datagram here is so short that it is padded.
#[inline(always)]
fn link(ctx: &TcContext, datagram: &Datagram) -> usize {
    if ctx.len() as usize == datagram.ip.end { 0 } else { ETHERNET }
}

#[inline(always)]
fn is_super_packet(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid as long as the program runs.
    unsafe { (*ctx.skb.skb).gso_size != 0 }
}

#[inline(always)]
fn write<T>(ctx: &TcContext, offset: usize, value: &T) -> bool {
    ctx.store(offset, value, RECOMPUTE).is_ok()
}

/// Makes room behind the network header, or takes it away.
#[inline(always)]
fn adjust(ctx: &TcContext, by: i32) -> bool {
    // SAFETY: the context is valid as long as the program runs.
    unsafe { bpf_skb_adjust_room(ctx.as_ptr().cast(), by, BPF_ADJ_ROOM_NET, 0) == 0 }
}
