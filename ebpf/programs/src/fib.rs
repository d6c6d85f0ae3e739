//! Asking the kernel's routes and neighbors.

use abi::{Address, Family, Hop};
use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_fib_lookup, programs::XdpContext};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// `lo`: what is asked from here is asked for a packet of our own. Of all devices only `lo` needs its forwarding switch on
/// then, which has no other effect.
const LOOPBACK: u32 = 1;
const SUCCESS: i64 = 0;
const FORWARDING_DISABLED: i64 = 5;

/// `struct bpf_fib_lookup` of `linux/bpf.h` in whole words: LLVM has no `memset` for its six-byte fields.
#[repr(C)]
struct Query {
    family: u32,
    /// Destination port; total length, which comes back as the route's MTU (Linux 5.12).
    port_and_length: u32,
    /// The device that the packet came from, then the one that it leaves by.
    ifindex: u32,
    flow_info: u32,
    source: Address,
    destination: Address,
    vlan: u32,
    /// Source and destination, six bytes each.
    macs: [u32; 3],
}

/// The next hop of a packet of ours, or `None`: no route, no neighbor yet, a destination that is ourselves.
#[inline(always)]
pub fn next_hop(ctx: &XdpContext, family: Family, source: &Address, destination: &Address) -> Option<Hop> {
    // SAFETY: the context is valid as long as the program runs.
    let arrival = unsafe { (*ctx.ctx).ingress_ifindex };
    let mut query = Query {
        // The family is the first byte of the first word.
        family: u32::from_le(match family {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        }),
        port_and_length: 0,
        ifindex: LOOPBACK,
        flow_info: 0,
        source: *source,
        destination: *destination,
        vlan: 0,
        macs: [0; 3],
    };
    let mut result = lookup(ctx, &mut query);
    if result == FORWARDING_DISABLED {
        query.ifindex = arrival;
        result = lookup(ctx, &mut query);
    }
    if result != SUCCESS {
        return None;
    }
    let [a, b, c] = query.macs;
    Some(Hop {
        asked: 0,
        ifindex: query.ifindex,
        mtu: query.port_and_length >> 16,
        // The header has the destination first.
        macs: [b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16],
        number: 0,
    })
}

#[inline(always)]
fn lookup(ctx: &XdpContext, query: &mut Query) -> i64 {
    // SAFETY: `query` is the helper's struct and lives until it returns.
    unsafe { bpf_fib_lookup(ctx.as_ptr(), core::ptr::from_mut(query).cast(), size_of::<Query>() as i32, 0) }
}
