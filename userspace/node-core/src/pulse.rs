//! A pulse: whether the path in use is alive, and how it is asked when that is in doubt.
//!
//! A path proves itself by pongs and by authenticated packets that come by it. When packets leave and nothing comes, when a
//! heartbeat stays unanswered, or when the peer speaks by another way, pings follow each other closely; if none of them is
//! answered the path is dead, long before its trust would end (tailscale waits for 6.5 s). A peer that only receives
//! answers pings, so one-way traffic is no alarm.
//!
//! ```text
//!   heard ---- quiet for 250 ms (one-way: 800 ms), or doubted ----> asked
//!   asked ---- a pong, or packets by this path ------------------> heard
//!   asked ---- five pings unanswered, 150 ms apart --------------> dead
//! ```
//!
//! Deliberately not here: sending, and where to go instead (`paths`).

use std::time::{Duration, Instant};

use crate::path::Path;

/// Packets leave and none come: asked after this, where packets came both ways before. Less than two looks at the kernel.
const QUIET: Duration = Duration::from_millis(250);
/// The same where only pongs came: one-way traffic costs about a ping a second.
const QUIET_ONE_WAY: Duration = Duration::from_millis(800);
/// Between two pings that ask; longer where the path itself takes longer.
const PAUSE: Duration = Duration::from_millis(150);
/// How many pings ask a path, at most.
const PINGS: u32 = 5;
/// After so many all other paths are asked as well, so that one is known when this one is given up.
const ALONE: u32 = 2;
/// The most often a doubt from outside is heeded.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);
/// How many pings settle such a doubt: the peer has asked in vain already.
const PINGS_IN_DOUBT: u32 = 2;

/// What is to be done about a path in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Ping it once more.
    Ask(Path),
    /// Ping it and all others.
    AskAll(Path),
    /// It is dead.
    Dead(Path),
}

/// Pings that wait for an answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    count: u32,
    next: Instant,
    pause: Duration,
}

/// The pulse of the path in use.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    path: Option<Path>,
    /// The last proof of life.
    heard: Option<Instant>,
    /// Whether packets were the proof, so that more would come if the path lived.
    two_way: bool,
    asked: Option<Asked>,
    doubted: Option<Instant>,
}

impl Pulse {
    /// Follows the path in use. A new one begins with the proof that made it that.
    pub(crate) fn follow(&mut self, path: Option<Path>, now: Instant) {
        if self.path != path {
            *self = Self { path, heard: path.map(|_| now), ..Self::default() };
        }
    }

    /// A pong came by `path`.
    pub(crate) fn note_pong(&mut self, path: Path, now: Instant) {
        if self.path == Some(path) {
            (self.heard, self.asked) = (Some(now), None);
        }
    }

    /// Authenticated packets came by `path`.
    pub(crate) fn note_packets(&mut self, path: Path, now: Instant) {
        if self.path == Some(path) {
            (self.heard, self.asked, self.two_way) = (Some(now), None, true);
        }
    }

    /// Packets left and none came. `latency` is the path's round trip.
    pub(crate) fn note_silence(&mut self, latency: Duration, now: Instant) {
        let quiet = if self.two_way { QUIET } else { QUIET_ONE_WAY };
        if self.heard.is_some_and(|at| now >= at + quiet) {
            // Until packets come again, pongs are all there is to hear.
            self.two_way = false;
            self.ask(0, latency, now);
        }
    }

    /// A heartbeat went out by `path`: it is the first ping that asks.
    pub(crate) fn note_heartbeat(&mut self, path: Path, latency: Duration, now: Instant) {
        if self.path == Some(path) && self.asked.is_none() {
            self.ask(1, latency, now);
            self.asked = self.asked.map(|asked| Asked { next: now + asked.pause, ..asked });
        }
    }

    /// The peer spoke by another way although this path is trusted.
    pub(crate) fn doubt(&mut self, latency: Duration, now: Instant) {
        if self.path.is_some() && self.doubted.is_none_or(|at| now >= at + DOUBT_INTERVAL) {
            (self.doubted, self.asked) = (Some(now), None);
            self.ask(PINGS - PINGS_IN_DOUBT, latency, now);
        }
    }

    /// When [`Self::beat`] has something to do.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.asked.map(|asked| asked.next)
    }

    /// What is due.
    pub(crate) fn beat(&mut self, now: Instant) -> Option<Beat> {
        let path = self.path?;
        let asked = self.asked.as_mut().filter(|asked| now >= asked.next)?;
        let most = u32::try_from((PAUSE * PINGS).as_nanos() / asked.pause.as_nanos()).unwrap_or(PINGS).max(2);
        if asked.count >= most {
            *self = Self::default();
            return Some(Beat::Dead(path));
        }
        asked.count += 1;
        asked.next = now + asked.pause;
        Some(if asked.count == ALONE + 1 || asked.count == most {
            Beat::AskAll(path)
        } else {
            Beat::Ask(path)
        })
    }

    /// Begins to ask, as if `count` pings had gone unanswered already.
    fn ask(&mut self, count: u32, latency: Duration, now: Instant) {
        self.asked.get_or_insert(Asked { count, next: now, pause: PAUSE.max(latency * 5 / 4) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(20);

    struct Fixture {
        pulse: Pulse,
        start: Instant,
    }

    fn path() -> Path {
        Path::direct(([192, 0, 2, 1], 1).into())
    }

    impl Fixture {
        fn new() -> Self {
            let (mut pulse, start) = (Pulse::default(), Instant::now());
            pulse.follow(Some(path()), start);
            Self { pulse, start }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// What it does until `end`, each with its time.
        fn beats(&mut self, end: u64) -> Vec<(u64, Beat)> {
            let mut beats = Vec::new();
            while let Some(at) = self.pulse.next().filter(|at| *at <= self.at(end)) {
                let ms = u64::try_from((at - self.start).as_millis()).unwrap();
                beats.extend(self.pulse.beat(at).map(|beat| (ms, beat)));
            }
            beats
        }
    }

    #[test]
    fn a_path_that_goes_silent_is_asked_five_times_and_dead_in_a_second() {
        let mut f = Fixture::new();
        f.pulse.note_packets(path(), f.at(1000));
        f.pulse.note_silence(FAST, f.at(1249));
        assert_eq!(f.beats(1249), [], "one look without packets is nothing");
        f.pulse.note_silence(FAST, f.at(1250));
        let expected = [
            (1250, Beat::Ask(path())),
            (1400, Beat::Ask(path())),
            (1550, Beat::AskAll(path())),
            (1700, Beat::Ask(path())),
            (1850, Beat::AskAll(path())),
            (2000, Beat::Dead(path())),
        ];
        assert_eq!(f.beats(9000), expected);
    }

    #[test]
    fn a_pong_ends_the_doubt_and_one_way_traffic_costs_a_ping_a_second() {
        let mut f = Fixture::new();
        f.pulse.note_packets(path(), f.at(0));
        let mut pings = 0;
        for look in 1..=40 {
            let ms = look * 250;
            f.pulse.note_silence(FAST, f.at(ms));
            for (_, beat) in f.beats(ms) {
                assert_eq!(beat, Beat::Ask(path()));
                pings += 1;
                f.pulse.note_pong(path(), f.at(ms + 20));
            }
        }
        assert!(pings <= 11, "{pings} pings in 10 s");
    }

    #[test]
    fn an_unanswered_heartbeat_is_followed_up_unless_packets_come() {
        let mut f = Fixture::new();
        f.pulse.note_heartbeat(path(), FAST, f.at(3000));
        assert_eq!(f.beats(3149), []);
        assert_eq!(f.beats(3150), [(3150, Beat::Ask(path()))]);
        f.pulse.note_packets(path(), f.at(3200));
        assert_eq!(f.beats(9000), [], "WireGuard lives, whatever became of the pongs");
    }

    #[test]
    fn a_peer_that_speaks_by_another_way_is_believed_sooner() {
        let mut f = Fixture::new();
        f.pulse.note_packets(path(), f.at(1000));
        f.pulse.doubt(FAST, f.at(1100));
        let beats = f.beats(9000);
        let expected = [(1100, Beat::Ask(path())), (1250, Beat::AskAll(path())), (1400, Beat::Dead(path()))];
        assert_eq!(beats, expected);
    }

    #[test]
    fn a_far_path_is_given_the_time_it_needs() {
        let mut f = Fixture::new();
        f.pulse.note_heartbeat(path(), Duration::from_millis(600), f.at(3000));
        let beats = f.beats(9000);
        assert_eq!(beats, [(3750, Beat::AskAll(path())), (4500, Beat::Dead(path()))]);
    }

    #[test]
    fn a_new_path_begins_alive_and_the_old_ones_pings_are_forgotten() {
        let mut f = Fixture::new();
        f.pulse.note_heartbeat(path(), FAST, f.at(3000));
        let other = Path::direct(([192, 0, 2, 2], 1).into());
        f.pulse.follow(Some(other), f.at(3100));
        assert_eq!(f.beats(9000), []);
        f.pulse.note_silence(FAST, f.at(3800));
        assert_eq!(f.beats(3800), [], "700 ms are no silence on one-way traffic");
    }
}
