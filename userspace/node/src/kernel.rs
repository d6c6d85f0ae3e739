//! The kernel's only writer: a thread that takes commands from the event loop, one at a time, and reports back.
//!
//! Netlink calls, `nft` and map updates take milliseconds; DISCO answers must not wait for them. Of several wanted states in
//! a row only the last is applied. While the node is down there is no device, no program, no rule. Ending the thread leaves
//! everything as it is. Deliberately not here: what the kernel should be (`node-core`), when to try again (the loop asks).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use dataplane::{
    AnsweredReader, Applier, Count, Device, Mechanism, Programs, Relayed, RelayedSession, Rest, Settings,
    Spare, Steer, Steering, TraceReader, TraceSettings,
};
use netlink::wireguard::Wireguard;
use netlink::{Handle, Mark};
use node_core::{Desired, Detour, DiscoPeer, Hop, ObservedPeer};
use relay_core::{Change, Leg};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use types::{NodePublic, Vni};

use crate::Error;
use crate::answering::Answering;
use crate::config::FastPath;
use crate::device::{self, Spec};
use crate::event_loop::Input;
use crate::gateway;
use crate::peer_relay;
use crate::peer_relay::kernel::Relaying;
use crate::router::{MARK_MASK, Router};
use crate::sockets::BYPASS_MARK;
use crate::underlay::Lan;

/// What the event loop asks for.
pub(crate) enum Command {
    /// Make the kernel this; `up: false` takes everything away.
    Apply(Box<Desired>),
    /// Let packets of our own to these addresses leave by these hops.
    Pins(BTreeMap<IpAddr, Hop>),
    /// Move one peer's endpoint.
    Endpoint(NodePublic, SocketAddr),
    /// Dump the device.
    Observe,
    /// These are the underlay's devices now.
    Underlay(BTreeMap<u32, Device>),
    /// These are the devices of the LAN side now.
    Lans(BTreeMap<u32, Lan>),
    /// Load programs and make the device, still down: what an [`Command::Apply`] would find missing.
    Prepare,
    /// Have programs verified for the next time we go up: it takes longer than all the rest.
    Rest,
    /// Take everything away, also what an earlier run left.
    Remove,
    /// Our key changed: the next [`Command::Apply`] works with this.
    Respec(Box<Spec>),
    /// The peers whose DISCO pings the programs know.
    Disco(Vec<DiscoPeer>),
    /// Put the firewall's table back if somebody flushed it.
    CheckFirewall,
    /// Read the programs' counters; none while there are no programs.
    Counters(oneshot::Sender<Vec<Count>>),
    /// A peer relay listens on this port and knows these pairs; with 0 there is none.
    Relay(u16, Vec<(Vni, [Leg; 2])>),
    /// A pair of the relay was bound, or is gone.
    RelayChange(Change),
    /// Put a relay's header before packets to these endpoints, and to no others.
    Detours(Vec<Detour>),
    /// Read what the programs have relayed.
    RelayUsage(oneshot::Sender<RelayUsage>),
    /// Switch the trace on and hand over its reader, or off.
    Trace(Option<TraceSettings>, oneshot::Sender<Result<Option<TraceReader>, String>>),
}

/// What the programs have relayed.
#[derive(Debug, Default)]
pub(crate) struct RelayUsage {
    /// By session.
    pub(crate) sessions: Vec<RelayedSession>,
    /// Where they can.
    pub(crate) devices: Devices,
}

/// How many of the underlay's devices have programs ahead of the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// Of so many.
    pub(crate) all: usize,
    /// So many have.
    pub(crate) xdp: usize,
}

/// What the thread tells the event loop.
pub(crate) enum Report {
    /// A wanted state was applied, or not.
    Applied {
        /// Which; 0 for a removal.
        generation: u64,
        /// What is there now, `None` after going down; or why it is not what was wanted.
        result: Result<Option<Plane>, Error>,
    },
    /// Programs wait at the underlay's devices: answers to DISCO and STUN will be heard. Or why they will not.
    Prepared(Result<(), Error>),
    /// Programs were loaded or found: this tells of the pings that they answer.
    Answering(AnsweredReader),
    /// How packets are steered on the underlay's devices, by name.
    Steered(Vec<(String, Steering)>),
    /// Relayed peers' packets get their header from the programs, these already; or `None`: the programs cannot.
    Detours(Option<Vec<Detour>>),
    /// A dump of the device; empty when there is none.
    Observed(Vec<ObservedPeer>),
    /// These forwarding switches had to be switched on; to be remembered until we go down.
    Switched(Vec<String>),
    /// What became of the firewall's table.
    Firewall(Result<(), String>),
    /// Something small failed: for the log.
    Trouble(String),
}

/// What is in the kernel, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plane {
    /// The device's interface index.
    pub(crate) link: u32,
    /// `kernel` or `embedded`.
    pub(crate) wireguard: &'static str,
    /// `tcx` or `clsact`.
    pub(crate) attach: &'static str,
    /// Whether the gateway has its short way: `on` or `off`; empty while nothing is forwarded.
    pub(crate) fast_path: &'static str,
}

/// The thread's state.
pub(crate) struct Kernel {
    handle: Handle,
    spec: Spec,
    settings: Settings,
    controller_port: u16,
    router: Router,
    /// Forwarding switches that this node has switched on, now or in an earlier run.
    switched: Vec<String>,
    underlay: BTreeMap<u32, Device>,
    steer: Steer,
    relaying: Relaying,
    answering: Answering,
    /// Tells of answered pings, until somebody takes it.
    answered: Option<AnsweredReader>,
    lans: BTreeMap<u32, Lan>,
    fast_path: FastPath,
    flows: u32,
    /// What was last wanted, while we are up.
    desired: Option<Box<Desired>>,
    /// Programs for the next time we go up, verified while there is nothing else to do.
    spare: Option<Spare>,
    /// Programs that no first packet waits for, while the kernel verifies them.
    verifying: Option<JoinHandle<(Rest, Vec<dataplane::Error>)>>,
    /// While we are up.
    plane: Option<(Applier, Plane)>,
}

/// What a writer is started with.
pub(crate) struct Options {
    /// The device.
    pub(crate) spec: Spec,
    /// Our own routing table.
    pub(crate) table: u32,
    /// The table of routes to peers by one of several uplinks.
    pub(crate) underlay_table: u32,
    /// Priority of our first rule.
    pub(crate) rule_priority: u32,
    /// How to steer.
    pub(crate) steer: Steer,
    /// Our DISCO key, and whether to shield WireGuard.
    pub(crate) answering: Answering,
    /// Whether the gateway may have its short way.
    pub(crate) fast_path: FastPath,
    /// Flows through the gateway at a time.
    pub(crate) flows: u32,
    /// The port of the sockets that `steer` delivers to.
    pub(crate) controller_port: u16,
    /// Forwarding switches that an earlier run has switched on.
    pub(crate) switched: Vec<String>,
}

/// Starts the thread; it ends when the returned sender is gone. Nothing is touched before the first command.
///
/// # Errors
/// When the machine has no thread or socket left.
pub(crate) fn start(
    options: Options,
    inputs: mpsc::Sender<Input>,
) -> Result<mpsc::UnboundedSender<Command>, Error> {
    let failed = |error: std::io::Error| Error::system("starting the kernel's writer", error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (sender, commands) = mpsc::unbounded_channel();
    let work = move || {
        runtime.block_on(async {
            match Handle::open() {
                Ok(handle) => Kernel::new(handle, options).run(commands, inputs).await,
                Err(error) => tracing::error!(%error, "the kernel cannot be changed"),
            }
        });
    };
    std::thread::Builder::new().name("kernel".into()).spawn(work).map_err(failed)?;
    Ok(sender)
}

impl Kernel {
    fn new(handle: Handle, options: Options) -> Self {
        let Options {
            spec,
            table,
            underlay_table,
            rule_priority,
            fast_path,
            flows,
            steer,
            answering,
            controller_port,
            switched,
        } = options;
        let bypass = Mark { value: BYPASS_MARK, mask: MARK_MASK };
        let settings = Settings { table, underlay_table, rule_priority, bypass };
        let router = Router::new(&spec.name);
        let (underlay, relaying) = (BTreeMap::new(), Relaying::default());
        let (spare, verifying, plane) = (None, None, None);
        let (lans, desired) = (BTreeMap::new(), None);
        Self {
            handle,
            spec,
            settings,
            controller_port,
            router,
            switched,
            underlay,
            steer,
            relaying,
            answering,
            answered: None,
            spare,
            verifying,
            lans,
            fast_path,
            flows,
            desired,
            plane,
        }
    }

    /// Works until the event loop is gone.
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>, inputs: mpsc::Sender<Input>) {
        let mut next = None;
        loop {
            let command = match next.take() {
                Some(command) => command,
                None => tokio::select! {
                    command = commands.recv() => match command {
                        Some(command) => command,
                        None => return,
                    },
                    verified = end_of(&mut self.verifying) => {
                        for report in self.complete(verified).await {
                            // A loop that has ended needs no report.
                            _ = inputs.send(Input::Kernel(report)).await;
                        }
                        continue;
                    }
                },
            };
            if matches!(command, Command::Apply(_)) {
                // A newer wanted state right behind this one makes it pointless.
                next = commands.try_recv().ok();
                if matches!(next, Some(Command::Apply(_))) {
                    continue;
                }
            }
            for report in self.obey(command).await {
                if inputs.send(Input::Kernel(report)).await.is_err() {
                    return;
                }
            }
            if next.is_none() && commands.is_empty() {
                self.verify_rest();
            }
        }
    }

    /// What the tunnel did not wait for is verified, or was refused: then the stack does it.
    async fn complete(&mut self, verified: Result<(Rest, Vec<dataplane::Error>), JoinError>) -> Vec<Report> {
        self.verifying = None;
        let (rest, refused) = match verified {
            Ok(verified) => verified,
            Err(error) => return trouble(Err::<(), _>(error)),
        };
        // The node may have gone down meanwhile.
        let Some(programs) = self.programs() else { return Vec::new() };
        if let Err(error) = programs.complete(rest) {
            return vec![Report::Prepared(Err(programs_error(error)))];
        }
        let mut reports: Vec<_> =
            refused.iter().map(|error| Report::Trouble(format!("done without: {error}"))).collect();
        reports.extend(self.attach_underlay());
        // A gateway has been without its short way until now.
        match self.desired.take() {
            Some(desired) if !desired.served_routes.is_empty() => reports.extend(self.apply(&desired).await),
            desired => self.desired = desired,
        }
        reports
    }

    /// Has the rest of the programs verified, on another thread, when nothing is waiting that a first packet waits for.
    fn verify_rest(&mut self) {
        if let Some(rest) = self.programs().and_then(Programs::rest) {
            self.verifying = Some(spawn_blocking(move || rest.verify()));
        }
    }

    async fn obey(&mut self, command: Command) -> Vec<Report> {
        match command {
            Command::Apply(desired) => self.apply(&desired).await,
            Command::Prepare => self.prepare().await,
            Command::Rest => self.rest(),
            Command::Remove => self.apply(&Desired::default()).await,
            Command::Endpoint(peer, endpoint) => {
                let Some((applier, _)) = &mut self.plane else { return Vec::new() };
                trouble(applier.set_endpoint(peer, endpoint).await)
            }
            Command::Pins(routes) => {
                let Some((applier, _)) = &mut self.plane else { return Vec::new() };
                trouble(applier.pin(&routes).await)
            }
            Command::Observe => vec![self.observe().await],
            Command::Underlay(devices) => {
                self.underlay = devices;
                self.serve_underlay().await
            }
            Command::Relay(port, sessions) => {
                self.relaying.set(port, sessions.into_iter());
                self.serve_underlay().await
            }
            Command::RelayChange(change) => {
                let programs = self.plane.as_mut().map(|(applier, _)| applier.programs());
                trouble(self.relaying.follow(change, programs))
            }
            Command::Detours(detours) => self.set_detours(&detours).await,
            Command::RelayUsage(reply) => {
                // Who asked may have given up.
                _ = reply.send(self.relay_usage());
                Vec::new()
            }
            Command::Lans(lans) => {
                self.lans = lans;
                match self.desired.take() {
                    // Other devices: programs and netfilter share the translation anew.
                    Some(desired) if self.plane.is_some() => self.apply(&desired).await,
                    _ => Vec::new(),
                }
            }
            Command::Respec(spec) => {
                self.spec = *spec;
                // Handshakes with the new key must not meet a shield for the old one.
                let unshielded =
                    trouble(self.programs().map_or(Ok(()), |programs| programs.set_shield(None)));
                // The device is opened anew by the next wanted state, and gets the key then.
                self.plane = None;
                unshielded
            }
            Command::Disco(peers) => {
                let programs = self.plane.as_mut().map(|(applier, _)| applier.programs());
                trouble(self.answering.follow(peers, programs))
            }
            Command::CheckFirewall => vec![firewall(self.router.repair().await)],
            Command::Counters(reply) => {
                let counts = self.programs().map(|programs| programs.counters());
                // Who asked may have given up.
                _ = reply.send(counts.and_then(Result::ok).unwrap_or_default());
                Vec::new()
            }
            Command::Trace(settings, reply) => {
                _ = reply.send(self.trace(settings.as_ref()));
                Vec::new()
            }
        }
    }

    fn programs(&mut self) -> Option<&mut Programs> {
        self.plane.as_mut().map(|(applier, _)| applier.programs())
    }

    fn rest(&mut self) -> Vec<Report> {
        if self.plane.is_some() || self.spare.is_some() {
            return Vec::new();
        }
        // Why the kernel does not want them is told when they are needed.
        self.spare = Spare::load().inspect_err(|error| tracing::debug!(%error, "no programs to spare")).ok();
        Vec::new()
    }

    async fn prepare(&mut self) -> Vec<Report> {
        let opened = match self.plane.is_some() {
            true => Ok(()),
            false => self.open().await.map(|plane| self.plane = Some(plane)),
        };
        let mut reports = self.serve_underlay().await;
        reports.extend(self.answered.take().map(Report::Answering));
        reports.push(Report::Detours(self.known_detours()));
        reports.extend(opened.err().map(|error| Report::Prepared(Err(error))));
        reports
    }

    async fn apply(&mut self, desired: &Desired) -> Vec<Report> {
        let generation = desired.generation;
        if !desired.up {
            let result = self.take_away().await.map(|()| None);
            return vec![Report::Applied { generation, result }];
        }
        let opens = !self.is_device_there().await;
        if opens {
            // Or somebody deleted it: then it is made anew.
            match self.open().await {
                Ok(plane) => self.plane = Some(plane),
                Err(error) => return vec![Report::Applied { generation, result: Err(error) }],
            }
        }
        let Some((applier, plane)) = &mut self.plane else { unreachable!("it was opened just now") };
        let gateway = match self.fast_path {
            FastPath::Off => None,
            FastPath::Auto => gateway::plan(desired, &self.lans, plane.link, self.flows),
        };
        let mut reports = gateway::set(applier.programs(), gateway.as_ref(), plane, desired);
        let translating = gateway::devices(plane, &self.lans);
        // Side by side: `nft` takes as long as all the rest. Without the guard the node still works.
        let (guarded, applied) =
            tokio::join!(self.router.apply(desired, &translating), applier.apply(desired));
        let result = match applied {
            Ok(()) => Ok(Some(plane.clone())),
            Err(failure) => Err(explain(failure, self.spec.port)),
        };
        self.desired = Some(Box::new(desired.clone()));
        reports.push(self.note_guard(guarded));
        reports.extend(self.answered.take().map(Report::Answering));
        if opens {
            reports.extend(self.serve_underlay().await);
            reports.push(Report::Detours(self.known_detours()));
        } else {
            reports.extend(self.attach_underlay());
        }
        reports.push(Report::Applied { generation, result });
        reports
    }

    fn note_guard(&mut self, guarded: netlink::Result<Vec<String>>) -> Report {
        match guarded {
            Ok(switched) if switched.is_empty() => firewall(Ok(())),
            Ok(switched) => {
                self.switched.extend(switched);
                Report::Switched(self.switched.clone())
            }
            Err(error) => firewall(Err(error)),
        }
    }

    async fn is_device_there(&self) -> bool {
        let Some((_, plane)) = &self.plane else { return false };
        matches!(self.handle.link(&self.spec.name).await, Ok(Some(link)) if link.index == plane.link)
    }

    /// Finds or makes programs and device. The filter denies everything until one is swapped in.
    async fn open(&mut self) -> Result<(Applier, Plane), Error> {
        let (name, spare) = (self.spec.name.clone(), self.spare.take());
        let load = spawn_blocking(move || Programs::load_spare_or_adopt(&name, spare));
        // Side by side: verifying programs takes as long as starting an embedded WireGuard.
        let (programs, wireguard) = tokio::join!(load, device::find_or_make(&self.handle, &self.spec));
        let loaded = programs.map_err(|error| Error::system("loading the programs", error))?;
        let (mut programs, wireguard) = (loaded.map_err(programs_error)?, wireguard?);
        programs.set_ports(self.spec.port, self.controller_port).map_err(programs_error)?;
        self.answering.apply(&mut programs, &self.spec.public_key()).map_err(programs_error)?;
        self.answered = Some(programs.answered_reader().map_err(programs_error)?);
        programs.set_bypass(BYPASS_MARK, MARK_MASK).map_err(programs_error)?;
        let link = self.link_index(&wireguard).await?;
        programs.attach_tunnel(link).map_err(programs_error)?;
        let (backend, attach) = (device::backend_name(&wireguard), mechanism());
        let plane = Plane { link, wireguard: backend, attach, fast_path: "" };
        Ok((Applier::new(self.handle.clone(), wireguard, programs, self.settings.clone()), plane))
    }

    async fn link_index(&self, wireguard: &Wireguard) -> Result<u32, Error> {
        let link = self.handle.link(wireguard.name()).await;
        let link = link.map_err(|error| Error::system("looking for the device", error))?;
        let gone = || Error::system("looking for the device", "it is gone");
        link.map(|link| link.index).ok_or_else(gone)
    }

    fn attach_underlay(&mut self) -> Vec<Report> {
        let (wanted, devices) = (self.steer, self.underlay.clone());
        let Some(programs) = self.programs() else { return Vec::new() };
        let (mut steered, mut reports) = (Vec::new(), Vec::new());
        for (ifindex, result) in programs.steer(wanted, &devices) {
            let name = devices.get(&ifindex).map(|device| device.name.clone()).unwrap_or_default();
            match result {
                Ok(steering) => steered.push((name, steering)),
                Err(error) => reports.push(Report::Trouble(error.to_string())),
            }
        }
        reports.push(Report::Steered(steered));
        reports.push(Report::Prepared(Ok(())));
        reports
    }

    /// Relayed peers' endpoints, as the programs have to know them before WireGuard does. Where the veth pair that this needs
    /// cannot be made, their packets pass through the controller.
    async fn set_detours(&mut self, detours: &[Detour]) -> Vec<Report> {
        let Some((applier, _)) = &mut self.plane else { return Vec::new() };
        let relayed: Vec<Relayed> = detours
            .iter()
            .map(|detour| Relayed { relay: detour.relay, vni: detour.vni.get(), port: detour.port })
            .collect();
        let programs = applier.programs();
        let made = match relayed.is_empty() {
            true => Ok(()),
            false => dataplane::ensure_wrap(&self.handle, programs, &self.spec.name).await,
        };
        let set = match made {
            Ok(()) => programs.set_relayed(&relayed).map_err(|error| error.to_string()),
            Err(cause) => Err(cause.to_string()),
        };
        match set {
            // With the first and without the last of them another program has work on the underlay's devices.
            Ok(()) => self.attach_underlay(),
            Err(why) => {
                let text = format!("peer relays' headers cannot be put in the kernel: {why}");
                vec![Report::Trouble(text), Report::Detours(None)]
            }
        }
    }

    /// What the programs know of relayed peers, at their start.
    fn known_detours(&mut self) -> Option<Vec<Detour>> {
        let known = self.programs()?.relayed().ok()?;
        let detour = |relayed: Relayed| {
            Some(Detour { relay: relayed.relay, vni: Vni::new(relayed.vni)?, port: relayed.port })
        };
        Some(known.into_iter().filter_map(detour).collect())
    }

    /// Steers and relays on the underlay's devices as they are now. The relay's port comes first: where a relay is, XDP
    /// serves on more devices; its addresses last: a device sends frames only once it has XDP.
    async fn serve_underlay(&mut self) -> Vec<Report> {
        let mut reports = self.apply_relaying();
        reports.extend(self.attach_underlay());
        reports.extend(self.follow_own_addresses().await);
        reports
    }

    /// The relay's part of the maps, with our addresses as they are now.
    async fn follow_own_addresses(&mut self) -> Vec<Report> {
        if !self.relaying.is_on() {
            return self.apply_relaying();
        }
        match self.own_addresses().await {
            Ok(own) => self.relaying.set_own(own),
            Err(error) => return trouble(Err(error)),
        }
        self.apply_relaying()
    }

    /// Our addresses on devices of the underlay that send frames on or back: as the kernel says of them, or, before Linux
    /// 6.3, on all but veths, of which one cannot know. Behind others the relay's socket does it all.
    async fn own_addresses(&self) -> netlink::Result<BTreeSet<(u32, IpAddr)>> {
        let devices: Vec<u32> = self.underlay.keys().copied().collect();
        let outlets = self.handle.frame_outlets(&devices).await?;
        let sends = |index: &u32| {
            self.underlay.get(index).is_some_and(|device| {
                outlets.as_ref().map_or(!device.veth, |outlets| outlets.contains(index))
            })
        };
        let addresses = self.handle.addresses(None).await?;
        let own = addresses.iter().filter(|address| sends(&address.link));
        Ok(own.map(|address| (address.link, address.net.addr())).collect())
    }

    fn apply_relaying(&mut self) -> Vec<Report> {
        let Some((applier, _)) = &mut self.plane else { return Vec::new() };
        let veths = self.underlay.iter().filter(|(_, device)| device.veth);
        applier.programs().set_veths(veths.map(|(index, _)| *index).collect());
        trouble(self.relaying.apply(applier.programs()))
    }

    fn relay_usage(&mut self) -> RelayUsage {
        let all: BTreeSet<u32> = self.underlay.keys().copied().collect();
        let Some(programs) = self.programs() else { return RelayUsage::default() };
        let xdp = peer_relay::kernel::devices(programs).intersection(&all).count();
        let sessions = programs.relay_sessions().unwrap_or_default();
        RelayUsage { sessions, devices: Devices { all: all.len(), xdp } }
    }

    async fn observe(&self) -> Report {
        let peers = match &self.plane {
            Some((applier, _)) => applier.peers().await.map_err(|error| error.to_string()),
            // At start: what an earlier run left, before anything is changed.
            None => self.peers_of_earlier_run().await.map_err(|error| error.to_string()),
        };
        match peers {
            Ok(peers) => Report::Observed(peers),
            Err(error) => Report::Trouble(format!("the WireGuard device cannot be read: {error}")),
        }
    }

    async fn peers_of_earlier_run(&self) -> Result<Vec<ObservedPeer>, Error> {
        let Some(wireguard) = device::find(&self.handle, &self.spec).await? else { return Ok(Vec::new()) };
        let peers = dataplane::peers(&wireguard).await;
        peers.map_err(|error| Error::system("reading the device", error))
    }

    /// Removes device, routes, rules, firewall and programs.
    async fn take_away(&mut self) -> Result<(), Error> {
        self.desired = None;
        let step = |what: &'static str| move |error: netlink::Error| Error::system(what, error);
        self.verifying = None;
        if let Some((mut applier, _)) = self.plane.take() {
            // Rules do not go with the device.
            let down = Desired { mtu: types::overlay::MTU, ..Desired::default() };
            applier
                .apply(&down)
                .await
                .map_err(|failure| Error::system("taking the data plane away", failure))?;
        } else {
            dataplane::remove_rules(&self.handle).await.map_err(step("removing rules"))?;
        }
        if device::find(&self.handle, &self.spec).await?.is_some() {
            device::remove(&self.handle, &self.spec.name).await.map_err(step("removing the device"))?;
        }
        Programs::remove_all(&self.spec.name).map_err(programs_error)?;
        dataplane::remove_wrap(&self.handle, &self.spec.name)
            .await
            .map_err(step("removing the veth pair"))?;
        match self.router.remove(&self.switched).await {
            // Without `nft` there never was a table.
            Ok(()) | Err(netlink::Error::NoNft) => self.switched.clear(),
            Err(error) => return Err(Error::system("removing the firewall table", error)),
        }
        Ok(())
    }

    fn trace(&mut self, settings: Option<&TraceSettings>) -> Result<Option<TraceReader>, String> {
        let programs = self.programs().ok_or("the node is down: there is nothing to trace")?;
        programs.trace(settings).map_err(|error| error.to_string())?;
        let reader = settings.map(|_| programs.trace_reader()).transpose();
        reader.map_err(|error| error.to_string())
    }
}

/// The kinds that a person can do something about get the daemon's own exit codes.
fn programs_error(error: dataplane::Error) -> Error {
    match error {
        dataplane::Error::NotPermitted { .. } => Error::Privilege(error.to_string()),
        dataplane::Error::NoBpfFs(_) | dataplane::Error::Load(_) => Error::Kernel {
            what: error.to_string(),
            remedy: "see README.md for the kernels that are supported".into(),
        },
        _ => Error::system("eBPF", error),
    }
}

fn explain(failure: dataplane::Failure, port: u16) -> Error {
    match failure.cause {
        // A kernel WireGuard asks for its port when it is brought up.
        dataplane::Cause::Netlink(error) if error.is_taken() => device::port_in_use(port, &error),
        _ => Error::system("changing the data plane", failure),
    }
}

/// The end of a task, if there is one.
async fn end_of<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

fn mechanism() -> &'static str {
    match Mechanism::of_kernel() {
        Mechanism::Tcx => "tcx",
        Mechanism::Clsact | Mechanism::Xdp => "clsact",
    }
}

fn firewall(result: netlink::Result<()>) -> Report {
    Report::Firewall(result.map_err(|error| error.to_string()))
}

pub(crate) fn trouble<E: std::fmt::Display>(result: Result<(), E>) -> Vec<Report> {
    result.err().map(|error| Report::Trouble(error.to_string())).into_iter().collect()
}
