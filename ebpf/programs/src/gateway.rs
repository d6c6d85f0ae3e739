//! What the gateway's four hooks share: its settings, marks, and which packets may take the short way.

use abi::{Address, Family, Gateway, Lan, MARK_MASK, Program, Reason, Train};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    maps::lpm_trie::Key,
    programs::TcContext,
};
use packet::{
    Frame, Ip, Piece,
    nat::{SYN, Tuple, Work},
};

use crate::access::Skb;
use crate::maps::{GATEWAY, GENERATION, LANS, ROUTES, TRAIN, WORK};
use crate::verdict;

/// The settings; none while there is no gateway.
#[inline(always)]
pub fn settings() -> Option<&'static Gateway> {
    GATEWAY.get(0).filter(|gateway| gateway.tunnel != 0)
}

/// The filter in force.
#[inline(always)]
pub fn generation() -> u32 {
    GENERATION.get(0).copied().unwrap_or(0)
}

/// A device of the LAN side.
#[inline(always)]
pub fn lan(ifindex: u32) -> Option<Lan> {
    // SAFETY: replaced as a whole.
    unsafe { LANS.get(&ifindex) }.copied()
}

/// What flows of a family are hidden behind on a device.
#[inline(always)]
pub fn outer(lan: &Lan, family: Family) -> Address {
    match family {
        Family::V4 => [lan.v4, 0, 0, 0],
        Family::V6 => lan.v6,
    }
}

/// How we forward to an address: a `ROUTE_*`, or not at all.
#[inline(always)]
pub fn forwarding(family: Family, address: Address) -> Option<u32> {
    let bits = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let key = abi::PeerKey::new(family, address);
    ROUTES.get(&Key::new(abi::PeerKey::HEAD_BITS + bits, key)).copied()
}

/// Whether the stack has nothing to do for a packet of an open session: no fragment, no option, hops left, and not the
/// beginning of a connection, whose MSS the stack clamps.
#[inline(always)]
pub fn is_plain(ip: &Ip, frame: &impl Frame, tuple: &Tuple) -> bool {
    if ip.piece != Piece::Whole || tuple.flags & SYN != 0 {
        return false;
    }
    let hops = match ip.family {
        Family::V4 if ip.transport != 20 => return false,
        Family::V4 => frame.words::<1>(8).map(|[word]| u32::from_be(word) >> 24),
        Family::V6 => frame.words::<1>(4).map(|[word]| u32::from_be(word) & 0xff),
    };
    hops.is_some_and(|hops| hops > 1)
}

/// Our bits of the packet's mark.
#[inline(always)]
pub fn mark(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid as long as the program runs.
    unsafe { (*ctx.skb.skb).mark & MARK_MASK }
}

/// Sets our bits of the packet's mark.
#[inline(always)]
pub fn set_mark(ctx: &TcContext, mark: u32) {
    // SAFETY: as above; programs of this kind may write the mark, as a whole word only.
    unsafe {
        let field = &raw mut (*ctx.skb.skb).mark;
        field.write_volatile(field.read_volatile() & !MARK_MASK | mark);
    }
}

/// The device a forwarded packet came in by; zero for one of this machine's own.
#[inline(always)]
pub fn ingress(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid as long as the program runs.
    unsafe { (*ctx.skb.skb).ingress_ifindex }
}

/// The device the packet is at.
#[inline(always)]
pub fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid as long as the program runs.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Whether the packet comes by again at the VLAN's own device.
#[inline(always)]
pub fn is_tagged(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid as long as the program runs.
    unsafe { (*ctx.skb.skb).vlan_present != 0 }
}

/// What a global function answered: those may return numbers only.
#[inline(always)]
pub const fn reason(answer: u32) -> Reason {
    const TRANSLATED: u32 = Reason::Translated as u32;
    const NO_PORT: u32 = Reason::NoPort as u32;
    const NO_SESSION: u32 = Reason::NoSession as u32;
    const NOT_ASKED: u32 = Reason::NotAsked as u32;
    const NOT_REWRITTEN: u32 = Reason::NotRewritten as u32;
    match answer {
        TRANSLATED => Reason::Translated,
        NO_PORT => Reason::NoPort,
        NO_SESSION => Reason::NoSession,
        NOT_ASKED => Reason::NotAsked,
        NOT_REWRITTEN => Reason::NotRewritten,
        _ => Reason::NotOurs,
    }
}

/// Counts and traces a packet, unless it is nothing for us, and says what to return.
#[inline(always)]
pub fn conclude(ctx: &TcContext, program: Program, reason: Reason) -> i32 {
    if matches!(reason, Reason::NotOurs) {
        return TC_ACT_UNSPEC;
    }
    if verdict::config().trace != 0 {
        note(ctx.skb.skb, program as u32, reason as u32);
    }
    verdict::conclude(ctx, program, reason)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note(skb: *mut __sk_buff, program: u32, answer: u32) -> u32 {
    let ctx = &TcContext::new(skb);
    let program = if program == Program::IntoLan as u32 { Program::IntoLan } else { Program::ToTunnel };
    if let Ok(ip) = Ip::parse(&Skb(ctx)) {
        verdict::trace(ctx, verdict::config(), program, &ip, reason(answer));
    }
    0
}

/// Room for keys while a session is made.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    let work = WORK.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value that lives as long as the program; no program here runs inside another.
    Some(unsafe { &mut *work })
}

/// Which train of fragments.
#[derive(Clone, Copy)]
pub enum Track {
    /// Out of the tunnel.
    Out = 0,
}

/// Remembers what a first fragment became, for those behind it.
#[inline(always)]
pub fn begin_train(track: Track, ip: &Ip, frame: &impl Frame, address: Address) {
    let Some((id, kind)) = datagram(ip, frame) else { return };
    let Some(train) = TRAIN.get_ptr_mut(track as u32) else { return };
    // SAFETY: a per-CPU value; nothing else on this CPU runs this hook at the same time.
    unsafe { *train = Train { source: ip.source, destination: ip.destination, address, id, kind } };
}

/// What the first fragment of the same datagram became.
#[inline(always)]
pub fn train(track: Track, ip: &Ip, frame: &impl Frame) -> Option<Address> {
    let (id, kind) = datagram(ip, frame)?;
    let train = TRAIN.get(track as u32)?;
    let is_same = train.id == id
        && train.kind == kind
        && train.source == ip.source
        && train.destination == ip.destination;
    is_same.then_some(train.address)
}

/// A datagram's identification, and its protocol and family.
#[inline(always)]
fn datagram(ip: &Ip, frame: &impl Frame) -> Option<(u32, u32)> {
    let id = match ip.family {
        Family::V4 => u32::from_be(frame.words::<1>(4)?[0]) >> 16,
        Family::V6 => frame.words::<1>(44)?[0],
    };
    Some((id, u32::from(ip.protocol) | (ip.family as u32) << 8))
}
