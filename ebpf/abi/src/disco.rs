//! DISCO pings answered in the kernel, and the shield in front of WireGuard's handshakes.
//!
//! Words of keys are in memory order, which on every machine the programs run on is little endian.

use crate::Address;

/// DISCO keys the kernel can know.
pub const MAX_DISCO_PEERS: u32 = 16_384;
/// Token buckets of sources nobody vouches for, found by hash: sources with the same hash share one.
pub const SOURCE_BUCKETS: u32 = 16_384;
/// All token buckets: behind those of the sources, one of each known DISCO key.
pub const BUCKETS: u32 = SOURCE_BUCKETS + MAX_DISCO_PEERS;
/// Bytes of the ring in which answered pings are told to the controller: some hundreds.
pub const ANSWERED_RING: u32 = 65_536;

/// A public key as words.
pub type KeyWords = [u32; 8];

/// Value of `DISCO_PEERS`, found by the peer's DISCO key. Complete in itself, so that no order of writes pairs one key's
/// secret with another key's header. Secret: no `Debug`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DiscoPeer {
    /// The key of the NaCl box between our DISCO key and the peer's.
    pub shared: KeyWords,
    /// Our own public DISCO key: what the pong's header says.
    pub own: KeyWords,
    /// The peer's node key, which its pings name.
    pub node: KeyWords,
    /// Place of its token bucket, below [`BUCKETS`].
    pub bucket: u32,
    /// 1: answer its pings. 0: leave them to the controller.
    pub vouched: u32,
}

/// Value of `NONCES`, one a CPU. Both fields live and die together, so no nonce comes twice: not on two CPUs, nor after a
/// restart (the map stays) or a reboot (the prefix is new). The controller's own nonces are 24 random bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Nonces {
    /// Random, written by the loader when the map is new; zero: not yet, and nothing is answered.
    pub prefix: [u32; 4],
    /// Used up to here.
    pub count: u64,
}

/// A record of `ANSWERED`: a ping that got its pong from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Answered {
    /// The peer's DISCO key.
    pub key: KeyWords,
    /// Where the ping came from.
    pub source: Address,
    /// The ping's transaction.
    pub tx_id: [u32; 3],
    /// Port of `source`, network order.
    pub port: [u8; 2],
    /// A [`crate::Family`].
    pub family: u8,
    /// Zero.
    pub zero: u8,
}

/// Value of `SHIELD`. All zero is valid: everything passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Shield {
    /// BLAKE2s under the key of our handshakes' first MAC, behind the block of the key (WireGuard paper, section 5.4.4).
    pub mac1: KeyWords,
    /// 1: drop what cannot be valid and what comes too often. 0: off.
    pub on: u32,
    /// Random: what places sources in buckets.
    pub seed: u32,
}
