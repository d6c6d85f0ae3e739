//! Chores: what the daemon itself wants to do later, each at most once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Something to do later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Chore {
    /// Write the netmap beside the state file.
    SaveNetmap,
    /// Read the underlay again: a storm of changes is over.
    ReadUnderlay,
    /// Apply what is desired once more: it failed, or somebody took a part of it away.
    Reapply,
    /// Look whether our firewall table is still there.
    CheckFirewall,
    /// Look whether the machine's own firewall lets WireGuard in.
    LookAtFirewall,
    /// Control does not confirm the logout: log out without it.
    LogoutUnheard,
}

impl Chore {
    /// How long it may wait.
    fn delay(self) -> Duration {
        match self {
            Self::SaveNetmap => Duration::from_secs(1),
            Self::ReadUnderlay => Duration::from_millis(100),
            Self::Reapply => Duration::from_secs(2),
            Self::CheckFirewall => Duration::from_secs(30),
            Self::LookAtFirewall => Duration::from_secs(10),
            Self::LogoutUnheard => Duration::from_secs(5),
        }
    }
}

/// How soon is soon.
const HURRY: Duration = Duration::from_millis(100);

/// The chores to do and when.
#[derive(Default)]
pub(crate) struct Chores(BTreeMap<Chore, Instant>);

impl Chores {
    /// Asks for a chore; one that is waiting already keeps its time.
    pub(crate) fn ask(&mut self, chore: Chore, now: Instant) {
        self.0.entry(chore).or_insert_with(|| now + chore.delay());
    }

    /// Asks for a chore soon, whatever was asked before: a storm of reasons is one.
    pub(crate) fn hurry(&mut self, chore: Chore, now: Instant) {
        let soon = now + HURRY;
        self.0.entry(chore).and_modify(|at| *at = (*at).min(soon)).or_insert(soon);
    }

    /// Not needed any more; says whether it was asked for.
    pub(crate) fn cancel(&mut self, chore: Chore) -> bool {
        self.0.remove(&chore).is_some()
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// Takes one that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Chore> {
        let chore = *self.0.iter().find(|(_, at)| **at <= now)?.0;
        self.0.remove(&chore);
        Some(chore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_changes_is_one_chore_and_is_not_put_off_for_ever() {
        let start = Instant::now();
        let mut chores = Chores::default();
        chores.ask(Chore::ReadUnderlay, start);
        chores.ask(Chore::ReadUnderlay, start + Duration::from_millis(90));
        assert_eq!(chores.pop(start + Duration::from_millis(99)), None);
        assert_eq!(chores.next(), Some(start + Duration::from_millis(100)));
        assert_eq!(chores.pop(start + Duration::from_millis(100)), Some(Chore::ReadUnderlay));
        assert_eq!(chores.next(), None);
        assert!(!chores.cancel(Chore::ReadUnderlay));
    }
}
