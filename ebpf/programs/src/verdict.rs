//! A reason becomes a count, a trace record if somebody listens, and a return code.

use abi::{Config, Family, Program, Reason, TRACE_DROPS, TRACE_ON, Verdict};
use aya_ebpf::{
    EbpfContext,
    bindings::{
        __sk_buff, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::generated::bpf_xdp_get_buff_len,
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::info;
use packet::{Frame, Ip};

use crate::{
    access::{Ethernet, Skb},
    maps::{CONFIG, COUNTERS},
};

/// What differs between the hooks.
pub trait Context: EbpfContext {
    /// What a program returns.
    type Code;

    /// Bytes of the packet, with its link header.
    fn bytes(&self) -> u32;

    /// The code of a verdict.
    ///
    /// "Pass" is `TC_ACT_UNSPEC` in TC, the same number as `TCX_NEXT`: programs of others on the hook still run. "Send" is
    /// back out of the same device in XDP, and where `bpf_redirect` was told in TC.
    fn code(verdict: Verdict) -> Self::Code;

    /// Logs the packet.
    fn write_trace(&self, program: Program, reason: Reason);
}

impl Context for TcContext {
    type Code = i32;

    #[inline(always)]
    fn bytes(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn code(verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Drop => TC_ACT_SHOT,
            Verdict::Send => TC_ACT_REDIRECT,
            Verdict::Pass | Verdict::Deliver => TC_ACT_UNSPEC,
        }
    }

    #[inline(always)]
    fn write_trace(&self, program: Program, reason: Reason) {
        write_trace(self.skb.skb, program as u32, reason as u32);
    }
}

impl Context for XdpContext {
    type Code = u32;

    #[inline(always)]
    fn bytes(&self) -> u32 {
        // SAFETY: the context is valid as long as the program runs.
        (unsafe { bpf_xdp_get_buff_len(self.ctx) }) as u32
    }

    #[inline(always)]
    fn code(verdict: Verdict) -> u32 {
        match verdict {
            Verdict::Drop => XDP_DROP,
            Verdict::Send => XDP_TX,
            Verdict::Pass | Verdict::Deliver => XDP_PASS,
        }
    }

    #[inline(always)]
    fn write_trace(&self, program: Program, reason: Reason) {
        write_trace_xdp(self.ctx, program as u32, reason as u32);
    }
}

/// The loader's settings; all zero before it wrote any. Read where they are: a copy would take stack.
#[inline(always)]
pub fn config() -> &'static Config {
    static NONE: Config = Config::NONE;
    CONFIG.get(0).unwrap_or(&NONE)
}

/// Counts the packet under `reason` and says what to return.
#[inline(always)]
pub fn conclude<C: Context>(ctx: &C, program: Program, reason: Reason) -> C::Code {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason.counter(program)) {
        // SAFETY: a per-CPU slot; nothing else writes it while this program runs on this CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(ctx.bytes());
        }
    }
    C::code(reason.verdict())
}

/// Whether the settings ask for a record of this packet. With tracing off, one test of a value already loaded.
#[inline(always)]
fn is_traced(config: &Config, ip: &Ip, reason: Reason) -> bool {
    if config.trace & TRACE_ON == 0 {
        return false;
    }
    if config.trace & TRACE_DROPS != 0 && !matches!(reason.verdict(), Verdict::Drop) {
        return false;
    }
    let everyone = config.trace_v4 == 0 && config.trace_v6 == [0; 4];
    everyone
        || match ip.family {
            Family::V4 => ip.source[0] == config.trace_v4 || ip.destination[0] == config.trace_v4,
            Family::V6 => ip.source == config.trace_v6 || ip.destination == config.trace_v6,
        }
}

/// Logs the packet if the settings ask for it.
#[inline(always)]
pub fn trace<C: Context>(ctx: &C, config: &Config, program: Program, ip: &Ip, reason: Reason) {
    if is_traced(config, ip, reason) {
        ctx.write_trace(program, reason);
    }
}

/// One record.
///
/// A global function: the verifier looks at it once, not again for every way that leads here, which took twenty times as
/// long as all the rest. What it takes is what such functions may take: the context and numbers; so it parses again.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_trace(skb: *mut __sk_buff, program: u32, reason: u32) -> u32 {
    let ctx = TcContext::new(skb);
    record(&ctx, &Skb(&ctx), program, reason)
}

/// The same for XDP.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_trace_xdp(ctx: *mut xdp_md, program: u32, reason: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    Ethernet::untagged(&ctx).map_or(0, |frame| record(&ctx, &frame, program, reason))
}

/// The record, as numbers that the loader puts into words: program, reason, protocol, bytes, ports, sender, receiver.
#[inline(always)]
fn record<C: Context>(ctx: &C, frame: &impl Frame, program: u32, reason: u32) -> u32 {
    let Ok(ip) = Ip::parse(frame) else { return 0 };
    let ports = match frame.words::<1>(ip.transport) {
        Some([ports])
            if matches!(ip.protocol, packet::proto::TCP | packet::proto::UDP | packet::proto::SCTP) =>
        {
            u32::from_be(ports)
        }
        _ => 0,
    };
    let bytes = ctx.bytes();
    match ip.family {
        Family::V4 => {
            let (source, destination) = (u32::from_be(ip.source[0]), u32::from_be(ip.destination[0]));
            info!(
                ctx,
                "{} {} {} {} {} {:i} {:i}", program, reason, ip.protocol, bytes, ports, source, destination
            );
        }
        Family::V6 => {
            let (source, destination) = (octets(&ip.source), octets(&ip.destination));
            info!(
                ctx,
                "{} {} {} {} {} {:i} {:i}", program, reason, ip.protocol, bytes, ports, source, destination
            );
        }
    }
    0
}

#[inline(always)]
fn octets(address: &abi::Address) -> [u8; 16] {
    // SAFETY: the same 16 bytes; any bytes are valid.
    unsafe { core::mem::transmute(*address) }
}
