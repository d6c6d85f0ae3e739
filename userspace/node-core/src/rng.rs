//! Random bytes from the shell's seed: SHA-256 of seed and counter.
//!
//! Transaction ids must not be guessed and nonces must not repeat; both hold while the seed is secret and fresh. Same seed,
//! same bytes: tests repeat.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A stream of random blocks.
pub(crate) struct Rng {
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
}

impl Rng {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed: Zeroizing::new(seed), counter: 0 }
    }

    /// `N` random bytes, at most 32.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 32) };
        self.counter += 1;
        let block =
            Sha256::new().chain_update(*self.seed).chain_update(self.counter.to_be_bytes()).finalize();
        *block.first_chunk().expect("a hash has 32 bytes")
    }

    /// A number below `limit`, which is small against 2^64 and not zero.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        u64::from_be_bytes(self.bytes()) % limit
    }
}
