//! Where the node stands: one enum, a number on the bus, a word in the status (`ipn/backend.go`).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The backend's state, in the order a node passes through them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Just started; nothing read yet.
    #[default]
    NoState,
    /// Another local user holds the node; never on Linux.
    InUseOtherUser,
    /// No usable node key: waiting for an auth key or a person.
    NeedsLogin,
    /// Registered, but an administrator has not approved the machine yet.
    NeedsMachineAuth,
    /// Logged in, and told to be down.
    Stopped,
    /// Logged in; waiting for the first netmap or the data plane.
    Starting,
    /// The data plane is up.
    Running,
}

impl State {
    const ALL: [Self; 7] = [
        Self::NoState,
        Self::InUseOtherUser,
        Self::NeedsLogin,
        Self::NeedsMachineAuth,
        Self::Stopped,
        Self::Starting,
        Self::Running,
    ];

    /// The word in [`super::Status::backend_state`].
    pub fn name(self) -> &'static str {
        match self {
            Self::NoState => "NoState",
            Self::InUseOtherUser => "InUseOtherUser",
            Self::NeedsLogin => "NeedsLogin",
            Self::NeedsMachineAuth => "NeedsMachineAuth",
            Self::Stopped => "Stopped",
            Self::Starting => "Starting",
            Self::Running => "Running",
        }
    }

    /// Back from [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = usize::deserialize(deserializer)?;
        Self::ALL
            .get(number)
            .copied()
            .ok_or_else(|| serde::de::Error::custom(format!("{number} is not a backend state (0 to 6)")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_on_the_bus_and_a_word_in_the_status() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(serde_json::to_string(&state).unwrap(), number.to_string());
            assert_eq!(serde_json::from_str::<State>(&number.to_string()).unwrap(), state);
            assert_eq!(State::from_name(state.name()), Some(state));
        }
        assert!(serde_json::from_str::<State>("7").is_err());
    }
}
