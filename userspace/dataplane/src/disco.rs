//! DISCO in the kernel: whose pings it knows, the nonces of its pongs, and what it answered.
//!
//! Entries are pinned with the rest and survive us: that is what they are for. The scalar multiplication behind an entry is
//! done once a key and found again in the map by the next process. Deliberately not here: who is vouched for (`node-core`).
#![expect(unsafe_code, reason = "tokio cannot know that a descriptor stays open")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use abi::{Answered, DiscoPeer as Entry, Family, KeyWords, MAX_DISCO_PEERS, Nonces, SOURCE_BUCKETS};
use aya::maps::{Map, MapData, PerCpuValues, RingBuf};
use node_core::DiscoPeer;
use packet::crypto::{box_key, words};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use types::{DiscoPrivate, DiscoPublic};

use crate::error::chain;
use crate::maps::{Maps, gone_is_fine};
use crate::{Error, Programs};

impl Programs {
    /// Sets the peers whose DISCO pings the kernel knows. It answers those that are vouched for, also while there is no
    /// controller; the others have token buckets of their own. Peers beyond the map's size are left to the controller.
    ///
    /// # Errors
    /// When the map refuses; what was written stays, and each entry is right by itself.
    pub fn set_disco(&mut self, ours: &DiscoPrivate, peers: &[DiscoPeer]) -> Result<(), Error> {
        let own = words(ours.public().as_bytes());
        let mut known: BTreeMap<KeyWords, Entry> = self.maps.disco.iter().filter_map(Result::ok).collect();
        let mut free = Free::beside(known.values());
        for peer in peers {
            let key = words(peer.disco.as_bytes());
            let old = known.remove(&key);
            let shared = match old.filter(|old| old.own == own) {
                Some(old) => old.shared,
                None => box_key(&ours.shared(&peer.disco).0),
            };
            let Some(bucket) = old.map(|old| old.bucket).or_else(|| free.next()) else { continue };
            let entry = Entry {
                shared,
                own,
                node: words(peer.node.as_bytes()),
                bucket,
                vouched: u32::from(peer.vouched),
            };
            if old != Some(entry) {
                self.maps.disco.insert(key, entry, 0).map_err(Error::map("DISCO_PEERS"))?;
            }
        }
        for key in known.keys() {
            gone_is_fine(self.maps.disco.remove(key)).map_err(Error::map("DISCO_PEERS"))?;
        }
        Ok(())
    }

    /// How many DISCO keys the kernel knows.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn disco_peers(&self) -> Result<usize, Error> {
        self.maps
            .disco
            .keys()
            .try_fold(0, |count, key| key.map(|_| count + 1))
            .map_err(Error::map("DISCO_PEERS"))
    }

    /// Reads which pings the kernel answered, from now on. One reader at a time: records go to whoever reads.
    ///
    /// # Errors
    /// When the ring cannot be opened; needs a tokio runtime.
    pub fn answered_reader(&self) -> Result<AnsweredReader, Error> {
        let path = self.pins.map("ANSWERED");
        let failed = |cause: String| Error::Pin { path: path.clone(), cause };
        let data = MapData::from_pin(&path).map_err(|error| failed(chain(&error)))?;
        let map = Map::from_map_data(data).map_err(Error::map("ANSWERED"))?;
        let mut ring = RingBuf::try_from(map).map_err(Error::map("ANSWERED"))?;
        // What came while nobody read is of an unknown time.
        while ring.next().is_some() {}
        // SAFETY: the ring owns its descriptor, always returns that one, and closes it when it is dropped with this `AsyncFd`.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| failed(error.to_string()))?;
        Ok(AnsweredReader(ring))
    }
}

/// Makes the beginnings of nonces, unless an earlier process did: the map and its counters outlive us, and so must they.
pub(crate) fn seed_nonces(maps: &mut Maps) -> Result<(), Error> {
    let failed = Error::map("NONCES");
    let known = maps.nonces.get(&0, 0).map_err(&failed)?;
    // All CPUs are written in one call, so either all have a beginning or none. Who has one may be counting.
    if known.iter().any(|nonces| nonces.prefix != [0; 4]) {
        return Ok(());
    }
    let seeded = known.iter().map(|_| random().map(|prefix| Nonces { prefix, count: 0 }));
    let values = PerCpuValues::try_from(seeded.collect::<Result<Vec<_>, _>>()?)
        .map_err(|error| failed(aya::maps::MapError::IoError(error)))?;
    maps.nonces.set(0, values, 0).map_err(failed)
}

/// Random words.
pub(crate) fn random<const N: usize>() -> Result<[u32; N], Error> {
    let mut words = [0; N];
    for word in &mut words {
        *word = getrandom::u32().map_err(|error| Error::Random(error.to_string()))?;
    }
    Ok(words)
}

/// Buckets that no entry has.
struct Free {
    taken: BTreeSet<u32>,
    next: u32,
}

impl Free {
    fn beside<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        Self { taken: entries.map(|entry| entry.bucket).collect(), next: SOURCE_BUCKETS }
    }

    fn next(&mut self) -> Option<u32> {
        let end = SOURCE_BUCKETS + MAX_DISCO_PEERS;
        let found = (self.next..end).find(|bucket| !self.taken.contains(bucket))?;
        self.next = found + 1;
        Some(found)
    }
}

/// A ping that the kernel answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredPing {
    /// Whose: its DISCO key.
    pub disco: DiscoPublic,
    /// Where it came from and the pong went.
    pub source: SocketAddr,
    /// Its transaction.
    pub tx_id: [u8; 12],
}

impl AnsweredPing {
    fn of(record: &Answered) -> Self {
        let ip = if record.family == Family::V4 as u8 {
            IpAddr::V4(Ipv4Addr::from(record.source[0].to_ne_bytes()))
        } else {
            IpAddr::V6(Ipv6Addr::from(bytes::<4, 16>(&record.source)))
        };
        Self {
            disco: DiscoPublic::from_bytes(bytes(&record.key)),
            source: SocketAddr::new(ip, u16::from_be_bytes(record.port)),
            tx_id: bytes(&record.tx_id),
        }
    }
}

fn bytes<const W: usize, const B: usize>(words: &[u32; W]) -> [u8; B] {
    std::array::from_fn(|at| words[at / 4].to_ne_bytes()[at % 4])
}

/// Reads records as they come.
pub struct AnsweredReader(AsyncFd<RingBuf<MapData>>);

impl AnsweredReader {
    /// The next records, at least one. Can be dropped and called again without losing any.
    ///
    /// # Errors
    /// When the runtime cannot wait for the ring.
    pub async fn next(&mut self) -> std::io::Result<Vec<AnsweredPing>> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            let ring = ready.get_inner_mut();
            let mut found = Vec::new();
            while let Some(item) = ring.next() {
                found.extend(read(&item).as_ref().map(AnsweredPing::of));
            }
            ready.clear_ready();
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
}

/// A record out of its bytes; none if it has another size.
fn read(item: &[u8]) -> Option<Answered> {
    let (words, rest) = item.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    let (key, words) = words.split_first_chunk()?;
    let (source, words) = words.split_first_chunk()?;
    let (tx_id, words) = words.split_first_chunk()?;
    let ([last], []) = (words, rest) else { return None };
    let [p0, p1, family, zero] = last.to_ne_bytes();
    Some(Answered { key: *key, source: *source, tx_id: *tx_id, port: [p0, p1], family, zero })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let record = Answered {
            key: [1, 2, 3, 4, 5, 6, 7, 8],
            source: [u32::from_ne_bytes([192, 0, 2, 7]), 0, 0, 0],
            tx_id: [9, 10, 11],
            port: 41_641_u16.to_be_bytes(),
            family: 4,
            zero: 0,
        };
        let words = [&record.key[..], &record.source, &record.tx_id].concat();
        let mut item: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        item.extend([record.port[0], record.port[1], record.family, record.zero]);
        assert_eq!(item.len(), size_of::<Answered>());
        assert_eq!(read(&item), Some(record));
        assert_eq!(AnsweredPing::of(&record).source, "192.0.2.7:41641".parse().unwrap());
        assert_eq!(read(&item[1..]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn buckets_in_use_are_not_given_again() {
        let taken = [SOURCE_BUCKETS, SOURCE_BUCKETS + 2].map(|bucket| Entry { bucket, ..Entry::default() });
        let mut free = Free::beside(taken.iter());
        assert_eq!([free.next(), free.next()], [Some(SOURCE_BUCKETS + 1), Some(SOURCE_BUCKETS + 3)]);
    }
}
