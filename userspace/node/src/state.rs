//! The state: keys, settings and login, and their text form with version and checksum.
//!
//! What must survive a restart and nothing else. A changed byte or a torn text is noticed; a text of a newer version is told
//! from a broken one. Deliberately not here: files (`store`), when to store (whoever changes something).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use types::{DiscoPrivate, MachinePrivate, NodePrivate};
use wire::local::{Persist, Prefs};

/// What this code writes; it reads every version up to this one.
pub(crate) const VERSION: u32 = 1;

/// Everything that must survive a restart. No `Debug`: most of it is secret.
#[derive(Clone)]
pub(crate) struct State {
    /// Who this machine is to control; for life.
    pub(crate) machine_key: MachinePrivate,
    /// The WireGuard identity; replaced when it expires or the user logs out.
    pub(crate) node_key: NodePrivate,
    /// Kept over restarts: a new one costs every peer a netmap round trip.
    pub(crate) disco_key: DiscoPrivate,
    /// The WireGuard port in use, so that peers find us again where the kernel chose it.
    pub(crate) port: Option<u16>,
    /// The DERP loopback port in use: the kernel's endpoints point to it.
    pub(crate) loopback_port: Option<u16>,
    /// The user's settings.
    pub(crate) prefs: Prefs,
    /// Who the node key is registered to; `None` while it is not.
    pub(crate) login: Option<Persist>,
    /// The server that knows the node key.
    pub(crate) login_server: String,
    /// Forwarding switches that we switched on: off again when we go down.
    pub(crate) forwarding: Vec<String>,
}

impl State {
    /// A machine that was never here before. `random` fills a key with random bytes.
    pub(crate) fn fresh(mut random: impl FnMut() -> [u8; 32]) -> Self {
        Self {
            machine_key: MachinePrivate::from_random(random()),
            node_key: NodePrivate::from_random(random()),
            disco_key: DiscoPrivate::from_random(random()),
            port: None,
            loopback_port: None,
            prefs: Prefs::new(),
            login: None,
            login_server: String::new(),
            forwarding: Vec::new(),
        }
    }
}

/// Why a text is not a state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It was written by code that knows more: its format's number.
    Newer(u32),
    /// It was cut off or changed: how that shows.
    Torn(String),
}

impl State {
    /// The state as a text.
    ///
    /// # Errors
    /// When a setting cannot be written as JSON; none is like that.
    pub(crate) fn to_text(&self) -> serde_json::Result<Vec<u8>> {
        Envelope::seal(self)
    }

    /// Back from [`Self::to_text`].
    ///
    /// # Errors
    /// See [`Broken`].
    pub(crate) fn from_text(text: &[u8]) -> Result<Self, Broken> {
        Envelope::open(text)
    }
}

/// The file's outside: version and checksum around the state's own text.
#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u32,
    sha256: String,
    state: Box<RawValue>,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Envelope {
    fn seal(state: &State) -> serde_json::Result<Vec<u8>> {
        let state = serde_json::value::to_raw_value(&Stored::from(state))?;
        let mut text = serde_json::to_vec(&Self { version: VERSION, sha256: digest(&state), state })?;
        text.push(b'\n');
        Ok(text)
    }

    fn open(bytes: &[u8]) -> Result<State, Broken> {
        let torn = |error: &dyn std::fmt::Display| Broken::Torn(error.to_string());
        let Version { version } = serde_json::from_slice(bytes).map_err(|error| torn(&error))?;
        if version > VERSION {
            return Err(Broken::Newer(version));
        }
        let envelope: Self = serde_json::from_slice(bytes).map_err(|error| torn(&error))?;
        if digest(&envelope.state) != envelope.sha256 {
            return Err(torn(&"its checksum does not match"));
        }
        let stored: Stored = serde_json::from_str(envelope.state.get()).map_err(|error| torn(&error))?;
        State::try_from(stored).map_err(|error| torn(&error))
    }
}

fn digest(state: &RawValue) -> String {
    Sha256::digest(state.get()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The state's text form: keys as Tailscale writes them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    machine_key: String,
    node_key: String,
    disco_key: String,
    port: Option<u16>,
    loopback_port: Option<u16>,
    prefs: Prefs,
    login: Option<Persist>,
    login_server: String,
    forwarding: Vec<String>,
}

impl From<&State> for Stored {
    fn from(state: &State) -> Self {
        Self {
            machine_key: state.machine_key.to_text(),
            node_key: state.node_key.to_text(),
            disco_key: state.disco_key.to_text(),
            port: state.port,
            loopback_port: state.loopback_port,
            prefs: state.prefs.clone(),
            login: state.login.clone(),
            login_server: state.login_server.clone(),
            forwarding: state.forwarding.clone(),
        }
    }
}

impl TryFrom<Stored> for State {
    type Error = types::KeyError;

    fn try_from(stored: Stored) -> Result<Self, types::KeyError> {
        Ok(Self {
            machine_key: MachinePrivate::from_text(&stored.machine_key)?,
            node_key: NodePrivate::from_text(&stored.node_key)?,
            disco_key: DiscoPrivate::from_text(&stored.disco_key)?,
            port: stored.port,
            loopback_port: stored.loopback_port,
            prefs: stored.prefs,
            login: stored.login,
            login_server: stored.login_server,
            forwarding: stored.forwarding,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Vec<u8> {
        State { port: Some(41641), ..State::fresh(|| [7; 32]) }.to_text().unwrap()
    }

    #[test]
    fn a_text_is_the_state_again() {
        let state = State::from_text(&text()).unwrap_or_else(|broken| panic!("{broken:?}"));
        let fresh = State::fresh(|| [7; 32]);
        assert!(state.machine_key == fresh.machine_key && state.disco_key == fresh.disco_key);
        assert_eq!(state.port, Some(41641));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let text = text();
        for end in 0..text.len() - 2 {
            assert!(matches!(State::from_text(&text[..end]), Err(Broken::Torn(_))), "cut at {end}");
        }
        let changed = String::from_utf8(text).unwrap().replace("41641", "41642");
        assert!(
            matches!(State::from_text(changed.as_bytes()), Err(Broken::Torn(why)) if why.contains("checksum"))
        );
    }

    #[test]
    fn a_newer_version_is_not_taken_for_a_torn_text() {
        let newer = State::from_text(br#"{"version":2,"other":"things"}"#);
        assert!(matches!(newer, Err(Broken::Newer(2))));
    }
}
