//! Challenges of the bind handshake: proof that a client hears at the address it sends from.
//!
//! A challenge is a keyed BLAKE2s over what the handshake binds together (tailscale `net/udprelay/server.go`), and over a
//! salt of our own, so that a recorded handshake cannot be played again to move a client back to an address it had. The
//! key is replaced every two minutes and its predecessor still counts, so an answer has two minutes at least. Deliberately not here: random bytes, and what a right answer leads to (`session`).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use blake2::Blake2sMac256;
use blake2::digest::Mac;
use wire::disco::Bind;
use zeroize::Zeroizing;

/// How long a key makes challenges; it is accepted for as long again.
pub(super) const ROTATION: Duration = Duration::from_secs(120);

/// Makes every handshake's challenge another, also where number and source are the same.
pub(super) type Salt = [u8; 16];

/// The current key and the one before.
pub(super) struct Secrets {
    keys: [Option<Zeroizing<[u8; 32]>>; 2],
    rotate_at: Option<Instant>,
}

impl Secrets {
    pub(super) fn new() -> Self {
        Self { keys: [None, None], rotate_at: None }
    }

    /// The challenge of a handshake that started with `bind` from `source`.
    pub(super) fn challenge(
        &mut self,
        bind: &Bind,
        salt: &Salt,
        source: SocketAddr,
        now: Instant,
        random: impl FnOnce() -> [u8; 32],
    ) -> [u8; 32] {
        self.rotate(now, random);
        let [Some(key), _] = &self.keys else { unreachable!("rotate leaves a current key") };
        mac(key, bind, salt, source).finalize().into_bytes().into()
    }

    /// Whether `bind` carries a challenge of ours for this handshake and this source, not too old.
    pub(super) fn verify(&self, bind: &Bind, salt: &Salt, source: SocketAddr, now: Instant) -> bool {
        let Some(rotate_at) = self.rotate_at else { return false };
        // Without traffic nothing rotates; what should have been replaced meanwhile no longer counts.
        let valid = match now.saturating_duration_since(rotate_at) {
            Duration::ZERO => 2,
            late if late < ROTATION => 1,
            _ => 0,
        };
        let keys = self.keys.iter().take(valid).flatten();
        let right = |key| mac(key, bind, salt, source).verify(&bind.challenge.into()).is_ok();
        keys.fold(false, |any, key| any | right(key))
    }

    fn rotate(&mut self, now: Instant, random: impl FnOnce() -> [u8; 32]) {
        let Some(rotate_at) = self.rotate_at else {
            self.keys = [Some(Zeroizing::new(random())), None];
            self.rotate_at = Some(now + ROTATION);
            return;
        };
        if now < rotate_at {
            return;
        }
        let current = self.keys[0].take().filter(|_| now < rotate_at + ROTATION);
        self.keys = [Some(Zeroizing::new(random())), current];
        self.rotate_at = Some(now + ROTATION);
    }
}

/// VNI, generation, the other client's key, the salt, then the source as 16 bytes and a port; integers big endian.
fn mac(key: &[u8; 32], bind: &Bind, salt: &Salt, source: SocketAddr) -> Blake2sMac256 {
    let ip = match source.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut mac = <Blake2sMac256 as Mac>::new(&(*key).into());
    mac.update(&bind.vni.to_be_bytes());
    mac.update(&bind.generation.to_be_bytes());
    mac.update(bind.remote.as_bytes());
    mac.update(salt);
    mac.update(&ip.octets());
    mac.update(&source.port().to_be_bytes());
    mac
}
