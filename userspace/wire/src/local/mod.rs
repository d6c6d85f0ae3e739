//! Tailscale's LocalAPI: the JSON a node and its command line exchange over a unix socket.
//!
//! Field names, the order of fields and the difference between "absent", `null` and empty follow Go's `encoding/json` of the
//! structs in `ipn`, `ipn/ipnstate` and `client/tailscale/apitype`, so that the stock `tailscale` command and every script
//! written for `tailscale status --json` read us. Unknown fields are ignored, missing ones are zero.
//! Deliberately not here: paths, permissions and HTTP (`node::local_api`), and what a node does with a request.

mod answer;
mod engine;
mod extra;
mod go;
mod health;
mod notify;
mod peer_relay;
mod ping;
mod prefs;
mod state;
mod status;

pub use answer::{
    CheckPrefsResponse, Empty, ExitNodeSuggestion, LoginProfile, NetworkMap, NetworkProfile, Options,
    ReloadConfigResponse, WarningResponse, WhoIsResponse,
};
pub use engine::{EngineStatus, PeerStatusLite};
pub use extra::{DataPlane, DropCount, Netcheck, PathReport, PathScore, PeerPaths, SteeredDevice, TraceLine};
pub use health::{HealthState, Severity, UnhealthyState};
pub use notify::{Notify, NotifyMask, NotifyMaskError};
pub use peer_relay::{PeerRelayClient, PeerRelayReport, PeerRelaySession, PeerRelaySessions};
pub use ping::{PingResult, PingType, UnknownPingType};
pub use prefs::{
    AppConnectorPrefs, AutoUpdateMask, AutoUpdatePrefs, MaskedPrefs, NetfilterMode, Persist, Pref, Prefs,
};
pub use state::State;
pub use status::{ExitNodeStatus, PeerStatus, Status, TailnetStatus};

/// The Host header of every request; anything else is refused (`client/tailscale/apitype/apitype.go`).
pub const HOST: &str = "local-tailscaled.sock";
/// What every path starts with.
pub const PREFIX: &str = "/localapi/v0/";
