//! `shield`, XDP behind `underlay`: what on WireGuard's port cannot be valid, or comes too often, dies ahead of the kernel.

use abi::{Program, Reason};
use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};
use packet::{Class, Datagram, bucket, classify, shield::judge};

use crate::{
    access::Ethernet,
    disco::{seed, take},
    maps::{HASH, SHIELD},
    verdict::{conclude, config, trace},
};

#[xdp(frags)]
pub fn shield(ctx: XdpContext) -> u32 {
    let Some(shield) = SHIELD.get(0).filter(|shield| shield.on != 0) else { return XDP_PASS };
    let Some(frame) = Ethernet::untagged(&ctx) else { return XDP_PASS };
    let Some(datagram) = Datagram::parse(&frame) else { return XDP_PASS };
    let Datagram { ip, payload, len, .. } = datagram;
    let Some(hash) = HASH.get_ptr_mut(0) else { return XDP_PASS };
    let reason = match classify(&frame, payload, len) {
        Class::Stun if take(bucket::of_source(seed(), ip.family, &ip.source)) => return XDP_PASS,
        Class::Stun => Reason::ResponseLimited,
        // SAFETY: a per-CPU slot; nothing else touches it while this program runs on this CPU.
        _ => judge(&frame, payload, len, shield, unsafe { &mut *hash }),
    };
    if reason == Reason::NotOurs {
        return XDP_PASS;
    }
    trace(&ctx, config(), Program::Shield, &ip, reason);
    conclude(&ctx, Program::Shield, reason)
}
