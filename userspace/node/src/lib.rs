//! The node's daemon: owns sockets, clocks and files, and lets `node-core` decide.
//!
//! [`run`] starts it from a [`Config`] and returns when it was told to stop. One event loop (`event_loop`) takes one closed
//! enum of inputs, hands each to the sans-IO core, and carries out what it answers. Stopping the daemon keeps the data
//! plane: packets go on, and the next start adopts what is there.
//!
//! | file | noun |
//! |---|---|
//! | `start`, `event_loop`, `daemon` | the daemon: from its parts to its end, its inputs, its outputs |
//! | `login`, `identity`, `control`, `backend` | registration, the node key, the control client, the state everybody sees |
//! | `requests`, `settings`, `pings`, `local_api` | what people and programs ask and change |
//! | `answers`, `metrics`, `health` | what they are told |
//! | `plane`, `kernel`, `device`, `router`, `underlay` | the data plane: known, written, its device and firewall, what is below |
//! | `sockets`, `derp`, `queue`, `peer_relay` | packets of our own, and of those who meet on our relay |
//! | `state`, `store`, `config`, `config_file`, `hostinfo`, `chores` | what is stored, given, told and put off |
//!
//! Deliberately not here: decisions about paths, netmaps and filters (`node-core`), programs and their maps (`dataplane`),
//! the command line (`cli`).

mod answering;
mod answers;
mod backend;
mod chores;
mod config;
mod config_file;
pub mod control;
mod daemon;
mod derp;
mod device;
mod error;
mod event_loop;
mod firewall;
mod gateway;
mod health;
mod hostinfo;
mod identity;
mod kernel;
pub mod local_api;
mod login;
mod metrics;
mod netcheck;
mod paths;
mod peer_relay;
mod pings;
mod plane;
mod portmap;
mod queue;
mod requests;
mod router;
mod settings;
mod sockets;
mod start;
mod state;
mod store;
mod systemd;
mod underlay;

pub use config::{
    Config, DEFAULT_DEVICE, DEFAULT_PORT, DEFAULT_RULE_PRIORITY, DEFAULT_TABLE, DEFAULT_UNDERLAY_TABLE,
    FastPath, Steer, WireguardMode,
};
pub use dataplane::DEFAULT_FLOWS;
pub use error::Error;

/// Runs the daemon until SIGTERM, SIGINT or a `shutdown` request.
///
/// The data plane (device, routes, rules, programs) stays when it returns; only `down` and `logout` take it away.
///
/// # Errors
/// When something the node cannot do without is missing or taken; see [`Error::exit_code`].
pub async fn run(config: Config) -> Result<(), Error> {
    start::run(config).await
}

/// Random bytes for a key, a seed or a token.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("Linux gives random bytes to every process");
    bytes
}
