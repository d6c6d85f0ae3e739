//! Vouching: whether the kernel may answer a peer's DISCO pings by itself, ahead of the machine's firewall.
//!
//! A pong says "WireGuard gets through here", so it may be given only while something says that it does: bytes of the peer
//! that the kernel's WireGuard authenticated, or DISCO of the peer that came up to us, through the same firewall and by the
//! same port. That holds until the kernel has answered for some time without either: then one ping is left to us again, and
//! comes up if the firewall lets it. So a firewall that shuts the port ends the pongs within seconds, an idle peer stays
//! vouched for, and a peer that only pings is checked now and then.
//! Deliberately not here: WireGuard failing where DISCO works (`peer`), which overrules this.

use std::time::{Duration, Instant};

use types::{DiscoPublic, NodePublic};

/// For how long the kernel answers without any sign that WireGuard gets through. A peer with something to say sends at
/// least a keepalive within ten seconds (WireGuard's KEEPALIVE_TIMEOUT).
const UNPROVEN: Duration = Duration::from_secs(12);

/// A peer whose DISCO pings the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiscoPeer {
    /// Its DISCO key.
    pub disco: DiscoPublic,
    /// Its node key, which its pings name.
    pub node: NodePublic,
    /// Whether the kernel answers them; if not, they come up to us.
    pub vouched: bool,
}

/// What is known about one peer.
#[derive(Debug, Default)]
pub(crate) struct Vouch {
    granted: bool,
    /// The kernel's first answer since the last sign.
    unproven_since: Option<Instant>,
}

impl Vouch {
    /// WireGuard gets through, or something else did by its port.
    pub(crate) fn prove(&mut self) {
        *self = Self { granted: true, unproven_since: None };
    }

    /// The kernel has answered a ping.
    pub(crate) fn note_answer(&mut self, now: Instant) {
        let since = *self.unproven_since.get_or_insert(now);
        if now >= since + UNPROVEN {
            *self = Self::default();
        }
    }

    /// What was known about the network no longer holds.
    pub(crate) fn doubt(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn is_granted(&self) -> bool {
        self.granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_without_any_sign_end_the_grant_and_a_sign_renews_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut vouch = Vouch::default();
        assert!(!vouch.is_granted(), "nothing is known yet");
        vouch.prove();
        for second in (100..112).step_by(3) {
            vouch.note_answer(at(second));
            assert!(vouch.is_granted(), "{second}");
        }
        vouch.note_answer(at(112));
        assert!(!vouch.is_granted());
        vouch.prove();
        vouch.note_answer(at(113));
        assert!(vouch.is_granted(), "counted anew");
    }

    #[test]
    fn traffic_and_silence_both_keep_the_grant() {
        let start = Instant::now();
        let mut vouch = Vouch::default();
        vouch.prove();
        for second in (0..600).step_by(3) {
            vouch.note_answer(start + Duration::from_secs(second));
            vouch.prove();
        }
        vouch.note_answer(start + Duration::from_secs(7200));
        assert!(vouch.is_granted(), "the first answer after hours of silence");
    }
}
