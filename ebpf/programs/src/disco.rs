//! `disco`, XDP behind `underlay`: answers the DISCO pings of peers that the controller vouches for, in place.
//!
//! So a dead or hung controller costs no direct path, and a live one no wake-up. What is not answered passes, and `steer`
//! hands it to the controller.

use abi::{Answered, DiscoPeer, KeyWords, Program};
use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};
use packet::{Datagram, Ip, bucket, disco::Disco};

use crate::{
    access::{Ethernet, now},
    maps::{ANSWERED, BUCKETS_FULL, DISCO_PEERS, NONCES, SEALED, SHIELD},
    verdict::{conclude, config, trace},
};

#[xdp(frags)]
pub fn disco(ctx: XdpContext) -> u32 {
    let Some(mut frame) = Ethernet::untagged(&ctx) else { return XDP_PASS };
    let Some(datagram) = Datagram::parse(&frame) else { return XDP_PASS };
    let Some(work) = SEALED.get_ptr_mut(0) else { return XDP_PASS };
    // SAFETY: a per-CPU slot; nothing else touches it while this program runs on this CPU.
    let reason = packet::disco::answer(&mut frame, &datagram, &Maps, unsafe { &mut *work });
    // Parsed again, so that nothing of it is kept meanwhile: with what answering takes the stack is full.
    if config().trace != 0
        && let Ok(ip) = Ip::parse(&frame)
    {
        trace(&ctx, config(), Program::Disco, &ip, reason);
    }
    conclude(&ctx, Program::Disco, reason)
}

/// Takes a token from a bucket, unless the shield is off.
#[inline(always)]
pub fn take(place: u32) -> bool {
    if SHIELD.get(0).is_none_or(|shield| shield.on == 0) {
        return true;
    }
    let Some(full_at) = BUCKETS_FULL.get_ptr_mut(place) else { return true };
    // SAFETY: one aligned word; a lost race is a token taken twice.
    bucket::take(unsafe { &mut *full_at }, now())
}

/// What places sources in buckets.
#[inline(always)]
pub fn seed() -> u32 {
    SHIELD.get(0).map_or(0, |shield| shield.seed)
}

/// The kernel's maps as what answering looks things up in.
struct Maps;

impl Disco for Maps {
    #[inline(always)]
    fn peer(&self, key: &KeyWords) -> Option<&DiscoPeer> {
        // SAFETY: entries are replaced as a whole, and an old one lives as long as this program runs.
        unsafe { DISCO_PEERS.get(key) }
    }

    #[inline(always)]
    fn take(&self, bucket: u32) -> bool {
        take(bucket)
    }

    #[inline(always)]
    fn seed(&self) -> u32 {
        seed()
    }

    #[inline(always)]
    fn nonce(&self) -> Option<[u32; 6]> {
        let nonces = NONCES.get_ptr_mut(0)?;
        // SAFETY: a per-CPU slot; nothing else counts it while this program runs on this CPU.
        let nonces = unsafe { &mut *nonces };
        let [p0, p1, p2, p3] = nonces.prefix;
        if p0 | p1 | p2 | p3 == 0 {
            return None;
        }
        nonces.count += 1;
        Some([p0, p1, p2, p3, nonces.count as u32, (nonces.count >> 32) as u32])
    }

    #[inline(always)]
    fn report(&self, key: &KeyWords, datagram: &Datagram, tx_id: [u32; 3]) {
        // A full ring: nobody reads, and who will read forgets what is old.
        let Some(mut record) = ANSWERED.reserve::<Answered>(0) else { return };
        let place = record.as_mut_ptr();
        // SAFETY: reserved for us until it is submitted. Field by field, for the stack has not the room.
        unsafe {
            (*place).key = *key;
            (*place).source = datagram.ip.source;
            (*place).tx_id = tx_id;
            (*place).port = datagram.source_port;
            (*place).family = datagram.ip.family as u8;
            (*place).zero = 0;
        }
        record.submit(0);
    }
}
