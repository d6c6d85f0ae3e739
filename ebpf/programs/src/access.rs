//! The only access to packet memory.
//!
//! In TC, reads go through `bpf_skb_load_bytes_relative` at the network header. That works on devices with and without a link
//! header, behind VLAN tags, and needs no bounds proof; headers must be in linear memory, where the kernel keeps them. In XDP there is the frame itself: each access is compared with its end first,
//! in a way the verifier follows.

use abi::Family;
use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, bpf_hdr_start_off::BPF_HDR_START_NET, xdp_md},
    helpers::generated::{
        bpf_csum_update, bpf_ktime_get_coarse_ns, bpf_l4_csum_replace, bpf_skb_load_bytes_relative,
        bpf_skb_store_bytes, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
    },
    programs::{TcContext, XdpContext},
};
use packet::{
    Frame, FrameMut, LinkFrame,
    nat::{Delta, Summed},
};

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
        if self.load::<u8>(end.wrapping_sub(1)).is_some() {
            return true;
        }
        // The helper sees linear memory only, and of a super-packet that is its headers. Where such a one ends is then told to
        // the length of a link header; the stack drops what is shorter than it says.
        let length = self.0.len() as usize;
        self.linear() < length && end <= length
    }
}

impl Skb<'_> {
    /// Bytes in linear memory, from the packet's first byte.
    #[inline(always)]
    fn linear(&self) -> usize {
        let (data, end): (usize, usize);
        // By hand, as in XDP below.
        // SAFETY: reads `data` and `data_end` of a valid `struct __sk_buff`.
        unsafe {
            core::arch::asm!(
                "{0} = *(u32 *)({2} + 76)",
                "{1} = *(u32 *)({2} + 80)",
                out(reg) data,
                out(reg) end,
                in(reg) self.0.skb.skb,
                options(pure, readonly, nostack)
            );
        }
        end - data
    }
}

/// Bytes of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// The types of IPv4 and IPv6, as in the header.
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
/// The farthest that an offset can be: the verifier knows no packet pointer beyond 64 KiB.
const REACH: usize = 0x3fff;

/// An XDP context as a frame behind its Ethernet header.
pub struct Ethernet<'a>(&'a XdpContext);

impl<'a> Ethernet<'a> {
    /// An untagged frame of IPv4 or IPv6; anything else is the stack's.
    ///
    /// A tag that the driver took off is invisible here, which is why devices with VLANs on them have no XDP.
    #[inline(always)]
    pub fn untagged(ctx: &'a XdpContext) -> Option<Self> {
        let kind = Self::place(ctx, 12, 2)? as *const u16;
        // SAFETY: within the frame, as just proved, and at an even address.
        matches!(unsafe { kind.read() }, IPV4 | IPV6).then_some(Self(ctx))
    }

    /// The address of `bytes` bytes at `offset` from the frame's first byte, if they are in its first page.
    #[inline(always)]
    fn place(ctx: &XdpContext, offset: usize, bytes: usize) -> Option<usize> {
        if offset > REACH {
            return None;
        }
        // Opaque to the compiler, so that what is compared is what is used: the verifier knows registers, not sums.
        let place = opaque(start_of(ctx) + offset);
        (place + bytes <= end_of(ctx)).then_some(place)
    }
}

impl Frame for Ethernet<'_> {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let place = Self::place(self.0, ETHERNET + offset, 4 * N)? as *const [u32; N];
        // SAFETY: within the frame, as just proved. Words of a frame are aligned to two bytes; the machine does not care, and
        // the compiler's target has no loads that say so.
        Some(unsafe { place.read() })
    }

    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        if end_of(self.0) - start_of(self.0) >= ETHERNET + end {
            return true;
        }
        // SAFETY: the context is valid as long as the program runs. All pages count.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) >= (ETHERNET + end) as u64 }
    }
}

impl FrameMut for Ethernet<'_> {
    #[inline(always)]
    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        let place = Self::place(self.0, ETHERNET + offset, 4 * N)? as *mut [u32; N];
        // SAFETY: as for reading; the frame is ours alone until the program ends.
        unsafe { place.write(words) };
        Some(())
    }
}

impl LinkFrame for Ethernet<'_> {
    #[inline(always)]
    fn move_head(&mut self, by: i32) -> Option<()> {
        // SAFETY: the context is valid as long as the program runs, and no pointer into the frame outlives this call.
        (unsafe { bpf_xdp_adjust_head(self.0.ctx, by) } == 0).then_some(())
    }

    #[inline(always)]
    fn set_end(&mut self, end: usize) -> Option<()> {
        // SAFETY: as above; all pages count.
        unsafe {
            let length = bpf_xdp_get_buff_len(self.0.ctx);
            let by = (ETHERNET + end) as i32 - length as i32;
            (bpf_xdp_adjust_tail(self.0.ctx, by) == 0).then_some(())
        }
    }

    #[inline(always)]
    fn set_link(&mut self, macs: &[u32; 3], family: Family) -> Option<()> {
        let kind: u16 = match family {
            Family::V4 => IPV4,
            Family::V6 => IPV6,
        };
        let place = Self::place(self.0, 0, ETHERNET)?;
        // SAFETY: within the frame, as just proved; alignment as for words.
        unsafe {
            (place as *mut [u32; 3]).write(*macs);
            ((place + 12) as *mut u16).write(kind);
        }
        Some(())
    }

    #[inline(always)]
    fn macs(&self) -> Option<[u32; 3]> {
        let place = Self::place(self.0, 0, ETHERNET)? as *const [u32; 3];
        // SAFETY: within the frame, as just proved; alignment as for words.
        Some(unsafe { place.read() })
    }

    #[inline(always)]
    fn turn_link(&mut self) -> Option<()> {
        let place = Self::place(self.0, 0, ETHERNET)? as *mut [u32; 3];
        // SAFETY: within the frame, as just proved; alignment as for words.
        unsafe {
            let [a, b, c] = place.read();
            // Three pairs of bytes each: (0 1) (2 3), (4 5) (0 1), (2 3) (4 5).
            place.write([b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16]);
        }
        Some(())
    }
}

/// A pointer field of the context, loaded anew for each use: kept in a register it may be cut to the 32 bits of its field,
/// and is then no longer the pointer that the verifier takes the field for.
#[inline(always)]
fn pointer<const FIELD: usize>(ctx: &XdpContext) -> usize {
    let pointer;
    // SAFETY: reads a field of the context, which is valid as long as the program runs.
    unsafe {
        core::arch::asm!(
            "{0} = *(u32 *)({1} + {2})",
            lateout(reg) pointer,
            in(reg) ctx.ctx,
            const FIELD,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    pointer
}

#[inline(always)]
fn start_of(ctx: &XdpContext) -> usize {
    pointer::<{ core::mem::offset_of!(xdp_md, data) }>(ctx)
}

#[inline(always)]
fn end_of(ctx: &XdpContext) -> usize {
    pointer::<{ core::mem::offset_of!(xdp_md, data_end) }>(ctx)
}

/// The same value, of which the compiler knows nothing.
#[inline(always)]
fn opaque(mut value: usize) -> usize {
    // A move rather than nothing: the kernel refuses two source lines at one instruction.
    // SAFETY: a register is copied to itself.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags))
    };
    value
}

/// Time since boot in nanoseconds, without suspend, as of the last tick.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing, touches nothing.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// A TC context as a frame that can be changed.
pub struct SkbMut<'a> {
    ctx: &'a TcContext,
    /// Bytes before the network header.
    link: u32,
}

impl<'a> SkbMut<'a> {
    /// A packet whose network header is behind `link` bytes.
    #[inline(always)]
    pub const fn new(ctx: &'a TcContext, link: u32) -> Self {
        Self { ctx, link }
    }

    #[inline(always)]
    fn replace_sum(&self, offset: usize, delta: Delta, flags: u32) -> Option<()> {
        if delta.is_neutral() {
            return Some(());
        }
        let offset = self.link + offset as u32;
        // SAFETY: the helper checks the offset. With no size in the flags it adds a difference.
        let result = unsafe {
            bpf_l4_csum_replace(self.ctx.as_ptr().cast(), offset, 0, u64::from(delta.0), u64::from(flags))
        };
        (result == 0).then_some(())
    }
}

impl Frame for SkbMut<'_> {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        Skb(self.ctx).words(offset)
    }

    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        Skb(self.ctx).reaches(end)
    }
}

impl FrameMut for SkbMut<'_> {
    #[inline(always)]
    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        let (offset, size) = (self.link + offset as u32, size_of::<[u32; N]>() as u32);
        // SAFETY: the helper reads `size` bytes of `words`, which lives until it returns, and checks the offset.
        let result =
            unsafe { bpf_skb_store_bytes(self.ctx.as_ptr().cast(), offset, words.as_ptr().cast(), size, 0) };
        (result == 0).then_some(())
    }
}

impl Summed for SkbMut<'_> {
    /// The kernel knows whether the sum is complete, covered by the device, or only the pseudo header's.
    #[inline(always)]
    fn amend(&mut self, offset: usize, pseudo: Delta, covered: Delta, may_lack: bool) -> Option<()> {
        let lacking = if may_lack { BPF_F_MARK_MANGLED_0 } else { 0 };
        self.replace_sum(offset, pseudo, BPF_F_PSEUDO_HDR | lacking)?;
        self.replace_sum(offset, covered, lacking)
    }

    /// The sum that a device has made of the whole packet must follow. The kernel does that for IPv4's addresses only, whose
    /// header has a sum of its own.
    #[inline(always)]
    fn uncovered(&mut self, change: Delta) {
        // SAFETY: takes the context and a number.
        unsafe { bpf_csum_update(self.ctx.as_ptr().cast(), change.0) };
    }
}
