//! The backend's state (`ipn/backend.go`): one word for where the node stands, as a pure function of a few facts.
//!
//! The event loop collects the facts and announces the state whenever it changes. Deliberately not here: what is done in a
//! state; that follows from the facts themselves.

use wire::local::State;

/// Everything the state depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The user wants the tunnel up.
    pub(crate) want_running: bool,
    /// The user logged out on purpose.
    pub(crate) logged_out: bool,
    /// Control knows our node key.
    pub(crate) registered: bool,
    /// Our node key has expired, or control refused it: only a new login helps.
    pub(crate) expired: bool,
    /// A login is under way that needs no person: with an auth key, or again with a known node key.
    pub(crate) logging_in: bool,
    /// An administrator has approved the machine, as far as the netmap says.
    pub(crate) authorized: bool,
    /// There is a netmap, received or cached.
    pub(crate) has_netmap: bool,
    /// The kernel is what the netmap wants.
    pub(crate) plane_up: bool,
}

impl Facts {
    /// The state.
    pub(crate) fn state(self) -> State {
        match self {
            Self { logged_out: true, .. } | Self { expired: true, .. } => State::NeedsLogin,
            Self { registered: false, logging_in: false, .. } => State::NeedsLogin,
            Self { want_running: false, .. } => State::Stopped,
            Self { has_netmap: false, .. } => State::Starting,
            Self { authorized: false, .. } => State::NeedsMachineAuth,
            Self { plane_up: false, .. } => State::Starting,
            _ => State::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Facts = Facts {
        want_running: true,
        logged_out: false,
        registered: true,
        expired: false,
        logging_in: false,
        authorized: true,
        has_netmap: true,
        plane_up: true,
    };

    #[track_caller]
    fn check(facts: Facts, state: State) {
        assert_eq!(facts.state(), state, "{facts:?}");
    }

    #[test]
    fn the_way_from_nothing_to_running_with_an_auth_key() {
        let mut facts = Facts::default();
        check(facts, State::NeedsLogin);
        (facts.want_running, facts.logging_in) = (true, true);
        check(facts, State::Starting);
        (facts.logging_in, facts.registered) = (false, true);
        check(facts, State::Starting);
        (facts.has_netmap, facts.authorized) = (true, false);
        check(facts, State::NeedsMachineAuth);
        facts.authorized = true;
        check(facts, State::Starting);
        facts.plane_up = true;
        check(facts, State::Running);
    }

    #[test]
    fn down_and_up_again_keep_the_login() {
        check(Facts { want_running: false, plane_up: false, ..UP }, State::Stopped);
        check(UP, State::Running);
    }

    #[test]
    fn logout_and_expiry_need_a_login_whatever_else_is_true() {
        check(Facts { logged_out: true, ..UP }, State::NeedsLogin);
        check(Facts { expired: true, ..UP }, State::NeedsLogin);
    }

    #[test]
    fn an_interactive_login_waits_for_a_person() {
        let waiting = Facts { want_running: true, ..Facts::default() };
        check(waiting, State::NeedsLogin);
    }
}
