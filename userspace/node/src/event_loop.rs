//! The event loop: every input of the daemon in one closed enum, taken one at a time, handed on, and drained.
//!
//! Tasks that wait for something slow (connections, netlink, name lookups) end in this enum too. Deliberately not here: what
//! an input does; each kind has its method of [`Daemon`].

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use dataplane::AnsweredPing;
use netlink::Watch;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use types::{DiscoPublic, RegionId};

use crate::daemon::Daemon;
use crate::local_api::Request;
use crate::sockets::{Controller, Datagram, FromKernel, Loopback};
use crate::underlay::Snapshot;
use crate::{Error, control, derp, firewall, kernel, peer_relay, portmap};

/// Everything that can happen to the daemon.
pub(crate) enum Input {
    /// The control client has something to say. The number names the client: an old one's last words are not heard.
    Control(u64, control::Event),
    /// DISCO and STUN came in.
    Datagrams(Vec<Datagram>),
    /// The kernel's WireGuard wants packets carried over DERP.
    FromKernel(Vec<FromKernel>),
    /// A DERP region has something to say.
    Derp(RegionId, derp::Event),
    /// The kernel's writer reports.
    Kernel(kernel::Report),
    /// The kernel's programs answered pings.
    Answered(Vec<AnsweredPing>),
    /// Something of the kernel's network changed.
    Netlink(netlink::Event),
    /// The underlay was read again.
    Underlay(Snapshot),
    /// Somebody asks something through the local API.
    Request(Box<Request>),
    /// The peer relay has something to say.
    Relay(peer_relay::Event),
    /// The router was asked for a port mapping.
    Portmap(portmap::Report),
    /// Whether a captive portal stands before the Internet; unknown where nobody could be asked.
    Portal(Option<bool>),
    /// What of the machine's own firewall drops WireGuard, if anything does.
    HostFirewall(Option<(firewall::Packet, firewall::Blocked)>),
    /// A peer told its DISCO key inside the tunnel.
    DiscoKey(IpAddr, DiscoPublic),
    /// A name was looked up.
    Resolved(String, Vec<IpAddr>),
    /// A deadline passed.
    Timer,
    /// The supervisor wants to hear from us.
    Watchdog,
    /// The daemon shall end; why.
    Stop(&'static str),
}

/// Where inputs come from.
pub(crate) struct Sources {
    /// From every task.
    pub(crate) tasks: mpsc::Receiver<Input>,
    /// From the local API.
    pub(crate) requests: mpsc::Receiver<Request>,
    /// DISCO and STUN.
    pub(crate) controller: Controller,
    /// Packets for DERP.
    pub(crate) loopback: Arc<Loopback>,
    /// Changes of the kernel's network.
    pub(crate) netlink: Watch,
    /// Ticks as often as the supervisor wants to hear from us.
    pub(crate) watchdog: Option<tokio::time::Interval>,
    /// SIGTERM.
    pub(crate) terminate: Signal,
    /// SIGINT.
    pub(crate) interrupt: Signal,
}

impl Sources {
    /// The next input; [`Input::Timer`] at `deadline`.
    async fn next(&mut self, deadline: Option<Instant>) -> Result<Input, Error> {
        let timer = async {
            match deadline {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let watchdog = async {
            match &mut self.watchdog {
                Some(interval) => interval.tick().await,
                None => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            _ = watchdog => Input::Watchdog,
            Some(input) = self.tasks.recv() => input,
            Some(request) = self.requests.recv() => Input::Request(Box::new(request)),
            batch = self.controller.receive() => Input::Datagrams(batch.map_err(lost("the DISCO socket"))?),
            batch = self.loopback.receive() => Input::FromKernel(batch.map_err(lost("the loopback socket"))?),
            event = self.netlink.next() => {
                Input::Netlink(event.map_err(|error| Error::system("watching the kernel's network", error))?)
            }
            _ = self.terminate.recv() => Input::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Input::Stop("SIGINT"),
            () = timer => Input::Timer,
        })
    }
}

fn lost(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::system(format!("receiving from {what}"), error)
}

/// Runs until an input says stop.
///
/// # Errors
/// When a socket the daemon cannot do without breaks.
pub(crate) async fn run(mut daemon: Daemon, mut sources: Sources) -> Result<(), Error> {
    daemon.drain(Instant::now());
    loop {
        let input = sources.next(daemon.next_deadline()).await?;
        let now = Instant::now();
        match input {
            Input::Control(client, event) => daemon.on_control(client, event, now),
            Input::Datagrams(batch) => daemon.on_datagrams(&batch, now),
            Input::FromKernel(batch) => daemon.on_loopback(batch, now),
            Input::Derp(region, event) => daemon.on_derp(region, event, now),
            Input::Kernel(report) => daemon.on_kernel(report, now),
            Input::Answered(pings) => daemon.on_answered(&pings, now),
            Input::Netlink(event) => daemon.on_netlink(&event, now),
            Input::Underlay(snapshot) => daemon.on_underlay(snapshot, now),
            Input::Request(request) => match *request {
                Request::Shutdown { reply } => {
                    _ = reply.send(());
                    daemon.save_relay().await;
                    return daemon.stop("a request to shut down").await;
                }
                request => daemon.on_request(request, now),
            },
            Input::Relay(event) => daemon.on_relay(event, now),
            Input::Portmap(report) => daemon.on_portmap(report, now),
            Input::Portal(found) => daemon.on_portal(found),
            Input::HostFirewall(found) => daemon.on_host_firewall(found.as_ref(), now),
            Input::DiscoKey(from, key) => daemon.on_disco_key(from, key, now),
            Input::Resolved(host, addresses) => daemon.on_resolved(&host, &addresses, now),
            Input::Watchdog => daemon.systemd.alive(),
            Input::Timer => daemon.on_timer(now),
            Input::Stop(why) => {
                daemon.save_relay().await;
                return daemon.stop(why).await;
            }
        }
        daemon.drain(now);
    }
}
