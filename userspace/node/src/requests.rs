//! The local API's requests: each is answered at once, or leaves its reply where the answer will be found.
//!
//! Deliberately not here: HTTP and permissions (`local_api`), answers made of the netmap alone (`answers`).

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use node_core::{PingError, PingId, Pong, Via};
use tokio::sync::{mpsc, oneshot};
use types::NodePublic;
use wire::control::{AuthKey, EndpointType, Node as WireNode, Time};
use wire::local::{
    DataPlane, DropCount, LoginProfile, MaskedPrefs, Netcheck, NetworkProfile, Options, PeerStatus,
    PingResult, PingType, Pref, Prefs, ReloadConfigResponse, Status, TraceLine,
};

use crate::config_file::ConfigFile;
use crate::daemon::Daemon;
use crate::kernel::Command;
use crate::local_api::{Refusal, Reply, Request, VERSION, Watch};
use crate::login::{Attempt, core_prefs, server_url};
use crate::metrics::{Gauges, ProgramCount, render};
use crate::sockets::tunnel;
use crate::{answers, random};

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
            Request::Netcheck { reply } => _ = reply.send(self.netcheck()),
            Request::Paths { reply } => _ = reply.send(answers::paths(&self.node, now)),
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
        let counters = self.counters();
        tokio::spawn(async move {
            let drops = counters.await.into_iter().filter(|count| count.is_drop);
            if let Some(data_plane) = &mut status.data_plane {
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
                drops: Vec::new(),
            }),
            ..Status::default()
        };
        answers::fill(&mut status, &self.node, peers, now);
        status
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
            approved_routes: self.node.desired().served_routes.len(),
            home_region: self.node.home().map_or(0, |home| home.0),
            health_messages: self.health.sentences(self.node.health()).len(),
            derp_dropped: self.derp_dropped.load(Ordering::Relaxed),
        };
        let (traffic, counters) = (self.traffic.clone(), self.counters());
        tokio::spawn(async move { _ = reply.send(render(&traffic, gauges, &counters.await)) });
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

    fn edit_prefs(&mut self, edit: &MaskedPrefs, reply: Reply<Result<Prefs, Refusal>>, now: Instant) {
        let mut prefs = self.state.prefs.clone();
        prefs.apply(edit);
        let allowed =
            self.unlocked(&edit.set.iter().copied().collect::<Vec<_>>()).and_then(|()| check(&prefs));
        if let Err(refusal) = allowed {
            _ = reply.send(Err(refusal));
            return;
        }
        let goes_down = self.state.prefs.want_running && !prefs.want_running;
        self.take_prefs(prefs, now);
        let prefs = self.visible_prefs();
        if goes_down {
            // `down` returns when nothing is left.
            self.waiting_for_down.push(Box::new(move |gone| _ = reply.send(gone.map(|()| prefs))));
            self.order(Command::Remove);
        } else {
            _ = reply.send(Ok(prefs));
        }
    }

    /// Stores the settings and follows them.
    fn take_prefs(&mut self, prefs: Prefs, now: Instant) {
        if prefs == self.state.prefs {
            return;
        }
        let before = std::mem::replace(&mut self.state.prefs, prefs);
        let prefs = &self.state.prefs;
        let reconnects =
            prefs.want_running != before.want_running || server_url(prefs) != server_url(&before);
        self.leave_other_server();
        self.save();
        self.node.handle_prefs(core_prefs(&self.state.prefs), now);
        self.report_to_control();
        self.tell_prefs();
        if reconnects {
            self.connect();
        }
    }

    /// Whether the configuration file leaves these settings to the user.
    fn unlocked(&self, changed: &[Pref]) -> Result<(), Refusal> {
        let Some(file) = self.config_file.as_ref().filter(|file| file.locked) else { return Ok(()) };
        match changed.iter().find(|pref| file.edit.set.contains(pref)) {
            None => Ok(()),
            Some(pref) => Err(Refusal::Invalid(format!(
                "{} is set by the configuration file; change it there and run `underpass debug reload-config`, or set \
                 \"Locked\": false in the file",
                pref.name()
            ))),
        }
    }

    fn start(&mut self, options: Options, now: Instant) -> Result<(), Refusal> {
        if let Some(prefs) = options.update_prefs {
            check(&prefs)?;
            let changed: Vec<Pref> =
                Pref::ALL.iter().copied().filter(|pref| !prefs.agrees(&self.state.prefs, *pref)).collect();
            self.unlocked(&changed)?;
            self.take_prefs(Prefs { persist: None, ..prefs }, now);
        }
        if !options.auth_key.is_empty() {
            self.login.auth_key = Some(AuthKey(options.auth_key));
        }
        let needs_login =
            self.state.login.is_none() || self.facts(now).expired || self.state.prefs.logged_out;
        if needs_login && self.login.auth_key.is_some() {
            self.login.attempt = Attempt::Alone;
            self.begin_login(now);
        }
        Ok(())
    }

    fn reload_config(&mut self, now: Instant) -> ReloadConfigResponse {
        let Some(path) = &self.config.config_file else { return ReloadConfigResponse::default() };
        let taken = ConfigFile::read(path).and_then(|file| {
            let mut prefs = self.state.prefs.clone();
            prefs.apply(&file.edit);
            check(&prefs).map_err(|refusal| refusal.to_string())?;
            Ok((file, prefs))
        });
        match taken {
            Ok((file, prefs)) => {
                self.config_file = Some(file);
                self.take_prefs(prefs, now);
                ReloadConfigResponse { reloaded: true, err: String::new() }
            }
            Err(err) => ReloadConfigResponse { reloaded: false, err },
        }
    }

    fn netcheck(&self) -> Result<Netcheck, Refusal> {
        if self.node.self_node().is_none() {
            let why = "no DERP map yet: join a network with `underpass up` first".to_owned();
            return Err(Refusal::NotNow(why));
        }
        let info = self.node.net_info();
        let [global_v4, global_v6] = self.node.global_addresses();
        let seen = |kind: fn(&std::net::SocketAddr) -> bool| {
            let stun = self.node.endpoints().iter().filter(|endpoint| endpoint.kind == EndpointType::STUN);
            stun.map(|endpoint| endpoint.addr).find(kind)
        };
        let latencies = self.node.region_latencies();
        let nanos = |wait: Duration| i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX);
        Ok(Netcheck {
            now: Time::from(Timestamp::now()),
            udp: info.working_udp == Some(true),
            ipv4: global_v4.is_some(),
            ipv6: global_v6.is_some(),
            mapping_varies_by_dest_ip: info.mapping_varies_by_dest_ip,
            preferred_derp: info.preferred_derp,
            region_latency: latencies.into_iter().map(|(region, latency)| (region, nanos(latency))).collect(),
            global_v4: global_v4.or_else(|| seen(std::net::SocketAddr::is_ipv4)),
            global_v6: global_v6.or_else(|| seen(std::net::SocketAddr::is_ipv6)),
        })
    }

    fn ping(&mut self, ip: IpAddr, kind: PingType, size: usize, reply: Reply<PingResult>, now: Instant) {
        let mut result = PingResult { ip: ip.to_string(), ..PingResult::default() };
        let own = self.node.self_node().is_some_and(|own| has_address(own, ip));
        let peer = self.node.whois(ip).map(|whois| whois.node).filter(|_| !own);
        let Some(peer) = peer else {
            result.is_local_ip = own;
            result.err = if own { format!("{ip} is local Tailscale IP") } else { "no matching peer".into() };
            _ = reply.send(result);
            return;
        };
        let node_ip =
            if has_address(peer, ip) { Some(ip) } else { peer.addresses.first().map(ipnet::IpNet::addr) };
        result.node_ip = node_ip.map(|ip| ip.to_string()).unwrap_or_default();
        result.node_name = peer.name.split('.').next().unwrap_or_default().to_owned();
        let key = peer.key;
        match kind {
            PingType::Disco => {
                let id = self.node.ping(key, size, now);
                self.pings.insert(id, (result, reply));
            }
            PingType::Icmp | PingType::Tsmp => self.ping_in_tunnel(kind, ip, result, reply),
            PingType::PeerApi => {
                result.err = "this node does not use peers' PeerAPI; try --icmp or a plain ping".into();
                _ = reply.send(result);
            }
        }
    }

    fn ping_in_tunnel(&self, kind: PingType, ip: IpAddr, mut result: PingResult, reply: Reply<PingResult>) {
        let device = self.config.device.clone();
        let [a, b, c, d, e, f, g, h, ..] = random();
        let token = [a, b, c, d, e, f, g, h];
        tokio::spawn(async move {
            let answer = match kind {
                PingType::Tsmp => tunnel::tsmp_ping(&device, ip, token).await,
                _ => tunnel::icmp_ping(&device, ip, token).await,
            };
            match answer {
                Ok(latency) => result.latency_seconds = latency.as_secs_f64(),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => result.err = "no reply".into(),
                Err(error) => result.err = error.to_string(),
            }
            _ = reply.send(result);
        });
    }

    /// A DISCO ping has ended.
    pub(crate) fn finish_ping(&mut self, id: PingId, result: Result<Pong, PingError>) {
        let Some((mut answer, reply)) = self.pings.remove(&id) else { return };
        match result {
            Ok(Pong { latency, via }) => {
                answer.latency_seconds = latency.as_secs_f64();
                match via {
                    Via::Direct(endpoint) => answer.endpoint = endpoint.to_string(),
                    Via::Derp(region) => {
                        answer.derp_region_id = region;
                        answer.derp_region_code = answers::region_code(self.node.derp_map(), region);
                    }
                }
            }
            Err(error) => answer.err = error.to_string(),
        }
        _ = reply.send(answer);
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
        let kernel = self.kernel.clone();
        let (opened, reader) = oneshot::channel();
        self.order(Command::Trace(Some(settings), opened));
        tokio::spawn(async move {
            let Ok(reader) = reader.await else { return };
            let mut reader = match reader {
                Ok(Some(reader)) => reader,
                Ok(None) => return,
                Err(error) => {
                    _ = reply.send(Err(Refusal::NotNow(error)));
                    return;
                }
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
        });
    }
}

fn has_address(node: &WireNode, ip: IpAddr) -> bool {
    node.addresses.iter().any(|net| net.addr() == ip)
}

/// Whether this node can do what the settings ask.
fn check(prefs: &Prefs) -> Result<(), Refusal> {
    let refuse = |text: String| Err(Refusal::Invalid(text));
    if prefs.run_ssh {
        return refuse("this node has no SSH server: leave --ssh out and use the system's sshd".into());
    }
    if !prefs.exit_node_id.0.is_empty() || prefs.exit_node_ip.0.is_some() || !prefs.auto_exit_node.is_empty()
    {
        return refuse("this node cannot use an exit node yet: leave --exit-node out".into());
    }
    if let Some(route) = prefs.advertise_routes.iter().find(|route| route.trunc() != **route) {
        return refuse(format!("{route} has bits behind its prefix; did you mean {}?", route.trunc()));
    }
    if let Some(tag) = prefs.advertise_tags.iter().find(|tag| !tag.starts_with("tag:")) {
        return refuse(format!("{tag:?} is not a tag: tags begin with \"tag:\""));
    }
    if !prefs.control_url.is_empty()
        && let Err(error) = prefs.control_url.parse::<crate::control::ServerUrl>()
    {
        return refuse(error.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_this_node_cannot_follow_are_refused_by_name() {
        let fresh = Prefs::new;
        assert_eq!(check(&fresh()), Ok(()));
        let cases = [
            (Prefs { run_ssh: true, ..fresh() }, "--ssh"),
            (Prefs { exit_node_ip: IpAddr::from([100, 64, 0, 9]).into(), ..fresh() }, "--exit-node"),
            (Prefs { advertise_routes: vec!["10.0.0.1/8".parse().unwrap()], ..fresh() }, "10.0.0.0/8"),
            (Prefs { advertise_tags: vec!["gw".into()], ..fresh() }, "tag:"),
            (Prefs { control_url: "control.example".into(), ..fresh() }, "https://"),
        ];
        for (prefs, wanted) in cases {
            let refusal = check(&prefs).unwrap_err().to_string();
            assert!(refusal.contains(wanted), "{refusal}");
        }
    }
}
