//! Explain: what is known of every way to a peer, which one is used, and why each other is not.
//!
//! Made on request from the same values the choice is made of, so that it cannot tell another story. Deliberately not here:
//! the choice itself (`paths`, `peer`), and how it is printed (the command).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::output::Via;
use crate::score::{Kind, Score};

/// One peer's ways at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Every way, the one in use first, then by score.
    pub ways: Vec<Way>,
    /// Where the kernel was last seen or told to send.
    pub kernel: Option<SocketAddr>,
    /// Whether packets went to or came from the peer in the last 45 s: only then are paths kept up.
    pub active: bool,
}

/// One way.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// The path, or the DERP region.
    pub via: Via,
    /// Who named it.
    pub sources: Vec<&'static str>,
    /// How long ago it was last pinged.
    pub pinged: Option<Duration>,
    /// How long ago it last answered.
    pub answered: Option<Duration>,
    /// The last round trip.
    pub latency: Option<Duration>,
    /// How good it is, once it has answered.
    pub score: Option<Score>,
    /// Whether it is used, and why.
    pub verdict: Verdict,
}

/// Why a way is used or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answers, and no other that does is better.
    Best,
    /// The kernel went there by itself: it is tried.
    Trial,
    /// No path answers.
    LastResort,
    /// A path answers: DERP is not needed.
    NotNeeded,
    /// The one used is of a better kind, this one's is here.
    WorseKind(Kind),
    /// The one used leaves by an uplink that the routes prefer.
    LessPreferred,
    /// The one used is faster, by round trips as they are weighed.
    Slower,
    /// It is no more than a percent faster than the one used: changing for that would flap.
    NotWorthIt,
    /// It was never pinged.
    Untried,
    /// It was pinged and never answered.
    NeverAnswered,
    /// Its last answer is too old.
    Silent,
    /// It was in use, and a series of pings stayed without an answer.
    Dead,
    /// It answers, but WireGuard does not get through: a firewall, most likely.
    Blocked,
}

impl Verdict {
    /// Whether packets go this way.
    pub fn is_used(self) -> bool {
        matches!(self, Self::Best | Self::Trial | Self::LastResort)
    }

    /// Why a path that answers loses against the one in use.
    pub(crate) fn against(score: Score, used: Score) -> Self {
        match score {
            _ if score.kind > used.kind => Self::WorseKind(score.kind),
            _ if score.metric > used.metric && score.kind == used.kind => Self::LessPreferred,
            _ if score < used => Self::NotWorthIt,
            _ => Self::Slower,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Best => "used: it answers, and nothing better does",
            Self::Trial => "used: packets came from there, and a ping finds out about it",
            Self::LastResort => "used: no path answers",
            Self::NotNeeded => "not needed: a path answers",
            Self::WorseKind(Kind::Lan | Kind::Wan) => "lost: the one used is on the local network",
            Self::WorseKind(_) => "lost: the one used is direct",
            Self::LessPreferred => "lost: the routes prefer the uplink of the one used",
            Self::Slower => "lost: slower than the one used",
            Self::NotWorthIt => "lost: not a percent faster than the one used",
            Self::Untried => "not tried yet",
            Self::NeverAnswered => "no answer yet",
            Self::Silent => "its last answer is too old",
            Self::Dead => "found dead: packets left and neither packets nor pongs came",
            Self::Blocked => "left for a while: it answers, but WireGuard does not get through (a firewall?)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loser_is_told_by_what_it_lost() {
        let score = |kind, metric, ms| Score { kind, metric, cost: Duration::from_millis(ms) };
        let used = score(Kind::Wan, 100, 1000);
        for (loser, verdict) in [
            (score(Kind::Relay, 0, 10), Verdict::WorseKind(Kind::Relay)),
            (score(Kind::Wan, 200, 10), Verdict::LessPreferred),
            (score(Kind::Wan, 100, 1200), Verdict::Slower),
            (score(Kind::Wan, 100, 995), Verdict::NotWorthIt),
        ] {
            assert_eq!(Verdict::against(loser, used), verdict);
        }
    }
}
