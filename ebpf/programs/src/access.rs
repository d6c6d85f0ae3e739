//! The only access to packet memory.
//!
//! Reads go through `bpf_skb_load_bytes_relative` at the network header. That works on devices with and without a link
//! header, behind VLAN tags, and on packets whose headers are not in linear memory, and needs no bounds proof.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_hdr_start_off::BPF_HDR_START_NET,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_skb_load_bytes_relative},
    programs::TcContext,
};
use packet::Frame;

/// A TC context as a frame.
pub struct Skb<'a>(pub &'a TcContext);

impl Skb<'_> {
    #[inline(always)]
    fn load<T>(&self, offset: usize) -> Option<T> {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes exactly `size_of::<T>()` bytes or fails; the callers' types have no invalid bytes.
        let result = unsafe {
            bpf_skb_load_bytes_relative(
                self.0.as_ptr(),
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                BPF_HDR_START_NET,
            )
        };
        // SAFETY: written completely, as the helper succeeded.
        (result == 0).then(|| unsafe { value.assume_init() })
    }
}

impl Frame for Skb<'_> {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.load(offset)
    }

    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        self.load::<u8>(end.wrapping_sub(1)).is_some()
    }
}

/// Time since boot in nanoseconds, without suspend, as of the last tick.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing, touches nothing.
    unsafe { bpf_ktime_get_coarse_ns() }
}
