//! The short way out: the kernel's routes and neighbors asked for one packet, and the packet put on the device.

use abi::{Address, Family};
use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_fib_lookup, bpf_redirect, bpf_skb_change_head, bpf_skb_store_bytes},
    programs::TcContext,
};
use packet::{Frame, Ip, proto};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const FIB_SUCCESS: i64 = 0;
/// Bytes of an Ethernet header.
pub const ETHERNET: u32 = 14;

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
    /// Four bytes of VLAN, our MAC address, the next hop's.
    answer: [u32; 4],
}

/// A device, and the Ethernet addresses on it.
pub struct Hop {
    pub ifindex: u32,
    /// Receiver and sender as an Ethernet header has them.
    addresses: [u32; 3],
}

/// Where the kernel would send the packet that came in at `ifindex`; none where it would do anything but that: no route,
/// no neighbor yet, larger than the route's MTU, forwarding off.
#[inline(always)]
pub fn route(ctx: &TcContext, ip: &Ip, ifindex: u32, length: u32) -> Option<Hop> {
    let mut query = FibQuery {
        // The family is the first byte of the first word.
        family: u32::from_le(match ip.family {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        }),
        dport_and_length: length << 16,
        ifindex,
        flow_info: 0,
        source: ip.source,
        destination: ip.destination,
        answer: [0; 4],
    };
    let size = size_of::<FibQuery>() as i32;
    // SAFETY: `query` lives until the call returns.
    let result = unsafe { bpf_fib_lookup(ctx.as_ptr(), (&raw mut query).cast(), size, 0) };
    if result != FIB_SUCCESS {
        return None;
    }
    let [_, s, m, d] = query.answer;
    // Six bytes of sender, six of receiver; the header has them the other way round.
    let addresses = [m >> 16 | d << 16, d >> 16 | s << 16, s >> 16 | m << 16];
    Some(Hop { ifindex: query.ifindex, addresses })
}

/// Bytes from the network header on of the packet, or of each packet that a super-packet becomes.
#[inline(always)]
pub fn segment(ctx: &TcContext, ip: &Ip, frame: &impl Frame) -> Option<u32> {
    // SAFETY: the context is valid as long as the program runs.
    let payload = unsafe { (*ctx.skb.skb).gso_size };
    if payload == 0 {
        return Some(ip.end as u32);
    }
    let header = match ip.protocol {
        proto::TCP => {
            let [word] = frame.words::<1>(ip.transport + 12)?;
            (u32::from_be(word) >> 28) * 4
        }
        proto::UDP => 8,
        _ => return None,
    };
    let length = ip.transport as u32 + header + payload;
    (length <= 0xffff).then_some(length)
}

/// Gives the packet an Ethernet header, where it has none yet, and sends it. `None` if the kernel has no room for one.
#[inline(always)]
pub fn send(ctx: &TcContext, hop: &Hop, family: Family, has_link: bool) -> Option<i32> {
    #[repr(C)]
    struct Header {
        addresses: [u32; 3],
        kind: u16,
        zero: u16,
    }
    let kind = match family {
        Family::V4 => u16::from_be(0x0800),
        Family::V6 => u16::from_be(0x86dd),
    };
    let header = Header { addresses: hop.addresses, kind, zero: 0 };
    // SAFETY: the helpers check the packet; `header` has more than the bytes read and lives until they return.
    unsafe {
        if !has_link && bpf_skb_change_head(ctx.as_ptr().cast(), ETHERNET, 0) != 0 {
            return None;
        }
        if bpf_skb_store_bytes(ctx.as_ptr().cast(), 0, (&raw const header).cast(), ETHERNET, 0) != 0 {
            return None;
        }
    }
    Some(to(hop.ifindex))
}

/// Sends the packet as it is by a device.
#[inline(always)]
pub fn to(ifindex: u32) -> i32 {
    // SAFETY: takes numbers.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}
