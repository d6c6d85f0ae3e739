//! Start: from a [`Config`] to a running event loop, in the order that answers peers soonest.
//!
//! What can be wrong is looked for first, each with an error of its own. Then the core gets the cached netmap, and DISCO is
//! answered before control is asked. Deliberately not here: making the data plane, which follows from the core's first wish.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime};

use netlink::{Handle, Watch};
use nix::errno::Errno;
use node_core::{Clock, Node};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};
use transport::tls::Trust;
use wire::local::State as BackendState;

use crate::answering::Answering;
use crate::chores::Chores;
use crate::config_file::ConfigFile;
use crate::daemon::Daemon;
use crate::event_loop::{self, Input, Sources};
use crate::health::{Health, code};
use crate::hostinfo::Machine;
use crate::identity::{core_config, core_prefs};
use crate::kernel::{self, Command};
use crate::local_api::{self, BUS_CAPACITY};
use crate::login::{Attempt, Login};
use crate::metrics::Traffic;
use crate::netcheck::Netcheck;
use crate::portmap::Portmap;
use crate::sockets::{Controller, Loopback, RawSender};
use crate::state::State;
use crate::store::Store;
use crate::systemd::Systemd;
use crate::underlay::{self, Snapshot};
use crate::{Config, Error, derp, device, random};

/// Inputs that wait for the loop before tasks are slowed down.
const INPUTS: usize = 1024;
/// Requests of the local API that wait for the loop.
const REQUESTS: usize = 64;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn run(config: Config) -> Result<(), Error> {
    check_device_name(&config.device)?;
    let raw_needs = |error| privilege("opening raw sockets", error);
    let config_file =
        config.config_file.as_deref().map(ConfigFile::read).transpose().map_err(Error::Config)?;
    let store = Store::open(&config.state_dir)?;
    let loaded = store.load()?;
    let mut health = Health::default();
    if let Some(warning) = loaded.warning {
        health.set(code::STATE_TORN, warning);
    }
    let mut state = loaded.state.unwrap_or_else(|| State::fresh(random));
    if let Some(file) = &config_file {
        state.prefs.apply(&file.edit);
    }
    let port = wireguard_port(&config, &state)?;
    let raw = RawSender::open(port).map_err(raw_needs)?;
    let controller = Controller::open().map_err(|error| Error::system("opening the DISCO sockets", error))?;
    let loopback = Arc::new(open_loopback(state.loopback_port)?);
    (state.port, state.loopback_port) = (Some(port), Some(loopback.port()));

    let netlink = Handle::open().map_err(|error| Error::system("opening netlink", error))?;
    let watch = Watch::open().map_err(|error| Error::system("watching the kernel's network", error))?;
    let listener = local_api::listen(&config.socket)?;
    let (sender, tasks) = mpsc::channel(INPUTS);
    let mut daemon = Assembly { config, config_file, store, state, health, raw, loopback: loopback.clone() }
        .assemble(netlink, controller.port(), sender)?;
    if device::find(&daemon.netlink, &daemon.device_spec()).await?.is_none() {
        device::check_port(port)?;
    }
    daemon.store.save(&daemon.state)?;
    let (requester, requests) = mpsc::channel(REQUESTS);
    tokio::spawn(local_api::serve(listener, requester));
    daemon.begin().await;
    daemon.systemd.ready();
    let watchdog = daemon.systemd.interval().map(tokio::time::interval);
    let on = |kind| signal(kind).map_err(|error| Error::system("waiting for signals", error));
    let (terminate, interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let sources =
        Sources { tasks, requests, controller, loopback, netlink: watch, watchdog, terminate, interrupt };
    event_loop::run(daemon, sources).await
}

/// Parts of a daemon that were made one by one, each with its own error.
struct Assembly {
    config: Config,
    config_file: Option<ConfigFile>,
    store: Store,
    state: State,
    health: Health,
    raw: RawSender,
    loopback: Arc<Loopback>,
}

impl Assembly {
    fn assemble(
        self,
        netlink: Handle,
        controller_port: u16,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Daemon, Error> {
        let Self { config, config_file, store, state, health, raw, loopback } = self;
        let trust = Trust::system(None).map_err(|error| Error::Config(error.to_string()))?;
        let dropped = Arc::new(AtomicU64::new(0));
        let derp_context = Arc::new(derp::Context {
            key: state.node_key.clone(),
            trust: trust.clone(),
            inputs: inputs.clone(),
            dropped: dropped.clone(),
        });
        let port = state.port.unwrap_or(config.port);
        let spec = device::Spec::new(&config, state.node_key.clone(), port);
        let options = kernel::Options {
            spec,
            table: config.table,
            underlay_table: config.underlay_table,
            rule_priority: config.rule_priority,
            fast_path: config.fast_path,
            flows: config.flows,
            steer: config.steer,
            answering: Answering::new(state.disco_key.clone(), config.shield),
            controller_port,
            switched: state.forwarding.clone(),
        };
        let kernel = kernel::start(options, inputs.clone())?;
        let portmap_inputs = inputs.clone();
        let clock = Clock { now: Instant::now(), wall: SystemTime::now() };
        let login = Login::with_key(config_file.as_ref().and_then(|file| file.auth_key.clone()));
        Ok(Daemon {
            machine: Machine::read(state.machine_key.public()),
            node: Node::new(core_config(&state, port, loopback.port()), clock, random()),
            login,
            trust,
            inputs,
            derp_context,
            regions: BTreeMap::new(),
            derp_dropped: dropped,
            raw,
            loopback,
            netlink,
            underlay: Snapshot::default(),
            kernel,
            plane: None,
            answered: None,
            vouched: 0,
            steered: Vec::new(),
            relay: None,
            tsmp: None,
            held: Some(Vec::new()),
            traffic: Traffic::default(),
            health,
            bus: broadcast::Sender::new(BUS_CAPACITY),
            announced: BackendState::NoState,
            pings: BTreeMap::new(),
            waiting_for_down: Vec::new(),
            chores: Chores::default(),
            portmap: Portmap::new(config.port_mapping, portmap_inputs),
            netcheck: Netcheck::default(),
            systemd: Systemd::from_env(),
            config,
            config_file,
            store,
            state,
        })
    }
}

impl Daemon {
    /// The first inputs: what is known without asking anybody; then control is asked.
    async fn begin(&mut self) {
        let now = Instant::now();
        match underlay::read(&self.netlink, &self.config.device).await {
            Ok(snapshot) => self.on_underlay(snapshot, now),
            Err(error) => tracing::warn!(%error, "the underlay cannot be read"),
        }
        self.node.set_static_endpoints(self.config.static_endpoints.clone(), now);
        self.node.handle_prefs(core_prefs(&self.state.prefs), now);
        if let Some(map) = self.state.login.as_ref().and_then(|_| self.store.load_netmap()) {
            self.node.handle_map(map, now);
        }
        if self.state.login.is_none() && self.login.auth_key.is_some() {
            self.login.attempt = Attempt::Alone;
        }
        self.drain(now);
        self.follow_relay();
        if self.relay.is_none() {
            self.order(Command::Relay(0, Vec::new()));
        }
        if !self.state.prefs.want_running {
            self.order(Command::Rest);
        }
        self.connect();
    }
}

/// The port to use: as asked, else the one of the last run, else a free one.
fn wireguard_port(config: &Config, state: &State) -> Result<u16, Error> {
    if config.port != 0 {
        return Ok(config.port);
    }
    if let Some(port) = state.port {
        return Ok(port);
    }
    let free = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| socket.local_addr());
    free.map(|addr| addr.port()).map_err(|error| Error::system("looking for a free UDP port", error))
}

/// The loopback socket, on the port of the last run if it is free: the kernel's endpoints point there.
fn open_loopback(port: Option<u16>) -> Result<Loopback, Error> {
    let opened = Loopback::open(port.unwrap_or(0)).or_else(|_| Loopback::open(0));
    opened.map_err(|error| Error::system("opening the loopback socket", error))
}

fn privilege(step: &str, error: std::io::Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => Error::Privilege(format!("{step}: {error}")),
        _ => Error::system(step, error),
    }
}

/// What the kernel takes for a device's name (`net/core/dev.c`, `dev_valid_name`).
fn check_device_name(name: &str) -> Result<(), Error> {
    let is_valid = (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    let wrong =
        || Error::Config(format!("{name:?} cannot name a device: 1 to 15 bytes without '/', ':' and spaces"));
    is_valid.then_some(()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_judged_as_the_kernel_judges_them() {
        for name in ["underpass0", "a.b", "exactly15bytes."] {
            check_device_name(name).unwrap();
        }
        for name in ["", "..", "a/b", "a b", "a:b", "sixteen-bytes-ab"] {
            assert_eq!(check_device_name(name).unwrap_err().exit_code(), 2, "{name:?}");
        }
    }

    #[test]
    fn a_port_is_as_asked_else_the_last_one_else_any() {
        let config = |port| Config { port, ..Config::default() };
        let state = |port| State { port, ..State::fresh(|| [1; 32]) };
        assert_eq!(wireguard_port(&config(7), &state(Some(8))).unwrap(), 7);
        assert_eq!(wireguard_port(&config(0), &state(Some(8))).unwrap(), 8);
        assert_ne!(wireguard_port(&config(0), &state(None)).unwrap(), 0);
    }
}
