//! Handing a packet to the controller's socket.
//!
//! `bpf_sk_assign` changes nothing in the packet: netfilter's INPUT still judges it by WireGuard's port and the true
//! source address, as it judges WireGuard itself.

use abi::{Address, Family, Reason};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        bpf_sock, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
    },
    helpers::generated::{bpf_fib_lookup, bpf_sk_assign, bpf_sk_lookup_udp, bpf_sk_release},
    programs::TcContext,
};
use packet::{Datagram, Ip};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NETNS: u64 = u64::MAX;
const FIB_NOT_FORWARDED: i64 = 4;
const FIB_FORWARDING_DISABLED: i64 = 5;

/// `struct bpf_fib_lookup` of `linux/bpf.h` in whole words: LLVM has no `memset` for its six-byte fields.
#[repr(C)]
struct FibQuery {
    family: u32,
    dport_and_length: u32,
    ifindex: u32,
    flow_info: u32,
    /// An IPv4 address is the first word of the union, as it is in `Ip`.
    source: Address,
    destination: Address,
    answer: [u32; 4],
}

/// Gives the packet to the socket bound to `port` (network order); the answer says how that went.
#[inline(always)]
pub fn deliver(ctx: &TcContext, datagram: &Datagram, reason: Reason, port: [u8; 2]) -> Reason {
    if !is_for_us(ctx, &datagram.ip) {
        return Reason::Transit;
    }
    let (sport, dport) = (u16::from_ne_bytes(datagram.source_port), u16::from_ne_bytes(port));
    let Ip { source: saddr, destination: daddr, .. } = datagram.ip;
    let socket = match datagram.ip.family {
        Family::V4 => lookup(ctx, TupleV4 { saddr: saddr[0], daddr: daddr[0], sport, dport }),
        Family::V6 => lookup(ctx, TupleV6 { saddr, daddr, sport, dport }),
    };
    if socket.is_null() {
        return Reason::NoController;
    }
    // SAFETY: the lookup gave us a reference to the socket; it is released here and not used afterwards.
    let result = unsafe {
        let result = bpf_sk_assign(ctx.as_ptr(), socket.cast(), 0);
        bpf_sk_release(socket.cast());
        result
    };
    if result == 0 { reason } else { Reason::NotAssigned }
}

/// The UDP socket that would get a packet of this tuple, referenced.
#[inline(always)]
fn lookup<T>(ctx: &TcContext, mut tuple: T) -> *mut bpf_sock {
    // SAFETY: `tuple` is one side of the helper's union, which it tells apart by the size, and lives until it returns.
    unsafe {
        bpf_sk_lookup_udp(ctx.as_ptr(), (&raw mut tuple).cast(), size_of::<T>() as u32, CURRENT_NETNS, 0)
    }
}

/// Whether the routes say that the packet ends here. A packet we only route must not get a socket: the kernel drops
/// what it should forward and finds already owned (`ip_forward`).
#[inline(always)]
fn is_for_us(ctx: &TcContext, ip: &Ip) -> bool {
    let mut query = FibQuery {
        // The family is the first byte of the first word.
        family: u32::from_le(match ip.family {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        }),
        dport_and_length: 0,
        // SAFETY: the context is valid as long as the program runs.
        ifindex: unsafe { (*ctx.skb.skb).ifindex },
        flow_info: 0,
        source: ip.source,
        destination: ip.destination,
        answer: [0; 4],
    };
    let size = size_of::<FibQuery>() as i32;
    // SAFETY: `query` lives until the call returns.
    let result = unsafe { bpf_fib_lookup(ctx.as_ptr(), (&raw mut query).cast(), size, 0) };
    matches!(result, FIB_NOT_FORWARDED | FIB_FORWARDING_DISABLED)
}
