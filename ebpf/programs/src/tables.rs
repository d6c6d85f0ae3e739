//! The gateway's tables in the kernel's maps.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use abi::{
    Address, Family, Gateway, InnerKey, OuterKey, Owner, PLACE_REGIONS, PeerKey, Place, Session, SessionKey,
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff, BPF_NOEXIST, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
    },
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
    maps::lpm_trie::Key,
    programs::TcContext,
};
use packet::{
    nat::{self, Tables, Work},
    proto,
};

use crate::{
    gateway,
    maps::{MAPPINGS, OWNERS, PEERS, PLACE_REGION, PLACES, SESSIONS},
};

/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NETNS: u64 = u64::MAX;

/// The maps, and the packet whose namespace has the sockets.
pub struct Kernel<'a> {
    pub ctx: &'a TcContext,
    pub gateway: &'a Gateway,
}

impl Tables for Kernel<'_> {
    #[inline(always)]
    fn session(&mut self, key: &SessionKey) -> Option<Session> {
        // SAFETY: a value is replaced as a whole by another element, never written in place.
        unsafe { SESSIONS.get(key) }.copied()
    }

    #[inline(always)]
    fn set_session(&mut self, key: &SessionKey, session: &Session) -> bool {
        SESSIONS.insert(key, session, 0).is_ok()
    }

    #[inline(always)]
    fn remove_session(&mut self, key: &SessionKey) {
        let _ = SESSIONS.remove(key);
    }

    #[inline(always)]
    fn place(&mut self, index: u32) -> Option<&mut Place> {
        let place = PLACES.get_ptr_mut(index)?;
        // SAFETY: a map value that lives as long as the program. CPUs may write it at once: times and counts that are lost
        // are made up for by the next packet, and only who takes a place over writes its key.
        Some(unsafe { &mut *place })
    }

    /// Half of the places is shared out to regions, the other half is for all: a peer may have many flows, yet no peer can
    /// take what another one is sure of.
    #[inline(always)]
    fn next_place(&mut self, family: Family, peer: Option<&Address>) -> u32 {
        let half = self.gateway.places / 2;
        let share = half / PLACE_REGIONS;
        let (region, first, size) = match peer {
            Some(peer) => {
                let region = region_of(family, peer);
                (region, region * share, share)
            }
            None => (PLACE_REGIONS, half, half),
        };
        let Some(state) = PLACE_REGION.get_ptr_mut(region) else { return 0 };
        // SAFETY: a map value that lives as long as the program; only ever changed by this atomic add. Not `Relaxed`: LLVM
        // emits an add that returns nothing for it.
        let turn = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*state).cursor, 1) }
            as u32;
        if size == 0 { 0 } else { first + turn % size }
    }

    #[inline(always)]
    fn mapping(&mut self, inner: &InnerKey) -> Option<[u8; 2]> {
        // SAFETY: two bytes, replaced as a whole.
        unsafe { MAPPINGS.get(inner) }.copied()
    }

    #[inline(always)]
    fn set_mapping(&mut self, inner: &InnerKey, port: [u8; 2]) -> bool {
        MAPPINGS.insert(inner, port, 0).is_ok()
    }

    #[inline(always)]
    fn remove_mapping(&mut self, inner: &InnerKey) {
        let _ = MAPPINGS.remove(inner);
    }

    #[inline(always)]
    fn owner(&mut self, outer: &OuterKey) -> Option<&mut Owner> {
        let owner = OWNERS.get_ptr_mut(outer)?;
        // SAFETY: a map value; entries are never removed by programs. Only who has claimed it writes more than `until`.
        Some(unsafe { &mut *owner })
    }

    #[inline(always)]
    fn add_owner(&mut self, outer: &OuterKey, owner: &Owner) -> bool {
        OWNERS.insert(outer, owner, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn claim(&mut self, outer: &OuterKey, old: u64, new: u64) -> bool {
        let Some(owner) = OWNERS.get_ptr_mut(outer) else { return false };
        // SAFETY: an aligned word of a map value.
        unsafe {
            let until = &raw mut (*owner).until;
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(until, old, new).1
        }
    }

    #[inline(always)]
    fn is_local(&mut self, outer: &OuterKey, session: &SessionKey) -> bool {
        let (sport, dport) = (u16::from_ne_bytes(session.destination_port), u16::from_ne_bytes(outer.port));
        let remote = session.destination;
        if outer.family == Family::V4 as u8 {
            let (saddr, daddr) = (remote[0], outer.address[0]);
            is_bound(self.ctx, outer.protocol, TupleV4 { saddr, daddr, sport, dport })
        } else {
            let (saddr, daddr) = (remote, outer.address);
            is_bound(self.ctx, outer.protocol, TupleV6 { saddr, daddr, sport, dport })
        }
    }

    #[inline(always)]
    fn occupy(&mut self, _: &mut Work, index: u32, now: u64, generation: u32) -> bool {
        occupy(self.ctx.skb.skb, index, now, generation) != 0
    }

    #[inline(always)]
    fn take(&mut self, _: &mut Work, now: u64) -> bool {
        take(self.ctx.skb.skb, now) != 0
    }
}

/// `packet::nat::occupy`, on `WORK`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn occupy(skb: *mut __sk_buff, index: u32, now: u64, generation: u32) -> u32 {
    let ctx = &TcContext::new(skb);
    // LLVM hands over nothing for an argument that is not used, and the verifier wants a context.
    // SAFETY: the context is valid as long as the program runs.
    let _ = unsafe { (&raw const (*skb).len).read_volatile() };
    let Some(gateway) = gateway::settings() else { return 0 };
    let Some(work) = gateway::work() else { return 0 };
    u32::from(nat::occupy(&mut Kernel { ctx, gateway }, work, index, now, generation))
}

/// `packet::nat::take`, on `WORK`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take(skb: *mut __sk_buff, now: u64) -> u32 {
    let ctx = &TcContext::new(skb);
    let Some(gateway) = gateway::settings() else { return 0 };
    let Some(work) = gateway::work() else { return 0 };
    u32::from(nat::take(&mut Kernel { ctx, gateway }, work, now))
}

/// Whether a socket would get a packet of this tuple.
#[inline(always)]
fn is_bound<T>(ctx: &TcContext, protocol: u8, mut tuple: T) -> bool {
    let (tuple, size) = ((&raw mut tuple).cast(), size_of::<T>() as u32);
    // SAFETY: `tuple` is one side of the helper's union, told apart by its size, and lives until the helper returns. The
    // reference it gives is given back.
    unsafe {
        let socket = match protocol {
            proto::TCP => bpf_skc_lookup_tcp(ctx.as_ptr().cast(), tuple, size, CURRENT_NETNS, 0),
            proto::UDP => bpf_sk_lookup_udp(ctx.as_ptr().cast(), tuple, size, CURRENT_NETNS, 0),
            _ => return false,
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
        true
    }
}

/// The peer's region; addresses of no known peer are spread by their last bits.
#[inline(always)]
fn region_of(family: Family, address: &Address) -> u32 {
    let bits = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let key = Key::new(PeerKey::HEAD_BITS + bits, PeerKey::new(family, *address));
    PEERS.get(&key).copied().unwrap_or(u32::from_be(address[0] ^ address[3])) % PLACE_REGIONS
}
