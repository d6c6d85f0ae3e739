//! From a configuration to a running server, and back down.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use control_core::network::{Network, Now, Settings};
use control_core::policy::Policy;
use jiff::Timestamp;
use relay::{Denied, Relay};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use transport::tls::Trust;
use types::{NodePublic, RegionId};
use wire::control::{DerpMap, DerpNode, DerpRegion};

use crate::admin::{self, ServerInfo};
use crate::certificate::Certificate;
use crate::config::{Config, ServerUrl};
use crate::coordinator::{self, Coordinator, Handle, Input};
use crate::http::{self, Site};
use crate::regions::Regions;
use crate::state::State;
use crate::store::{SqliteStore, Store};

/// The region of the relay inside the server; 900-999 are for a network's own.
const REGION: RegionId = RegionId(900);
/// Domain of the nodes' names: reserved for private use, so that it means nothing to anybody's DNS.
const DOMAIN: &str = "underpass.internal";
/// What relay clients are told at the end.
const RECONNECT_IN: Duration = Duration::from_secs(1);
const TRY_FOR: Duration = Duration::from_secs(30);

/// Runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start: what, where, and what to do.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run_until(config, shutdown).await
}

/// Runs the server until `shutdown` resolves. SIGHUP reads the policy file again.
///
/// # Errors
/// When it cannot start: what, where, and what to do.
pub async fn run_until(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let state = State::open(&config.state)?;
    let policy = read_policy(config.policy.as_deref())?;
    let mut store = SqliteStore::open(&state.path("state.db")).await?;
    let records = store.load().await?;

    let (coordinator, inputs) = coordinator::channel();
    let relay_key = relay::load_or_create_key(&config.state)?;
    let relay = Relay::new(relay::Config::default(), relay_key, admission(coordinator.clone()));
    let certificate = Certificate::load(&config, &state, &relay.public_key())?;
    let fingerprint = certificate.pin.as_deref().and_then(|pin| Some(pin.split_once(':')?.1.to_owned()));
    let info = ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        url: config.url.text(),
        fingerprint,
        nodes: 0,
        online: 0,
    };

    let (listener, stun) = (listen(config.listen).await?, bind_stun(config.stun).await?);
    let socket = admin::bind(&config.socket).await;
    let socket = socket
        .with_context(|| format!("cannot make the admin socket {} (--socket)", config.socket.display()))?;

    let embedded = match config.embedded_relay {
        true => derp_map(&config.url, certificate.pin, stun.local_addr()?.port()),
        false => DerpMap { omit_default_regions: true, ..DerpMap::default() },
    };
    let regions = Regions { embedded, sources: config.derp_map.clone(), trust: Trust::system(None)? };
    let derp_map = regions.read().await?;
    let settings = Settings { domain: DOMAIN.to_owned(), derp_map };
    let now = Now { wall: Timestamp::now(), instant: Instant::now() };
    let network = Network::new(records, policy, settings, now);
    let site = Site {
        coordinator: coordinator.clone(),
        relay: relay.clone(),
        noise_key: state.noise_key()?,
        url: config.url.clone(),
    };

    println!("{}", greeting(&info, listener.local_addr()?, &config.socket));
    let mut tasks = JoinSet::new();
    let network = tokio::spawn(Coordinator::new(network, store, relay.clone(), info, inputs).run());
    tasks.spawn(http::serve(listener, certificate.acceptor, Arc::new(site)));
    tasks.spawn(admin::serve(socket, coordinator.clone()));
    let (answering, stun_options) = (relay.clone(), config.stun_options);
    tasks.spawn(async move {
        let Err(error) = answering.run_stun(stun, stun_options).await;
        tracing::error!(%error, "STUN is answered no more");
    });
    if !regions.sources.is_empty() {
        tasks.spawn(regions.follow(coordinator.clone()));
    }
    if let Some(path) = config.policy.clone() {
        tasks.spawn(reload_on_hangup(path, coordinator.clone()));
    }

    shutdown.await;
    relay.announce_restart(RECONNECT_IN, TRY_FOR);
    tasks.shutdown().await;
    coordinator.tell(Input::Stop).await;
    network.await.context("the coordinator failed")?;
    // The next server would find nobody on it, and takes it away itself after a crash.
    let _ = std::fs::remove_file(&config.socket);
    Ok(())
}

fn greeting(info: &ServerInfo, listen: SocketAddr, socket: &Path) -> String {
    let fingerprint =
        info.fingerprint.as_ref().map(|hex| format!(", certificate sha256:{hex}")).unwrap_or_default();
    format!("underpass server: {} on {listen}{fingerprint}, admin socket {}", info.url, socket.display())
}

fn read_policy(path: Option<&Path>) -> anyhow::Result<Policy> {
    let Some(path) = path else { return Ok(Policy::allow_all()) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the policy file {} (--policy)", path.display()))?;
    Policy::parse(&text).with_context(|| format!("policy file {}", path.display()))
}

async fn reload_on_hangup(path: PathBuf, coordinator: Handle) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            return tracing::error!(%error, "SIGHUP cannot be received: the policy is not read again");
        }
    };
    while hangup.recv().await.is_some() {
        match read_policy(Some(&path)) {
            Ok(policy) => {
                coordinator.tell(Input::Policy(Box::new(policy))).await;
                tracing::info!(path = %path.display(), "policy read again");
            }
            Err(error) => tracing::error!("the policy in force is kept: {error:#}"),
        }
    }
}

/// The relay admits the network's nodes and nobody else.
fn admission(coordinator: Handle) -> impl relay::Verify {
    move |key: NodePublic, _| {
        let coordinator = coordinator.clone();
        async move {
            match coordinator.ask(|reply| Input::Admits { key, reply }).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Denied::NotAllowed),
                Err(gone) => Err(Denied::Unavailable(gone.to_string())),
            }
        }
    }
}

async fn listen(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(addr).await {
        Err(_) if addr.ip().is_unspecified() && addr.is_ipv6() && !has_ipv6() => {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()));
            TcpListener::bind(v4)
                .await
                .map_err(|error| anyhow::anyhow!(http::bind_failure("--listen", v4, &error)))
        }
        Ok(listener) => Ok(listener),
        Err(error) => bail!(http::bind_failure("--listen", addr, &error)),
    }
}

async fn bind_stun(addr: SocketAddr) -> anyhow::Result<UdpSocket> {
    match UdpSocket::bind(addr).await {
        Err(_) if addr.ip().is_unspecified() && addr.is_ipv6() && !has_ipv6() => {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()));
            UdpSocket::bind(v4)
                .await
                .map_err(|error| anyhow::anyhow!(http::bind_failure("--stun", v4, &error)))
        }
        Ok(socket) => Ok(socket),
        Err(error) => bail!(http::bind_failure("--stun", addr, &error)),
    }
}

/// Kernels started with `ipv6.disable=1` have no such sockets at all.
fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// The relay inside the server, as the only region.
fn derp_map(url: &ServerUrl, pin: Option<String>, stun_port: u16) -> DerpMap {
    let family = |v4| match url.address() {
        None => String::new(),
        Some(addr) if addr.is_ipv4() == v4 => addr.to_string(),
        Some(_) => "none".to_owned(),
    };
    let node = DerpNode {
        name: format!("{REGION}a"),
        region_id: REGION,
        host_name: url.host.clone(),
        cert_name: pin.unwrap_or_default(),
        ipv4: family(true),
        ipv6: family(false),
        stun_port: stun_port.into(),
        derp_port: url.port,
        ..DerpNode::default()
    };
    let region = DerpRegion {
        region_id: REGION,
        region_code: "underpass".to_owned(),
        region_name: "Underpass".to_owned(),
        nodes: vec![node],
        ..DerpRegion::default()
    };
    DerpMap { regions: [(REGION, Some(region))].into(), omit_default_regions: true, ..DerpMap::default() }
}
