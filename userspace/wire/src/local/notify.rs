//! The bus: what changed, streamed to whoever watches (`ipn/backend.go`).

use std::collections::BTreeMap;
use std::ops::BitOr;

use serde::{Deserialize, Serialize};
use types::{NodeId, StableNodeId, UserId};

use super::answer::{Empty, NetworkMap};
use super::{EngineStatus, HealthState, Prefs, State, Status, go};
use crate::control::{ClientVersion, Node, PeerChange, UserProfile};

/// What a watcher wants to hear; a number in the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyMask(pub u64);

/// The bits of a mask contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyMaskError {
    /// Deltas cannot be merged or delayed.
    #[error("NotifyRateLimit is incompatible with new-style IPN bus subscription bits")]
    RateLimitedDeltas,
    /// The bit is for callers inside Tailscale's daemon.
    #[error("NotifyInProcessNoDisconnect is only valid for in-process IPN bus subscribers")]
    InProcess,
}

impl NotifyMask {
    /// Engine counters, every two seconds.
    pub const ENGINE_UPDATES: Self = Self(1 << 0);
    /// First message carries state and login URL.
    pub const INITIAL_STATE: Self = Self(1 << 1);
    /// First message carries the prefs.
    pub const INITIAL_PREFS: Self = Self(1 << 2);
    /// First message carries the netmap.
    pub const INITIAL_NETMAP: Self = Self(1 << 3);
    /// First message carries the health state.
    pub const INITIAL_HEALTH: Self = Self(1 << 7);
    /// Merge what comes too often.
    pub const RATE_LIMIT: Self = Self(1 << 8);
    /// First message carries the newest known version.
    pub const INITIAL_CLIENT_VERSION: Self = Self(1 << 11);
    /// Peers added, replaced, removed.
    pub const PEER_CHANGES: Self = Self(1 << 12);
    /// No netmaps after the first message.
    pub const NO_NETMAP: Self = Self(1 << 13);
    /// First message carries the status.
    pub const INITIAL_STATUS: Self = Self(1 << 14);
    /// Peer changes field by field where possible; implies [`Self::PEER_CHANGES`].
    pub const PEER_PATCHES: Self = Self(1 << 15);
    /// Not for clients of the socket.
    pub const IN_PROCESS: Self = Self(1 << 16);

    /// Whether any bit of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Refuses contradictions, with Tailscale's words.
    ///
    /// # Errors
    /// When rate limiting is combined with deltas, or a bit is not for clients.
    pub fn check(self) -> Result<(), NotifyMaskError> {
        let deltas = Self::PEER_CHANGES | Self::NO_NETMAP | Self::INITIAL_STATUS | Self::PEER_PATCHES;
        if self.has(Self::IN_PROCESS) {
            return Err(NotifyMaskError::InProcess);
        }
        if self.has(Self::RATE_LIMIT) && self.has(deltas) {
            return Err(NotifyMaskError::RateLimitedDeltas);
        }
        Ok(())
    }
}

impl BitOr for NotifyMask {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One message of the bus; what is absent has not changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Notify {
    /// The daemon's version.
    pub version: String,
    /// Names the watch; first message only.
    #[serde(rename = "SessionID", skip_serializing_if = "String::is_empty")]
    pub session_id: String,
    /// Something is badly wrong; ends an `up` that waits.
    pub err_message: Option<String>,
    /// The login succeeded.
    pub login_finished: Option<Empty>,
    /// The new state.
    pub state: Option<State>,
    /// The new settings.
    pub prefs: Option<Prefs>,
    /// Our own node changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_change: Option<Box<Node>>,
    /// See [`NotifyMask::INITIAL_STATUS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_status: Option<Box<Status>>,
    /// See [`NotifyMask::INITIAL_NETMAP`]; never afterwards, as on every Linux node.
    #[serde(rename = "NetMap")]
    pub net_map: Option<Box<NetworkMap>>,
    /// Fields of peers that changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peer_changed_patch: Vec<PeerChange>,
    /// Peers that are new or were replaced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers_changed: Vec<Node>,
    /// Peers that are gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers_removed: Vec<NodeId>,
    /// Users that the peers above belong to.
    #[serde(with = "go::nil", skip_serializing_if = "BTreeMap::is_empty")]
    pub user_profiles: BTreeMap<UserId, UserProfile>,
    /// Counters; see [`NotifyMask::ENGINE_UPDATES`].
    pub engine: Option<EngineStatus>,
    /// A person should open this URL now.
    #[serde(rename = "BrowseToURL")]
    pub browse_to_url: Option<String>,
    /// A newer version of the software.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_version: Option<ClientVersion>,
    /// Taildrive shares; always null here.
    #[serde(with = "go::nil")]
    pub drive_shares: Vec<serde_json::Value>,
    /// The new health state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
    /// The exit node that fits best now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_exit_node: Option<StableNodeId>,
}

impl Notify {
    /// What of it a watcher with `mask` may hear; none when nothing is left.
    pub fn filtered(&self, mask: NotifyMask) -> Option<Self> {
        let mut notify = self.clone();
        if !mask.has(NotifyMask::ENGINE_UPDATES) {
            notify.engine = None;
        }
        if !mask.has(NotifyMask::PEER_CHANGES | NotifyMask::PEER_PATCHES) {
            notify.peers_changed.clear();
            notify.peers_removed.clear();
            notify.user_profiles.clear();
        }
        if !mask.has(NotifyMask::PEER_PATCHES) {
            notify.peer_changed_patch.clear();
        }
        let nothing = Self { version: notify.version.clone(), ..Self::default() };
        (notify != nothing).then_some(notify)
    }
}
