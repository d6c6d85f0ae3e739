//! What the local API asks of the event loop: one closed enum, each request with the channel its answer goes back on.
//!
//! The HTTP side has already judged who asks and whether the body makes sense. The loop answers every request exactly
//! once; dropping a reply channel tells the client that the node is shutting down. Deliberately not here: HTTP, permissions.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot};
use types::NodePublic;
use wire::control::DerpMap;
use wire::local::{
    EngineStatus, HealthState, LoginProfile, MaskedPrefs, Netcheck, NetworkMap, Notify, Options, PeerPaths,
    PeerRelaySessions, PingResult, PingType, Prefs, ReloadConfigResponse, State, Status, TraceLine,
    WhoIsResponse,
};

/// Where the answer to one request goes.
pub type Reply<T> = oneshot::Sender<T>;

/// How many messages a slow watcher of the bus may lag behind before it is cut off.
pub const BUS_CAPACITY: usize = 128;

/// One request to the event loop.
pub enum Request {
    /// The status; without peers it must stay cheap on large networks.
    Status {
        /// Whether to fill in the peers and their users.
        peers: bool,
        /// The answer.
        reply: Reply<Status>,
    },
    /// The settings as they are, with [`wire::local::Persist`] once registered.
    Prefs {
        /// The answer.
        reply: Reply<Prefs>,
    },
    /// Changes some settings; `WantRunning` brings the node up or down. Answers with all settings, after they are stored.
    EditPrefs {
        /// What to change.
        edit: MaskedPrefs,
        /// The answer.
        reply: Reply<Result<Prefs, Refusal>>,
    },
    /// Whether these settings could be applied; changes nothing.
    CheckPrefs {
        /// The settings.
        prefs: Prefs,
        /// The answer.
        reply: Reply<Result<(), Refusal>>,
    },
    /// Replaces the settings, and registers with the auth key where there is no node key yet or a new one was given.
    /// Answers when that has begun; the bus tells how it ends.
    Start {
        /// Settings and auth key.
        options: Options,
        /// The answer.
        reply: Reply<Result<(), Refusal>>,
    },
    /// Begins an interactive login; the bus tells the URL.
    LoginInteractive {
        /// The answer, when it has begun.
        reply: Reply<Result<(), Refusal>>,
    },
    /// Expires the node key at control and takes the data plane away.
    Logout {
        /// The answer, when it is done.
        reply: Reply<Result<(), Refusal>>,
    },
    /// Who has an address or a key.
    WhoIs {
        /// The address or key.
        whom: Whom,
        /// None: nobody in the netmap.
        reply: Reply<Option<WhoIsResponse>>,
    },
    /// One ping. The loop gives up by itself within some seconds, with [`PingResult::err`] set.
    Ping {
        /// An overlay address or one behind a subnet router.
        ip: IpAddr,
        /// Which layer.
        kind: PingType,
        /// Payload size of a disco ping, 0 for the smallest.
        size: usize,
        /// The answer.
        reply: Reply<PingResult>,
    },
    /// A subscription to the bus together with the state at that moment, so that nothing is missed between.
    Watch {
        /// The answer.
        reply: Reply<Watch>,
    },
    /// Counters for watchers that asked for them.
    Engine {
        /// The answer.
        reply: Reply<EngineStatus>,
    },
    /// The DERP map; none before the first netmap.
    DerpMap {
        /// The answer.
        reply: Reply<Option<DerpMap>>,
    },
    /// The netmap; none before the first one.
    NetMap {
        /// The answer.
        reply: Reply<Option<Box<NetworkMap>>>,
    },
    /// The one login profile; empty id when never logged in.
    Profile {
        /// The answer.
        reply: Reply<LoginProfile>,
    },
    /// Counters and gauges in Prometheus' text format, `# TYPE` lines included.
    Metrics {
        /// The answer.
        reply: Reply<String>,
    },
    /// The sessions of this node's peer relay.
    RelaySessions {
        /// The answer.
        reply: Reply<PeerRelaySessions>,
    },
    /// The relays that this node may ask, by overlay address.
    RelayServers {
        /// The answer.
        reply: Reply<Vec<IpAddr>>,
    },
    /// Measures the underlay by STUN over the WireGuard port.
    Netcheck {
        /// The answer, within some seconds.
        reply: Reply<Result<Netcheck, Refusal>>,
    },
    /// Every path, and why it is used or not.
    Paths {
        /// To this peer only.
        peer: Option<NodePublic>,
        /// The answer.
        reply: Reply<Vec<PeerPaths>>,
    },
    /// Switches the programs' trace on until the receiver is dropped.
    Trace {
        /// Only packets of this peer.
        peer: Option<NodePublic>,
        /// Only packets that were dropped.
        drops: bool,
        /// The lines as they come.
        reply: Reply<Result<mpsc::Receiver<TraceLine>, Refusal>>,
    },
    /// Reads the configuration file again.
    ReloadConfig {
        /// The answer.
        reply: Reply<ReloadConfigResponse>,
    },
    /// Ends the map stream so that control counts us as offline, while packets keep moving.
    DisconnectControl {
        /// The answer.
        reply: Reply<()>,
    },
    /// Ends the daemon; the data plane stays.
    Shutdown {
        /// The answer, before it ends.
        reply: Reply<()>,
    },
}

/// Whom a `whois` asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Who has this address or routes it.
    Addr(IpAddr),
    /// Whose key this is.
    Key(NodePublic),
}

/// The bus from one moment on.
pub struct Watch {
    /// The state at that moment.
    pub state: State,
    /// The settings at that moment.
    pub prefs: Prefs,
    /// The URL a person should open, while that is waited for.
    pub browse_to_url: Option<String>,
    /// What is wrong at that moment.
    pub health: HealthState,
    /// Everything after that moment. Unfiltered: the local API applies each watcher's mask. `Notify::version` may be empty.
    pub updates: broadcast::Receiver<Arc<Notify>>,
}

/// Why a request was not carried out, as a person should read it: what, where, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request makes no sense or is not supported.
    #[error("{0}")]
    Invalid(String),
    /// Not in the present state (not logged in, no netmap).
    #[error("{0}")]
    NotNow(String),
    /// Tried, and failed.
    #[error("{0}")]
    Failed(String),
}
