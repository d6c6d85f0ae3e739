//! Port mapping: asks this machine's router that WireGuard's UDP port be reachable from outside, by PCP, NAT-PMP or UPnP.
//!
//! One task, started with the first address that needs a mapping (a private address and an IPv4 gateway), idle otherwise. A
//! mapping is held as long as [`Portmap::want`] says the same, renewed at half of its life, and taken back when the way out
//! changes, the node goes down or ends. Only the gateway itself is asked, by sockets that carry the bypass mark: never another
//! router, never through our own tunnel. Deliberately not here: bytes and XML (`wire::portmap`), who is told (`node-core`).

mod router;
mod upnp;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::sync::watch::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use wire::portmap::Granted;

use self::router::Router;
use crate::daemon::Task;
use crate::event_loop::Input;

/// What is asked for; routers may grant less (RFC 6886 section 3.3 recommends this).
const LIFETIME: Duration = Duration::from_secs(7200);
/// A mapping is not renewed more often than this, whatever the router grants.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);
/// When no router answers, the next attempt: it may have been restarted, or reconfigured.
const RETRY: Duration = Duration::from_secs(600);
/// For taking a mapping back when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// The router that is asked, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The router.
    pub(crate) gateway: Ipv4Addr,
    /// Our address on the way there.
    pub(crate) local: Ipv4Addr,
    /// WireGuard's UDP port.
    pub(crate) port: u16,
}

impl Wanted {
    /// `None` where a mapping makes no sense: the address is reachable from outside already, or not from the router.
    pub(crate) fn new(gateway: Ipv4Addr, local: Ipv4Addr, port: u16) -> Option<Self> {
        // RFC 6598: a carrier's NAT may speak PCP. RFC 5737: nobody outside reaches these either.
        let shared = local.octets()[0] == 100 && local.octets()[1] & 0xc0 == 64;
        let needs_one = local.is_private() || shared || local.is_documentation();
        (needs_one && !gateway.is_unspecified()).then_some(Self { gateway, local, port })
    }
}

/// What the router offers and has granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The router was asked.
    pub(crate) asked: bool,
    /// It speaks UPnP.
    pub(crate) upnp: bool,
    /// It speaks NAT-PMP.
    pub(crate) nat_pmp: bool,
    /// It speaks PCP.
    pub(crate) pcp: bool,
    /// Where the outside reaches us.
    pub(crate) external: Option<SocketAddrV4>,
}

/// Handle of the task.
pub(crate) struct Portmap {
    enabled: bool,
    inputs: mpsc::Sender<Input>,
    /// What the task told last.
    pub(crate) report: Report,
    running: Option<(watch::Sender<Option<Wanted>>, Task<()>)>,
}

impl Portmap {
    pub(crate) fn new(enabled: bool, inputs: mpsc::Sender<Input>) -> Self {
        Self { enabled, inputs, report: Report::default(), running: None }
    }

    /// Whose router is to be asked, if any.
    pub(crate) fn want(&mut self, wanted: Option<Wanted>) {
        let wanted = wanted.filter(|_| self.enabled);
        match &self.running {
            Some((watched, _)) => {
                watched.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
            }
            None if wanted.is_some() => {
                let (watched, watching) = watch::channel(wanted);
                let task = tokio::spawn(keep(watching, self.inputs.clone()));
                self.running = Some((watched, Task(task)));
            }
            None => {}
        }
    }

    /// Takes the mapping back; best effort, and quick.
    pub(crate) async fn release(&mut self) {
        let Some((wanted, mut task)) = self.running.take() else { return };
        wanted.send_replace(None);
        drop(wanted);
        // What the router does not hear now runs out by itself.
        _ = timeout(FAREWELL, &mut task.0).await;
    }
}

/// Holds a mapping for whatever is wanted, until nobody can want one any more.
async fn keep(mut watching: watch::Receiver<Option<Wanted>>, inputs: mpsc::Sender<Input>) {
    loop {
        let wanted = *watching.borrow_and_update();
        let Some(wanted) = wanted else {
            // A loop that has ended needs no report.
            _ = inputs.send(Input::Portmap(Report::default())).await;
            if watching.changed().await.is_err() {
                return;
            }
            continue;
        };
        if hold(wanted, &mut watching, &inputs).await.is_err() {
            return;
        }
    }
}

/// What was granted and by which protocol.
pub(crate) struct Mapping {
    granted: Granted,
    by: router::Protocol,
}

/// Asks, renews and asks again, until something else is wanted; then takes the mapping back. An error when nobody can want
/// anything any more.
async fn hold(
    wanted: Wanted,
    watching: &mut watch::Receiver<Option<Wanted>>,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), RecvError> {
    let mut held: Option<(Router, Mapping)> = None;
    loop {
        // Not given up half way: what the router granted unheard could not be taken back.
        match Router::open(wanted).await {
            Ok(router) => held = ask(router, held, inputs).await,
            Err(error) => tracing::debug!(gateway = %wanted.gateway, %error, "the router cannot be asked"),
        }
        let half = held.as_ref().map(|(_, mapping)| mapping.granted.lifetime / 2);
        let wait = half.map_or(RETRY, |half| half.max(SHORTEST_LIFETIME));
        tokio::select! {
            () = sleep(wait) => {}
            changed = watching.changed() => {
                if let Some((router, mapping)) = held {
                    router.release(&mapping).await;
                }
                return changed;
            }
        }
    }
}

/// Asks the router once, for the same as before if there was something before, and reports.
async fn ask(
    mut router: Router,
    held: Option<(Router, Mapping)>,
    inputs: &mpsc::Sender<Input>,
) -> Option<(Router, Mapping)> {
    let offered = router.probe().await;
    let before = held.map(|(_, mapping)| mapping);
    let mapping = router.map(&offered, before.as_ref()).await;
    let external = mapping.as_ref().map(|mapping| mapping.granted.external);
    if external != before.map(|mapping| mapping.granted.external) {
        tracing::info!(?external, ?offered, "the router's port mapping");
    }
    // A loop that has ended needs no report.
    _ = inputs.send(Input::Portmap(Report { asked: true, external, ..offered })).await;
    mapping.map(|mapping| (router, mapping))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_addresses_need_a_mapping() {
        let wanted = |local: &str| Wanted::new([192, 168, 1, 1].into(), local.parse().unwrap(), 41641);
        assert!(wanted("192.168.1.7").is_some() && wanted("100.72.0.9").is_some());
        assert!(wanted("198.18.0.7").is_none() && wanted("100.128.0.1").is_none());
        assert!(Wanted::new(Ipv4Addr::UNSPECIFIED, [10, 0, 0, 1].into(), 1).is_none());
    }
}
