//! A reason becomes a count, a trace record if somebody listens, and a return code.

use abi::{Config, Family, Program, Reason, TRACE_DROPS, TRACE_ON, Verdict};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use aya_log_ebpf::info;
use packet::{Frame as _, Ip};

use crate::maps::{CONFIG, COUNTERS};

/// The loader's settings; all zero before it wrote any.
#[inline(always)]
pub fn config() -> Config {
    CONFIG.get(0).copied().unwrap_or_default()
}

/// Counts the packet under `reason` and says what to return.
///
/// "Pass" is `TC_ACT_UNSPEC`, the same number as `TCX_NEXT`: programs of others on the hook still run.
#[inline(always)]
pub fn conclude(ctx: &TcContext, program: Program, reason: Reason) -> i32 {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason.counter(program)) {
        // SAFETY: a per-CPU slot; nothing else writes it while this program runs on this CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(ctx.len());
        }
    }
    match reason.verdict() {
        Verdict::Drop => TC_ACT_SHOT,
        Verdict::Pass | Verdict::Deliver => TC_ACT_UNSPEC,
    }
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
pub fn trace(ctx: &TcContext, config: &Config, program: Program, ip: &Ip, reason: Reason) {
    if is_traced(config, ip, reason) {
        write_trace(ctx.skb.skb, program as u32, reason as u32);
    }
}

/// One record, as numbers that the loader puts into words: program, reason, protocol, bytes, sender, receiver, ports.
///
/// A global function: the verifier looks at it once, not again for every way that leads here, which took twenty times as
/// long as all the rest. What it takes is what such functions may take: the context and numbers; so it parses again.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_trace(skb: *mut __sk_buff, program: u32, reason: u32) -> u32 {
    let ctx = TcContext::new(skb);
    let frame = crate::access::Skb(&ctx);
    let Ok(ip) = Ip::parse(&frame) else { return 0 };
    let ports = match frame.words::<1>(ip.transport) {
        Some([ports])
            if matches!(ip.protocol, packet::proto::TCP | packet::proto::UDP | packet::proto::SCTP) =>
        {
            u32::from_be(ports)
        }
        _ => 0,
    };
    let ctx = &ctx;
    match ip.family {
        Family::V4 => {
            let (source, destination) = (u32::from_be(ip.source[0]), u32::from_be(ip.destination[0]));
            info!(
                ctx,
                "{} {} {} {} {} {:i} {:i}",
                program,
                reason,
                ip.protocol,
                ctx.len(),
                ports,
                source,
                destination
            );
        }
        Family::V6 => {
            let (source, destination) = (octets(&ip.source), octets(&ip.destination));
            info!(
                ctx,
                "{} {} {} {} {} {:i} {:i}",
                program,
                reason,
                ip.protocol,
                ctx.len(),
                ports,
                source,
                destination
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
