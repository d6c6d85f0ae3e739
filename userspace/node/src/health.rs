//! Health: everything that is wrong now, from the core, from control and from the daemon itself, in Tailscale's two forms.
//!
//! A warning has a stable code; setting it again replaces its text. Deliberately not here: who notices (everybody).

use std::collections::BTreeMap;

use jiff::Timestamp;
use node_core::Warning;
use wire::local::{HealthState, Severity, UnhealthyState};

/// Codes of what the daemon notices itself; Tailscale's where it has them (`tsconst/health.go`).
pub(crate) mod code {
    /// Control cannot be reached or refuses us.
    pub(crate) const CONTROL: &str = "not-in-map-poll";
    /// The login failed or has to be repeated.
    pub(crate) const LOGIN: &str = "login-state";
    /// The kernel is not what it should be.
    pub(crate) const KERNEL: &str = "router";
    /// Our table of nftables, or forwarding.
    pub(crate) const FIREWALL: &str = "firewall";
    /// The machine's own firewall drops WireGuard.
    pub(crate) const HOST_FIREWALL: &str = "host-firewall";
    /// The state file cannot be written.
    pub(crate) const STATE: &str = "state-store";
    /// The state file was torn and the one before is in use; stands until the next start, because writing mends only the file.
    pub(crate) const STATE_TORN: &str = "state-torn";
    /// This machine's clock is wrong.
    pub(crate) const CLOCK: &str = "clock";
    /// The peer relay does not run although it was asked for.
    pub(crate) const PEER_RELAY: &str = "peer-relay";
    /// A map response could not be used as a whole.
    pub(crate) const MAP: &str = "bad-map";
}

/// The daemon's own warnings and since when each warning stands.
#[derive(Default)]
pub(crate) struct Health {
    own: BTreeMap<&'static str, String>,
    since: BTreeMap<String, Timestamp>,
}

impl Health {
    /// Sets the warning of that code; says whether anything changed.
    pub(crate) fn set(&mut self, code: &'static str, text: impl Into<String>) -> bool {
        let text = text.into();
        let changed = self.own.get(code) != Some(&text);
        if changed {
            tracing::warn!(code, "{text}");
            self.own.insert(code, text);
        }
        changed
    }

    /// Takes the warning of that code back; says whether there was one.
    pub(crate) fn clear(&mut self, code: &'static str) -> bool {
        self.own.remove(code).is_some()
    }

    /// Every warning as a sentence, for `status`.
    pub(crate) fn sentences(&self, core: &[Warning]) -> Vec<String> {
        self.own.values().cloned().chain(core.iter().map(|warning| warning.text.clone())).collect()
    }

    /// Every warning with its code, for the bus.
    pub(crate) fn state(&mut self, core: &[Warning], now: Timestamp) -> HealthState {
        let own = self.own.iter().map(|(code, text)| ((*code).to_owned(), text.clone()));
        let core = core.iter().map(|warning| (warning.code.to_owned(), warning.text.clone()));
        let all: BTreeMap<String, String> = own.chain(core).collect();
        self.since.retain(|code, _| all.contains_key(code));
        let entry = |(code, text): (String, String)| {
            let since = *self.since.entry(code.clone()).or_insert(now);
            let state = UnhealthyState {
                warnable_code: code.clone(),
                severity: Severity::Medium,
                title: code.replace('-', " "),
                text,
                broken_since: Some(since),
                ..UnhealthyState::default()
            };
            (code, state)
        };
        HealthState { warnings: all.into_iter().map(entry).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_stands_since_it_was_first_seen_and_until_it_is_cleared() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let core = [Warning { code: "no-udp", text: "UDP is blocked.".into() }];
        let mut health = Health::default();
        assert!(health.set(code::CONTROL, "control is away"));
        assert!(!health.set(code::CONTROL, "control is away"));
        let state = health.state(&core, at(10));
        assert_eq!(state.warnings.len(), 2);
        let state = health.state(&core, at(20));
        assert_eq!(state.warnings[code::CONTROL].broken_since, Some(at(10)));
        assert!(health.clear(code::CONTROL) && !health.clear(code::CONTROL));
        assert_eq!(health.sentences(&core), ["UDP is blocked."]);
    }
}
