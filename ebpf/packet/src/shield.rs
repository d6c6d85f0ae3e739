//! What on WireGuard's port cannot be valid, judged ahead of the kernel's queue for handshakes.
//!
//! The kernel checks a handshake's first MAC only in a worker, behind a queue of 4,096 that junk can fill
//! (`drivers/net/wireguard/receive.c`, `wg_packet_receive`). Here junk dies first: wrong sizes, then wrong MACs. Whoever
//! knows our public key passes, and meets the kernel's own cookies and limits, which are left alone; so is the silence to
//! strangers. Deliberately not here: the second MAC, and the types whose MAC needs a session.

use abi::{Reason, Shield};

use crate::Frame;
use crate::crypto::{Hash, blake2s};

/// Bytes of an initiation and of a response, and of the two MACs at their ends (WireGuard paper, section 5.4).
const INITIATION: usize = 148;
const RESPONSE: usize = 92;
const MACS: usize = 32;

/// What makes a MAC with this public key: once a key, in userspace.
pub fn mac1_state(public: &[u8; 32]) -> [u32; 8] {
    let mut labelled = [0; 40];
    labelled[..8].copy_from_slice(b"mac1----");
    labelled[8..].copy_from_slice(public);
    Hash::keyed(&blake2s(&labelled)).state
}

/// Judges the `len` bytes of payload at `offset` that are neither DISCO nor STUN: [`Reason::NotOurs`] unless it is a
/// handshake or claims to be WireGuard with a size that its type cannot have.
#[inline(always)]
pub fn judge(frame: &impl Frame, offset: usize, len: usize, shield: &Shield, hash: &mut Hash) -> Reason {
    let Some([kind]) = frame.words::<1>(offset) else { return Reason::NotOurs };
    match (u32::from_le(kind), len) {
        (1, INITIATION) => verdict(initiation_is_ours(frame, offset, shield, hash)),
        (2, RESPONSE) => verdict(response_is_ours(frame, offset, shield, hash)),
        // A cookie, for which the kernel looks the handshake up first; and data.
        (3, 64) | (4, 32..) => Reason::NotOurs,
        (1..=4, _) => Reason::WrongSize,
        _ => Reason::NotOurs,
    }
}

#[inline(always)]
const fn verdict(is_ours: Option<bool>) -> Reason {
    match is_ours {
        Some(true) => Reason::Handshake,
        Some(false) => Reason::BadMac1,
        None => Reason::NotOurs,
    }
}

#[inline(always)]
fn initiation_is_ours(frame: &impl Frame, offset: usize, shield: &Shield, hash: &mut Hash) -> Option<bool> {
    hash.state = shield.mac1;
    hash.block = block(frame.words(offset)?, frame.words(offset + 16)?, frame.words(offset + 32)?, {
        frame.words(offset + 48)?
    });
    hash.take(64);
    let [last] = frame.words(offset + 112)?;
    hash.block = block(
        frame.words(offset + 64)?,
        frame.words(offset + 80)?,
        frame.words(offset + 96)?,
        [last, 0, 0, 0],
    );
    Some(is_same(hash.finish((INITIATION - MACS) as u32), frame.words(offset + INITIATION - MACS)?))
}

#[inline(always)]
fn response_is_ours(frame: &impl Frame, offset: usize, shield: &Shield, hash: &mut Hash) -> Option<bool> {
    hash.state = shield.mac1;
    let [a, b, c] = frame.words(offset + 48)?;
    hash.block =
        block(frame.words(offset)?, frame.words(offset + 16)?, frame.words(offset + 32)?, [a, b, c, 0]);
    Some(is_same(hash.finish((RESPONSE - MACS) as u32), frame.words(offset + RESPONSE - MACS)?))
}

/// A block out of its quarters, which need not be in memory at once.
#[inline(always)]
const fn block(a: [u32; 4], b: [u32; 4], c: [u32; 4], d: [u32; 4]) -> [u32; 16] {
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}

/// Compared without a branch on how much is the same.
#[inline(always)]
const fn is_same(a: [u32; 4], b: [u32; 4]) -> bool {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
}
