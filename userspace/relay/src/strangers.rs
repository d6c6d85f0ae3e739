//! Connections of whom nobody knows yet: bounded in all and for each address, so that strangers cannot use up memory and
//! file descriptors, nor one of them everybody's share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// At once, in all.
const MAX: usize = 4096;
/// At once, of one IPv4 address or IPv6 /64: a large office behind one NAT that comes back after an outage stays below.
const MAX_OF_ONE: usize = 512;

/// See the module. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Strangers(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// One connection's place; dropped when it has ended or its peer has shown who it is.
#[derive(Debug)]
pub struct Stranger {
    strangers: Strangers,
    network: IpAddr,
}

impl Strangers {
    /// A place for a connection from `source`, if there is one.
    pub fn admit(&self, source: IpAddr) -> Option<Stranger> {
        let network = network(source);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = counts.of.get(&network).copied().unwrap_or_default();
        if counts.all >= MAX || of_one >= MAX_OF_ONE {
            return None;
        }
        counts.all += 1;
        counts.of.insert(network, of_one + 1);
        Some(Stranger { strangers: self.clone(), network })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(of_one) = counts.of.get_mut(&self.network) {
            *of_one -= 1;
            if *of_one == 0 {
                counts.of.remove(&self.network);
            }
        }
    }
}

/// What one customer of a provider has: an IPv4 address, an IPv6 /64.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_cannot_take_all_places_and_places_come_back() {
        let strangers = Strangers::default();
        let v6 = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
        let mut held: Vec<_> = (0..MAX_OF_ONE).map(|n| strangers.admit(v6(n as u16)).unwrap()).collect();
        assert!(strangers.admit(v6(9999)).is_none(), "its /64 is full");
        let other = strangers.admit([192, 0, 2, 1].into());
        assert!(other.is_some(), "others are let in");
        held.pop();
        assert!(strangers.admit(v6(9999)).is_some());
        drop((held, other));
        let counts = strangers.0.lock().unwrap();
        assert_eq!((counts.all, counts.of.len()), (0, 0));
    }

    #[test]
    fn all_together_are_bounded() {
        let strangers = Strangers::default();
        let address = |n: usize| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
        let held: Vec<_> = (0..MAX).map_while(|n| strangers.admit(address(n))).collect();
        assert_eq!(held.len(), MAX);
        assert!(strangers.admit([192, 0, 2, 1].into()).is_none());
    }
}
