//! The local API's requests: each is answered at once, or leaves its reply where the answer will be found.
//!
//! Deliberately not here: HTTP and permissions (`local_api`), answers made of the netmap alone (`answers`), changes
//! (`settings`, `login`).

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dataplane::{Steering, TraceReader};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use types::NodePublic;
use wire::control::Time;
use wire::local::{
    DataPlane, DropCount, LoginProfile, NetworkProfile, PeerRelaySessions, PeerStatus, Status, SteeredDevice,
    TraceLine,
};

use crate::daemon::Daemon;
use crate::kernel::Command;
use crate::local_api::{Refusal, Reply, Request, VERSION, Watch};
use crate::metrics::{Gauges, ProgramCount, render};
use crate::settings::check;
use crate::{answers, paths};

/// How long an answer waits for the programs' counters: their reader may be busy with a large change.
const COUNTERS_WAIT: Duration = Duration::from_millis(500);
/// Trace lines waiting for one client.
const TRACE_LINES: usize = 256;

impl Daemon {
    /// Somebody asks something.
    pub(crate) fn on_request(&mut self, request: Request, now: Instant) {
        // Who asked may be gone: then nobody misses the answer.
        match request {
            Request::Status { peers, reply } => self.send_status(peers, reply, now),
            Request::Prefs { reply } => _ = reply.send(self.visible_prefs()),
            Request::EditPrefs { edit, reply } => self.edit_prefs(&edit, reply, now),
            Request::CheckPrefs { prefs, reply } => _ = reply.send(check(&prefs)),
            Request::Start { options, reply } => _ = reply.send(self.start(options, now)),
            Request::LoginInteractive { reply } => {
                self.begin_login(now);
                _ = reply.send(Ok(()));
            }
            Request::Logout { reply } => {
                self.login.logging_out.push(reply);
                self.begin_logout(now);
            }
            Request::WhoIs { whom, reply } => _ = reply.send(answers::whois(&self.node, whom)),
            Request::Ping { ip, kind, size, reply } => self.ping(ip, kind, size, reply, now),
            Request::Watch { reply } => {
                let watch = self.watch();
                _ = reply.send(watch);
            }
            Request::Engine { reply } => {
                _ = reply.send(answers::engine(&self.node, self.regions.len(), now));
            }
            Request::DerpMap { reply } => {
                _ = reply.send(self.node.self_node().map(|_| self.node.derp_map().clone()));
            }
            Request::NetMap { reply } => {
                let map = answers::network_map(&self.node, self.state.machine_key.public());
                _ = reply.send(map.map(Box::new));
            }
            Request::Profile { reply } => _ = reply.send(self.profile()),
            Request::Metrics { reply } => self.send_metrics(reply),
            Request::RelaySessions { reply } => {
                let (port, relay) = (self.state.prefs.relay_server_port, self.relay_report());
                tokio::spawn(async move {
                    let report = relay.await.map(|snapshot| snapshot.report);
                    let udp_port = port.filter(|_| report.is_some());
                    let sessions = report.map(|report| report.sessions).unwrap_or_default();
                    _ = reply.send(PeerRelaySessions { udp_port, sessions });
                });
            }
            Request::RelayServers { reply } => {
                let mut servers: Vec<IpAddr> = self
                    .node
                    .relay_servers()
                    .filter_map(|node| node.addresses.first())
                    .map(ipnet::IpNet::addr)
                    .collect();
                servers.sort_unstable();
                _ = reply.send(servers);
            }
            Request::Paths { peer, reply } => {
                _ = reply.send(paths::report(&self.node, peer, &self.underlay.devices, now));
            }
            Request::Netcheck { reply } => self.begin_netcheck(reply, now),
            Request::Trace { peer, drops, reply } => self.trace(peer, drops, reply),
            Request::ReloadConfig { reply } => {
                let response = self.reload_config(now);
                _ = reply.send(response);
            }
            Request::DisconnectControl { reply } => {
                self.login.pause();
                _ = reply.send(());
            }
            // The event loop answers this one itself.
            Request::Shutdown { reply } => drop(reply),
        }
    }

    fn watch(&mut self) -> Watch {
        Watch {
            state: self.announced,
            prefs: self.visible_prefs(),
            browse_to_url: self.login.auth_url().map(str::to_owned),
            health: self.health.state(self.node.health(), Timestamp::now()),
            updates: self.bus.subscribe(),
        }
    }

    /// The programs' counters come from the kernel's writer; the rest is here.
    fn send_status(&self, peers: bool, reply: Reply<Status>, now: Instant) {
        let mut status = self.status(peers, now);
        let (counters, relay) = (self.counters(), self.relay_report());
        tokio::spawn(async move {
            let (counters, relay) = tokio::join!(counters, relay);
            let drops = counters.into_iter().filter(|count| count.is_drop);
            if let Some(data_plane) = &mut status.data_plane {
                data_plane.peer_relay = relay.map(|snapshot| snapshot.report);
                data_plane.drops = drops
                    .map(|count| DropCount { reason: count.reason.into(), packets: count.packets })
                    .collect();
            }
            _ = reply.send(status);
        });
    }

    fn status(&self, peers: bool, now: Instant) -> Status {
        let prefs = &self.state.prefs;
        let own = PeerStatus {
            public_key: self.state.node_key.public(),
            host_name: self.machine.hostname(prefs),
            os: "linux".into(),
            online: self.login.online,
            ..PeerStatus::default()
        };
        let mut status = Status {
            version: VERSION.into(),
            tun: true,
            backend_state: self.announced,
            have_node_key: self.state.login.is_some(),
            auth_url: self.login.auth_url().unwrap_or_default().to_owned(),
            self_node: Some(own),
            health: self.health.sentences(self.node.health()),
            data_plane: Some(DataPlane {
                wireguard: self.plane.as_ref().map(|plane| plane.wireguard.to_owned()).unwrap_or_default(),
                device: self.config.device.clone(),
                port: self.port(),
                attach: self.plane.as_ref().map(|plane| plane.attach.to_owned()).unwrap_or_default(),
                shield: self.plane.is_some() && self.config.shield,
                answering: if self.plane.is_some() { self.vouched } else { 0 },
                devices: self.plane.iter().flat_map(|_| self.steered.iter().map(steered)).collect(),
                fast_path: self.plane.as_ref().map(|plane| plane.fast_path.to_owned()).unwrap_or_default(),
                ..DataPlane::default()
            }),
            ..Status::default()
        };
        answers::fill(&mut status, &self.node, peers, now);
        status
    }

    /// The peer relay as it is; nothing when there is none.
    fn relay_report(&self) -> impl Future<Output = Option<crate::peer_relay::Snapshot>> + use<> {
        let report = self.relay.as_ref().map(crate::peer_relay::Handle::report);
        async move { report?.await }
    }

    fn counters(&self) -> impl Future<Output = Vec<ProgramCount>> + use<> {
        let (reply, counts) = oneshot::channel();
        self.order(Command::Counters(reply));
        async move {
            let counts = tokio::time::timeout(COUNTERS_WAIT, counts).await.ok().and_then(Result::ok);
            let count = |count: dataplane::Count| ProgramCount {
                program: count.program.name(),
                reason: count.reason.label(),
                is_drop: count.reason.verdict() == dataplane::Verdict::Drop,
                packets: count.packets,
            };
            counts.unwrap_or_default().into_iter().map(count).collect()
        }
    }

    fn send_metrics(&self, reply: Reply<String>) {
        let gauges = Gauges {
            advertised_routes: self.state.prefs.subnet_routes().count(),
            approved_routes: answers::approved_routes(&self.node),
            home_region: self.node.home().map_or(0, |home| home.0),
            health_messages: self.health.sentences(self.node.health()).len(),
            derp_dropped: self.derp_dropped.load(Ordering::Relaxed),
        };
        let (traffic, counters, relay) = (self.traffic.clone(), self.counters(), self.relay_report());
        tokio::spawn(async move {
            let (counters, relay) = tokio::join!(counters, relay);
            let relay = relay.map(|snapshot| snapshot.metrics).unwrap_or_default();
            _ = reply.send(render(&traffic, gauges, &counters, &relay));
        });
    }

    fn profile(&self) -> LoginProfile {
        let Some(login) = &self.state.login else { return LoginProfile::default() };
        let domain = self.node.cached_map().map(|map| map.domain).unwrap_or_default();
        let network_profile =
            NetworkProfile { domain_name: domain.clone(), display_name: domain, ..NetworkProfile::default() };
        LoginProfile {
            id: "0001".into(),
            name: login.user_profile.login_name.clone(),
            network_profile,
            key: "profile-0001".into(),
            user_profile: login.user_profile.clone(),
            node_id: login.node_id.clone(),
            control_url: self.state.login_server.clone(),
            ..LoginProfile::default()
        }
    }

    fn trace(
        &self,
        peer: Option<NodePublic>,
        drops: bool,
        reply: Reply<Result<mpsc::Receiver<TraceLine>, Refusal>>,
    ) {
        let addresses: Vec<IpAddr> = peer
            .and_then(|key| self.node.peers().find(|node| node.key == key))
            .map(|node| node.addresses.iter().map(ipnet::IpNet::addr).collect())
            .unwrap_or_default();
        let settings = dataplane::TraceSettings {
            peer_v4: addresses.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }),
            peer_v6: addresses.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }),
            drops_only: drops,
        };
        let (opened, reader) = oneshot::channel();
        self.order(Command::Trace(Some(settings), opened));
        tokio::spawn(carry_trace(reader, reply, self.kernel.clone()));
    }
}

/// Carries trace lines to one client until it goes away, and switches the trace off again.
async fn carry_trace(
    opened: oneshot::Receiver<Result<Option<TraceReader>, String>>,
    reply: Reply<Result<mpsc::Receiver<TraceLine>, Refusal>>,
    kernel: mpsc::UnboundedSender<Command>,
) {
    let mut reader = match opened.await {
        Ok(Ok(Some(reader))) => reader,
        Ok(Err(error)) => {
            _ = reply.send(Err(Refusal::NotNow(error)));
            return;
        }
        Ok(Ok(None)) | Err(_) => return,
    };
    let (lines, receiver) = mpsc::channel(TRACE_LINES);
    if reply.send(Ok(receiver)).is_ok() {
        loop {
            let record = tokio::select! {
                record = reader.next() => record,
                () = lines.closed() => break,
            };
            let Ok(record) = record else { break };
            let line = TraceLine { time: Time::from(Timestamp::now()), text: record.to_string() };
            if lines.send(line).await.is_err() {
                break;
            }
        }
    }
    // Without a reader the trace costs for nothing.
    let (closed, _) = oneshot::channel();
    _ = kernel.send(Command::Trace(None, closed));
}

/// A device's steering, in words.
fn steered((name, steering): &(String, Steering)) -> SteeredDevice {
    let (steering, why) = match steering {
        Steering::Xdp => ("xdp", String::new()),
        Steering::Tc(why) => ("tc", why.to_string()),
    };
    SteeredDevice { name: name.clone(), steering: steering.into(), why }
}
