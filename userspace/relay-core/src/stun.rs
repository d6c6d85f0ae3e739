//! STUN answers: only to our own kind of request, never larger than worth forging, bounded per source.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use wire::stun;

use crate::{Rate, TokenBucket};

/// Sources share buckets by hash, so that the table never grows.
const BUCKETS: usize = 1024;

/// What came of the packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StunCounters {
    /// Requests answered.
    pub answered: u64,
    /// Packets that are no request of our kind.
    pub foreign: u64,
    /// Requests from addresses that cannot be a client's.
    pub bogus_source: u64,
    /// Requests over the rate of their source.
    pub limited: u64,
}

/// Answers binding requests.
#[derive(Debug)]
pub struct StunServer {
    rate: Rate,
    seed: u64,
    buckets: Vec<Option<TokenBucket>>,
    counters: StunCounters,
}

impl StunServer {
    /// With `rate` requests a second from one IPv4 address or IPv6 /64. `seed`, random, hides which sources share a bucket.
    pub fn new(rate: Rate, seed: u64) -> Self {
        Self { rate, seed, buckets: vec![None; BUCKETS], counters: StunCounters::default() }
    }

    /// The answer to a packet from `source`, if it deserves one.
    pub fn answer(&mut self, packet: &[u8], source: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        let Ok(tx_id) = stun::decode_request(packet) else {
            self.counters.foreign += 1;
            return None;
        };
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        if !may_be_client(source) {
            self.counters.bogus_source += 1;
            return None;
        }
        let index = self.bucket_index(source.ip());
        let bucket = self.buckets[index].get_or_insert_with(|| TokenBucket::new(self.rate, now));
        if !bucket.try_take(1, now) {
            self.counters.limited += 1;
            return None;
        }
        self.counters.answered += 1;
        Some(stun::encode_response(tx_id, source))
    }

    /// What came of the packets so far.
    pub fn counters(&self) -> StunCounters {
        self.counters
    }

    /// FNV-1a over the seed and the address, /64 for IPv6.
    fn bucket_index(&self, ip: IpAddr) -> usize {
        let network = match ip {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        let bytes = self.seed.to_be_bytes().into_iter().chain(network.to_be_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash >> 32) as usize % BUCKETS
    }
}

/// An answer to these would go to many, to nobody, or to ourselves.
fn may_be_client(source: SocketAddr) -> bool {
    let ip = source.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    source.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 1, burst: 2 };

    #[test]
    fn a_request_is_answered_with_its_source() {
        let mut server = StunServer::new(RATE, 1);
        let request = stun::encode_request(stun::TxId([5; 12]));
        let source = "192.0.2.1:4242".parse().unwrap();
        let answer = server.answer(&request, source, Instant::now()).unwrap();
        assert_eq!(stun::decode_response(&answer), Ok((stun::TxId([5; 12]), source)));
        let mapped = "[::ffff:192.0.2.1]:4242".parse().unwrap();
        let answer = server.answer(&request, mapped, Instant::now()).unwrap();
        assert_eq!(stun::decode_response(&answer), Ok((stun::TxId([5; 12]), source)));
    }

    #[test]
    fn strangers_forgers_and_floods_get_nothing() {
        let mut server = StunServer::new(RATE, 1);
        let now = Instant::now();
        let request = stun::encode_request(stun::TxId([5; 12]));
        let source = "192.0.2.1:4242".parse().unwrap();
        assert_eq!(server.answer(&request[..39], source, now), None);
        for bogus in ["192.0.2.1:0", "0.0.0.0:1", "255.255.255.255:1", "224.0.0.1:1", "[ff02::1]:1"] {
            assert_eq!(server.answer(&request, bogus.parse().unwrap(), now), None, "{bogus}");
        }
        let answered = (0..5).filter(|_| server.answer(&request, source, now).is_some()).count();
        assert_eq!(answered, 2);
        let expected = StunCounters { answered: 2, foreign: 1, bogus_source: 5, limited: 3 };
        assert_eq!(server.counters(), expected);
    }
}
