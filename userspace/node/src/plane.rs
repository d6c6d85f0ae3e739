//! The data plane and the underlay as the daemon knows them: orders to the kernel's writer, its reports, the kernel's events.
//!
//! Deliberately not here: what the kernel should be (`node-core`), how it becomes that (`kernel`).

use std::time::Instant;

use dataplane::{AnsweredPing, AnsweredReader, Steering};
use node_core::PortMapping;
use wire::disco::TxId;
use wire::local::Notify;

use crate::chores::Chore;
use crate::daemon::{Daemon, Task};
use crate::event_loop::Input;
use crate::health::code;
use crate::kernel::{Command, Plane, Report};
use crate::local_api::Refusal;
use crate::router;
use crate::sockets::tunnel;
use crate::underlay::{self, Snapshot};
use crate::{Error, device, firewall, portmap};

impl Daemon {
    /// Hands the wanted state to the kernel's writer.
    pub(crate) fn apply_desired(&self) {
        self.order(Command::Apply(Box::new(self.node.desired().clone())));
    }

    /// Orders something of the kernel's writer.
    pub(crate) fn order(&self, command: Command) {
        // The writer ends only after us.
        _ = self.kernel.send(command);
    }

    /// The specification of our device as it should be now.
    pub(crate) fn device_spec(&self) -> device::Spec {
        device::Spec::new(&self.config, self.state.node_key.clone(), self.port())
    }

    /// The kernel's writer reports.
    pub(crate) fn on_kernel(&mut self, report: Report, now: Instant) {
        match report {
            Report::Observed(peers) => {
                self.traffic.observe(&peers, |key| self.node.relay_of(key, now));
                self.node.handle_kernel(&peers, now);
            }
            Report::Applied { generation, result: Ok(plane) } => self.applied(generation, plane, now),
            Report::Detours(known) => self.node.handle_detours(known.as_deref(), now),
            Report::Prepared(Ok(())) => self.release(),
            Report::Applied { result: Err(error), .. } | Report::Prepared(Err(error)) => {
                self.not_applied(&error, now);
            }
            Report::Answering(reader) => self.read_answered(reader),
            Report::Steered(steered) => self.follow_steering(steered),
            Report::Switched(switches) => {
                self.state.forwarding = switches;
                self.save();
            }
            Report::Firewall(result) => {
                let changed = match result {
                    Ok(()) => self.health.clear(code::FIREWALL),
                    Err(text) => self.health.set(code::FIREWALL, text),
                };
                if changed {
                    self.tell_health();
                }
            }
            Report::Trouble(text) => tracing::warn!("{text}"),
        }
    }

    fn applied(&mut self, generation: u64, plane: Option<Plane>, now: Instant) {
        tracing::debug!(generation, up = plane.is_some(), "the kernel is as wanted");
        if self.health.clear(code::KERNEL) {
            self.tell_health();
        }
        self.follow_plane(plane);
        self.chores.cancel(Chore::Reapply);
        if self.plane.is_some() {
            self.chores.ask(Chore::CheckFirewall, now);
        } else if !self.node.desired().up {
            self.waiting_for_down.drain(..).for_each(|answer| answer(Ok(())));
        }
    }

    /// Pings that the kernel answers are evidence for the core.
    fn read_answered(&mut self, mut reader: AnsweredReader) {
        let inputs = self.inputs.clone();
        self.answered = Some(Task(tokio::spawn(async move {
            loop {
                let pings = reader.next().await?;
                if inputs.send(Input::Answered(pings)).await.is_err() {
                    return Ok(());
                }
            }
        })));
    }

    /// The kernel has answered pings.
    pub(crate) fn on_answered(&mut self, pings: &[AnsweredPing], now: Instant) {
        for AnsweredPing { disco, source, tx_id } in pings {
            self.node.handle_answered(*disco, *source, TxId(*tx_id), now);
        }
    }

    fn follow_steering(&mut self, steered: Vec<(String, Steering)>) {
        if steered != self.steered {
            tracing::info!(?steered, "how packets are steered");
            self.steered = steered;
        }
    }

    fn not_applied(&mut self, error: &Error, now: Instant) {
        let text = error.to_string();
        if !self.node.desired().up {
            let refusal = || Refusal::Failed(text.clone());
            self.waiting_for_down.drain(..).for_each(|answer| answer(Err(refusal())));
        }
        if self.health.set(code::KERNEL, text.clone()) {
            self.tell(Notify { err_message: Some(text), ..Notify::default() });
            self.tell_health();
        }
        self.chores.ask(Chore::Reapply, now);
    }

    /// Takes note of what is in the kernel. Peers' pings are answered on the device as long as it is there.
    fn follow_plane(&mut self, plane: Option<Plane>) {
        match plane {
            Some(_) => self.order(Command::Pins(self.node.pinned_routes())),
            None => {
                self.held = Some(Vec::new());
                self.order(Command::Rest);
            }
        }
        if plane != self.plane {
            let device = self.config.device.clone();
            let inputs = self.inputs.clone();
            let answer = async move { tunnel::answer_tsmp(&device, &inputs).await };
            self.tsmp = plane.as_ref().map(|_| Task(tokio::spawn(answer)));
        }
        let came = self.plane.is_none() && plane.is_some();
        self.plane = plane;
        if came {
            self.look_at_firewall();
        }
        self.follow_router();
    }

    /// A port mapping is wanted as long as there is a tunnel to be reached.
    fn follow_router(&mut self) {
        let port = self.port();
        let router = self.underlay.router.filter(|_| self.plane.is_some());
        self.portmap.want(router.and_then(|(gateway, local)| portmap::Wanted::new(gateway, local, port)));
    }

    /// The router was asked for a port mapping.
    pub(crate) fn on_portmap(&mut self, report: portmap::Report, now: Instant) {
        self.portmap.report = report;
        self.tell_port_mapping(now);
    }

    /// Tells the core what the router granted.
    pub(crate) fn tell_port_mapping(&mut self, now: Instant) {
        let report = self.portmap.report;
        let asked = |offered: bool| report.asked.then_some(offered);
        let mapping = PortMapping {
            external: report.external.map(Into::into),
            upnp: asked(report.upnp),
            nat_pmp: asked(report.nat_pmp),
            pcp: asked(report.pcp),
        };
        self.node.handle_port_mapping(mapping, now);
    }

    /// Reads the machine's own firewall, in the background: would it let a new peer's packet in?
    pub(crate) fn look_at_firewall(&self) {
        if self.plane.is_none() {
            return;
        }
        let port = self.port();
        let outside = self.underlay.outside();
        let packets = outside.map(|(device, ipv6)| firewall::Packet { device, ipv6, port }).collect();
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let found = firewall::look(packets).await;
            // A loop that has ended needs no answer.
            _ = inputs.send(Input::HostFirewall(found)).await;
        });
    }

    /// DISCO gets through and WireGuard does not: perhaps by our own machine's doing.
    pub(crate) fn suspect_firewall(&mut self, now: Instant) {
        if self.is_wireguard_blocked() {
            self.chores.ask(Chore::LookAtFirewall, now);
        }
    }

    fn is_wireguard_blocked(&self) -> bool {
        self.node.health().iter().any(|warning| warning.code == "wireguard-blocked")
    }

    /// The machine's own firewall was read. It is read again as long as anything is wrong.
    pub(crate) fn on_host_firewall(
        &mut self,
        found: Option<&(firewall::Packet, firewall::Blocked)>,
        now: Instant,
    ) {
        let changed = match found {
            Some((packet, blocked)) => {
                self.health.set(code::HOST_FIREWALL, firewall::sentence(packet, blocked))
            }
            None => self.health.clear(code::HOST_FIREWALL),
        };
        if changed {
            self.tell_health();
        }
        if found.is_some() || self.is_wireguard_blocked() {
            self.chores.ask(Chore::LookAtFirewall, now);
        }
    }

    /// The programs are there: sends what waited for them.
    fn release(&mut self) {
        for transmit in self.held.take().into_iter().flatten() {
            self.transmit(transmit);
        }
    }

    /// Something of the kernel's network changed: ours is put back, the underlay is read again.
    pub(crate) fn on_netlink(&mut self, event: &netlink::Event, now: Instant) {
        let own = self.plane.as_ref().map(|plane| plane.link);
        if underlay::concerns(event, own) {
            self.chores.ask(Chore::ReadUnderlay, now);
        }
        if let netlink::Event::FirewallCut(table) = event
            && *table == router::table_name(&self.config.device)
            && own.is_some()
        {
            self.chores.hurry(Chore::CheckFirewall, now);
        }
        let is_ours = match event {
            netlink::Event::LinkRemoved(link) => Some(link.index) == own,
            netlink::Event::RuleRemoved(rule) => rule.protocol == dataplane::PROTOCOL,
            netlink::Event::RouteRemoved(route) => {
                route.protocol == dataplane::PROTOCOL && route.table == self.config.table
            }
            // It may have been ours.
            netlink::Event::Lost => true,
            _ => false,
        };
        if matches!(event, netlink::Event::RouteRemoved(route) if route.table == self.config.underlay_table) {
            // By ourselves, most likely; then there is nothing to do.
            self.order(Command::Pins(self.node.pinned_routes()));
        }
        if is_ours && own.is_some() && self.node.desired().up {
            self.chores.ask(Chore::Reapply, now);
        }
    }

    /// The underlay was read again.
    pub(crate) fn on_underlay(&mut self, snapshot: Snapshot, now: Instant) {
        if snapshot == self.underlay {
            return;
        }
        let names: Vec<&str> = snapshot.devices.values().map(|device| &*device.name).collect();
        tracing::info!(devices = ?names, "the underlay changed");
        if snapshot.devices != self.underlay.devices {
            self.order(Command::Underlay(snapshot.devices.clone()));
        }
        if snapshot.lans != self.underlay.lans {
            self.order(Command::Lans(snapshot.lans.clone()));
        }
        if snapshot.underlay != self.underlay.underlay {
            self.node.handle_underlay(snapshot.underlay.clone(), now);
            self.login.reconnect();
        }
        self.underlay = snapshot;
        self.tell_relay();
        self.follow_router();
    }

    /// Reads the underlay, in the background.
    pub(crate) fn read_underlay(&self) {
        let (handle, device, inputs) =
            (self.netlink.clone(), self.config.device.clone(), self.inputs.clone());
        tokio::spawn(async move {
            match underlay::read(&handle, &device).await {
                // A loop that has ended needs no answer.
                Ok(snapshot) => _ = inputs.send(Input::Underlay(snapshot)).await,
                Err(error) => tracing::warn!(%error, "the underlay cannot be read"),
            }
        });
    }
}
