//! A node without a network: the real LocalAPI server on a socket of its own, and a script where the event loop would be.
//!
//! It keeps settings and state as a node does, and answers everything else from fixed data.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use node::local_api::{BUS_CAPACITY, Refusal, Request, Watch, Whom, listen, serve};
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc};
use types::{NodeId, NodePublic, RegionId, StableNodeId, UserId};
use wire::control::{DerpMap, DerpNode, DerpRegion, Node, UserProfile};
use wire::local::{
    DataPlane, DropCount, EngineStatus, HealthState, LoginProfile, Netcheck, NetworkMap, Notify, PathReport,
    PeerPaths, PeerStatus, Persist, PingResult, Prefs, ReloadConfigResponse, State, Status, SteeredDevice,
    TailnetStatus, TraceLine, WhoIsResponse,
};

/// A scripted node. Dropping it removes the socket.
pub(crate) struct Scripted {
    folder: TempDir,
    state: Arc<Mutex<Inner>>,
    /// What it says on the bus.
    pub(crate) bus: broadcast::Sender<Arc<Notify>>,
}

/// What changes while it runs.
pub(crate) struct Inner {
    pub(crate) prefs: Prefs,
    pub(crate) state: State,
    pub(crate) auth_url: String,
    pub(crate) health: Vec<String>,
    /// Answers `start` with this error on the bus.
    pub(crate) refuse_login: Option<String>,
}

impl Scripted {
    /// A running node called `me` with one peer `gw`, owned by alice@example.com.
    pub(crate) fn new(state: State) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Open to other users, who are to be refused by the server and not by the file system.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let mut prefs = Prefs::new();
        if state != State::NeedsLogin {
            prefs.control_url = "https://203.0.113.10".into();
            prefs.want_running = state == State::Running;
            prefs.persist = Some(Persist::new(alice(), StableNodeId("n1".into())));
        }
        let inner = Inner { prefs, state, auth_url: String::new(), health: Vec::new(), refuse_login: None };
        let state = Arc::new(Mutex::new(inner));
        let (bus, _) = broadcast::channel(BUS_CAPACITY);
        let (requests, inbox) = mpsc::channel(16);
        let listener = listen(&folder.path().join("node.sock")).unwrap();
        tokio::spawn(serve(listener, requests));
        tokio::spawn(answer_all(inbox, Arc::clone(&state), bus.clone()));
        Self { folder, state, bus }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("node.sock")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap()
    }
}

async fn answer_all(
    mut inbox: mpsc::Receiver<Request>,
    state: Arc<Mutex<Inner>>,
    bus: broadcast::Sender<Arc<Notify>>,
) {
    while let Some(request) = inbox.recv().await {
        if answer(request, &mut state.lock().unwrap(), &bus).is_break() {
            return;
        }
    }
}

/// One answer. A client that does not wait for it is none of our business, hence the dropped results.
fn answer(
    request: Request,
    inner: &mut Inner,
    bus: &broadcast::Sender<Arc<Notify>>,
) -> std::ops::ControlFlow<()> {
    let say = |notify: Notify| _ = bus.send(Arc::new(notify));
    match request {
        Request::Status { peers, reply } => _ = reply.send(status(inner, peers)),
        Request::Prefs { reply } => _ = reply.send(inner.prefs.clone()),
        Request::EditPrefs { edit, reply } => {
            inner.prefs.apply(&edit);
            inner.state = if inner.prefs.want_running { State::Running } else { State::Stopped };
            say(Notify { state: Some(inner.state), prefs: Some(inner.prefs.clone()), ..Notify::default() });
            _ = reply.send(Ok(inner.prefs.clone()));
        }
        Request::CheckPrefs { prefs, reply } => {
            let wrong = prefs.hostname.contains(' ');
            let refusal = || Refusal::Invalid("a hostname has no spaces".into());
            _ = reply.send(if wrong { Err(refusal()) } else { Ok(()) });
        }
        Request::Start { options, reply } => {
            inner.prefs = Prefs { persist: None, ..options.update_prefs.unwrap_or_else(Prefs::new) };
            _ = reply.send(Ok(()));
            match &inner.refuse_login {
                Some(why) => say(Notify { err_message: Some(why.clone()), ..Notify::default() }),
                None if options.auth_key.is_empty() => {}
                None => say(log_in(inner)),
            }
        }
        Request::LoginInteractive { reply } => {
            inner.auth_url = "https://203.0.113.10/register/abc".into();
            _ = reply.send(Ok(()));
            say(Notify { browse_to_url: Some(inner.auth_url.clone()), ..Notify::default() });
        }
        Request::Logout { reply } => {
            inner.state = State::NeedsLogin;
            _ = reply.send(Ok(()));
        }
        Request::Watch { reply } => {
            _ = reply.send(Watch {
                state: inner.state,
                prefs: inner.prefs.clone(),
                browse_to_url: Some(inner.auth_url.clone()).filter(|url| !url.is_empty()),
                health: HealthState::default(),
                updates: bus.subscribe(),
            });
        }
        Request::ReloadConfig { reply } => _ = reply.send(ReloadConfigResponse::default()),
        Request::DisconnectControl { reply } => _ = reply.send(()),
        Request::Shutdown { reply } => {
            _ = reply.send(());
            return std::ops::ControlFlow::Break(());
        }
        other => answer_fixed(other),
    }
    std::ops::ControlFlow::Continue(())
}

/// What no setting changes.
fn answer_fixed(request: Request) {
    match request {
        Request::WhoIs { whom, reply } => {
            let known = whom == Whom::Addr("100.64.0.2".parse().unwrap()) || whom == Whom::Key(GW);
            let found = || WhoIsResponse { node: gw(), user_profile: alice(), cap_map: None };
            _ = reply.send(known.then(found));
        }
        Request::Ping { ip, kind, reply, .. } => {
            let found = ip.to_string() == "100.64.0.2";
            let endpoint = if kind == wire::local::PingType::Disco { "203.0.113.7:41641" } else { "" };
            _ = reply.send(PingResult {
                ip: ip.to_string(),
                node_ip: ip.to_string(),
                node_name: "gw".into(),
                err: if found { String::new() } else { "no matching peer".into() },
                latency_seconds: 0.004,
                endpoint: endpoint.into(),
                ..PingResult::default()
            });
        }
        Request::Engine { reply } => _ = reply.send(EngineStatus { rx_bytes: 7, ..EngineStatus::default() }),
        Request::DerpMap { reply } => _ = reply.send(Some(derp_map())),
        Request::NetMap { reply } => _ = reply.send(Some(Box::new(net_map()))),
        Request::Profile { reply } => {
            let profile = LoginProfile { id: "1ab3".into(), name: "alice".into(), ..LoginProfile::default() };
            _ = reply.send(profile);
        }
        Request::Metrics { reply } => {
            _ = reply.send("# TYPE underpass_peers gauge\nunderpass_peers 1\n".into());
        }
        Request::Netcheck { reply } => {
            _ = reply.send(Ok(Netcheck {
                udp: true,
                ipv4: true,
                global_v4: Some("203.0.113.1:41641".parse().unwrap()),
                preferred_derp: RegionId(900),
                region_latency: [(RegionId(900), 1_500_000)].into(),
                ..Netcheck::default()
            }));
        }
        Request::Paths { reply, .. } => _ = reply.send(paths()),
        Request::Trace { reply, .. } => {
            let (lines, receiver) = mpsc::channel(1);
            let line = TraceLine { text: "from_tunnel drop no rule".into(), ..TraceLine::default() };
            _ = lines.try_send(line);
            _ = reply.send(Ok(receiver));
        }
        _ => unreachable!("the rest is answered before"),
    }
}

fn log_in(inner: &mut Inner) -> Notify {
    inner.state = State::Running;
    inner.auth_url.clear();
    inner.prefs.persist = Some(Persist::new(alice(), StableNodeId("n1".into())));
    Notify { state: Some(State::Running), ..Notify::default() }
}

const GW: NodePublic = NodePublic::from_bytes([2; 32]);

fn alice() -> UserProfile {
    UserProfile {
        id: UserId(1),
        login_name: "alice@example.com".into(),
        display_name: "Alice".into(),
        ..UserProfile::default()
    }
}

fn gw() -> Node {
    Node {
        id: NodeId(2),
        stable_id: StableNodeId("n2".into()),
        name: "gw.net.test.".into(),
        user: UserId(1),
        key: GW,
        addresses: vec!["100.64.0.2/32".parse().unwrap()],
        allowed_ips: Some(vec!["100.64.0.2/32".parse().unwrap()]),
        machine_authorized: true,
        ..Node::default()
    }
}

fn peer(id: i64, name: &str, addr: &str) -> PeerStatus {
    PeerStatus {
        id: StableNodeId(format!("n{id}")),
        node_id: NodeId(id),
        public_key: NodePublic::from_bytes([id as u8; 32]),
        host_name: name.into(),
        dns_name: format!("{name}.net.test."),
        os: "linux".into(),
        user_id: UserId(1),
        tailscale_ips: vec![addr.parse().unwrap()],
        online: true,
        in_network_map: true,
        ..PeerStatus::default()
    }
}

fn status(inner: &Inner, peers: bool) -> Status {
    let own = peer(1, "me", "100.64.0.1");
    let gw = PeerStatus {
        active: true,
        relay: "hq".into(),
        cur_addr: "203.0.113.7:41641".into(),
        tx_bytes: 9,
        rx_bytes: 8,
        ..peer(2, "gw", "100.64.0.2")
    };
    let tailnet = TailnetStatus {
        name: "net.test".into(),
        magic_dns_suffix: "net.test".into(),
        magic_dns_enabled: false,
    };
    let drops = vec![DropCount { reason: "no_rule".into(), packets: 3 }];
    let plane = DataPlane {
        wireguard: "kernel".into(),
        device: "underpass0".into(),
        port: 41641,
        fast_path: String::new(),
        attach: "tcx".into(),
        devices: vec![SteeredDevice { name: "eth0".into(), steering: "xdp".into(), why: String::new() }],
        shield: true,
        answering: 1,
        drops,
        peer_relay: None,
    };
    Status {
        version: "0.1.0".into(),
        tun: true,
        backend_state: inner.state,
        have_node_key: inner.state != State::NeedsLogin,
        auth_url: inner.auth_url.clone(),
        tailscale_ips: own.tailscale_ips.clone(),
        self_node: Some(own),
        health: inner.health.clone(),
        magic_dns_suffix: "net.test".into(),
        current_tailnet: Some(tailnet),
        peer: if peers { [(GW, gw)].into() } else { Default::default() },
        user: [(UserId(1), alice())].into(),
        data_plane: Some(plane),
        ..Status::default()
    }
}

fn net_map() -> NetworkMap {
    NetworkMap {
        peers: vec![gw()],
        domain: "net.test".into(),
        derp_map: Some(derp_map()),
        user_profiles: [(UserId(1), alice())].into(),
        ..NetworkMap::default()
    }
}

/// One region nobody answers for: 192.0.2.0/24 is documentation.
fn derp_map() -> DerpMap {
    let node = DerpNode {
        name: "900a".into(),
        region_id: RegionId(900),
        host_name: "hq.test".into(),
        ipv4: "192.0.2.1".into(),
        ipv6: "none".into(),
        ..DerpNode::default()
    };
    let region = DerpRegion {
        region_id: RegionId(900),
        region_code: "hq".into(),
        region_name: "Headquarters".into(),
        nodes: vec![node],
        ..DerpRegion::default()
    };
    DerpMap { regions: [(RegionId(900), Some(region))].into(), ..DerpMap::default() }
}

fn paths() -> Vec<PeerPaths> {
    let direct = PathReport {
        endpoint: "203.0.113.7:41641".into(),
        sources: vec!["netmap".into()],
        latency_seconds: Some(0.002),
        used: true,
        why: "used: it answers, and nothing better does".into(),
        ..PathReport::default()
    };
    vec![PeerPaths {
        peer: GW,
        name: "gw.net.test.".into(),
        current: direct.endpoint.clone(),
        kernel: direct.endpoint.clone(),
        active: true,
        paths: vec![direct],
    }]
}
