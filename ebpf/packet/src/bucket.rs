//! Token buckets of constant size: one word each, the time at which the bucket is full again.
//!
//! A bucket is found by a keyed hash of its source, and sources with the same hash share it. So the table cannot be filled,
//! nothing is ever evicted, and a source that floods takes from itself and from one other in thousands. Who spoofs its
//! source at random takes from all that nobody vouches for, which is why known peers have buckets of their own.

use abi::{Address, Family, SOURCE_BUCKETS};

/// Between two tokens, in nanoseconds: twenty a second.
pub const INTERVAL: u64 = 50_000_000;
/// Tokens in a full bucket: a peer pings each of our addresses at once, and so may all peers behind one address.
pub const BURST: u64 = 64;

/// Takes a token if there is one (the "generic cell rate algorithm"). Two CPUs at once may take the same one; that is
/// all that can go wrong.
#[inline(always)]
pub fn take(full_at: &mut u64, now: u64) -> bool {
    let from = if *full_at > now { *full_at } else { now };
    // A clock that was reset by a reboot finds the map gone too, so a time far ahead cannot be.
    if from - now > (BURST - 1) * INTERVAL {
        return false;
    }
    *full_at = from + INTERVAL;
    true
}

/// The bucket of a source: an IPv4 address, or the /64 of an IPv6 address, which is what one host can use at will.
#[inline(always)]
pub fn of_source(seed: u32, family: Family, source: &Address) -> u32 {
    let low = match family {
        Family::V4 => 0,
        Family::V6 => source[1],
    };
    // Two rounds of MurmurHash3's mixing, with its constants, and its end.
    let mut hash = mix(mix(seed, source[0]), low);
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^= hash >> 16;
    hash % SOURCE_BUCKETS
}

#[inline(always)]
const fn mix(hash: u32, word: u32) -> u32 {
    let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ word).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (mut bucket, start) = (0, 5 * SECOND);
        let burst = (0..1000).filter(|_| take(&mut bucket, start)).count();
        assert_eq!(burst as u64, BURST);
        let steady = (1..=10_000).filter(|ms| take(&mut bucket, start + ms * SECOND / 1000)).count();
        assert_eq!(steady as u64, 10 * SECOND / INTERVAL);
        let later = start + 10 * SECOND + BURST * INTERVAL;
        assert_eq!((0..1000).filter(|_| take(&mut bucket, later)).count() as u64, BURST, "full again");
    }

    #[test]
    fn a_flood_from_few_sources_leaves_nearly_all_others_their_buckets() {
        let place = |seed, host: u32| of_source(seed, Family::V4, &[host, 0, 0, 0]);
        for seed in [1, 0x9e37_79b9] {
            let flooding: std::collections::HashSet<u32> =
                (0..100_u32).map(|host| place(seed, 0x0a00_0001 + (host << 24))).collect();
            let hurt = (0..10_000).filter(|host| flooding.contains(&place(seed, 0x0001_a8c0 + host))).count();
            assert!(flooding.len() >= 98 && hurt < 120, "{} buckets, {hurt} of 10,000 hurt", flooding.len());
        }
    }

    #[test]
    fn one_host_has_one_bucket_however_many_addresses_it_takes() {
        let place = |address| of_source(7, Family::V6, &address);
        assert_eq!(place([0xfd, 1, 2, 3]), place([0xfd, 1, 9, 9]));
        assert_ne!(place([0xfd, 1, 2, 3]), place([0xfd, 2, 2, 3]));
        assert_ne!(of_source(7, Family::V4, &[1, 0, 0, 0]), of_source(8, Family::V4, &[1, 0, 0, 0]));
    }
}
