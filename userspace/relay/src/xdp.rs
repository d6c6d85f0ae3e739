//! STUN ahead of the stack: the eBPF program `stun` on every device that can send a frame back where it came from.
//!
//! It answers what the socket would answer and leaves it the rest, so it may be missing anywhere: without root, on drivers
//! without XDP, beside somebody else's XDP program, or when a step fails. Devices and addresses are followed as they come
//! and go. A server that stops takes its programs away; one that is killed leaves them, and its successor takes them over.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dataplane::{NoXdp, Program, Programs, Reason, StunService};
use netlink::{Address, Event, Handle, Kind, Link, Watch};
use tokio::time::{sleep, timeout};

use crate::{STUN_RATE, StunOptions};

/// Whether STUN may be answered ahead of the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Xdp {
    /// Wherever it can be and serves: not on veths, where XDP switches segmentation off at the other end, which costs DERP
    /// more than STUN gains.
    #[default]
    Auto,
    /// Wherever it can be.
    On,
    /// Nowhere.
    Off,
}

impl FromStr for Xdp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            other => Err(format!("{other:?}: give auto, on or off")),
        }
    }
}

/// A storm of changes is one.
const SETTLED: Duration = Duration::from_millis(100);
/// After a failed step.
const AGAIN: Duration = Duration::from_secs(10);

/// The programs of one STUN server. They are loaded when there is a device for them.
pub(crate) struct Ahead {
    /// The name of the programs' pins; no interface has a colon in its name.
    name: String,
    place: SocketAddr,
    options: StunOptions,
    programs: Mutex<Option<Programs>>,
}

impl Ahead {
    /// Nothing yet, for the socket at `place`.
    pub(crate) fn new(place: SocketAddr, options: StunOptions) -> Self {
        Self { name: format!(":stun-{}", place.port()), place, options, programs: Mutex::new(None) }
    }

    /// Follows devices and addresses for ever.
    pub(crate) async fn run(&self) -> Infallible {
        let mut said = BTreeMap::new();
        loop {
            let Err(error) = self.follow(&mut said).await;
            let why = format!("{error:#}");
            if said.insert(String::new(), why.clone()).as_ref() != Some(&why) {
                tracing::info!(why, "STUN is answered by the socket alone");
            }
            sleep(AGAIN).await;
        }
    }

    /// What the programs did with requests, by reason.
    pub(crate) fn counters(&self) -> Vec<(Reason, u64)> {
        let programs = self.programs();
        let counts = programs.as_ref().and_then(|programs| programs.counters().ok()).unwrap_or_default();
        let stun = counts.iter().filter(|count| count.program == Program::Stun);
        stun.map(|count| (count.reason, count.packets)).collect()
    }

    async fn follow(&self, said: &mut BTreeMap<String, String>) -> anyhow::Result<Infallible> {
        let handle = Handle::open()?;
        let mut watch = Watch::open()?;
        loop {
            self.apply(&handle, said).await?;
            while !concerns(&watch.next().await?) {}
            // Until there was no event for a moment.
            while let Ok(event) = timeout(SETTLED, watch.next()).await {
                event?;
            }
        }
    }

    /// Serves the devices and addresses there are now. Says once of each device how it is served.
    async fn apply(&self, handle: &Handle, said: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
        let (links, addresses) = (handle.links().await?, handle.addresses(None).await?);
        let found = devices(&links, &addresses, self.place.ip());
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(link, _)| self.options.xdp == Xdp::On || !link.kind.is("veth"));
        let mut how: BTreeMap<String, String> =
            unwanted.iter().map(|(link, _)| (link.name.clone(), NoXdp::Veth.to_string())).collect();
        if !wanted.is_empty() {
            self.load().await?;
        }
        let mut attached = BTreeMap::new();
        for (link, _) in &wanted {
            let Some(programs) = &mut *self.programs() else { continue };
            match programs.attach_xdp(link.index)? {
                Ok(()) => _ = attached.insert(link.index, link),
                Err(why) => _ = how.insert(link.name.clone(), why.to_string()),
            }
        }
        // Asked now: most drivers take frames only once they have a program.
        let indices: Vec<u32> = attached.keys().copied().collect();
        let outlets = handle.frame_outlets(&indices).await?;
        let mut own = BTreeSet::new();
        for (link, ips) in wanted.iter().filter(|(link, _)| attached.contains_key(&link.index)) {
            let answers = answers(link, outlets.as_ref());
            let ips = ips.iter().filter(|_| answers);
            own.extend(ips.map(|ip| (link.index, *ip)));
            let why = if answers { "" } else { "its other end takes no frames" };
            how.insert(link.name.clone(), why.to_owned());
        }
        if let Some(programs) = &mut *self.programs() {
            let veths = attached.iter().filter(|(_, link)| link.kind.is("veth"));
            programs.set_veths(veths.map(|(index, _)| *index).collect());
            programs.set_own_addresses(&own)?;
        }
        for (device, why) in how {
            if said.insert(device.clone(), why.clone()).as_ref() == Some(&why) {
                continue;
            }
            if why.is_empty() {
                tracing::info!(device, "STUN is answered ahead of the stack (XDP)");
            } else {
                tracing::info!(device, why, "STUN is answered by the socket alone");
            }
        }
        Ok(())
    }

    /// Loads the programs, or takes over those of a predecessor.
    async fn load(&self) -> anyhow::Result<()> {
        if self.programs().is_some() {
            return Ok(());
        }
        let (pins, port, dropping) = (self.name.clone(), self.place.port(), self.options.dropping);
        let loaded = tokio::task::spawn_blocking(move || {
            let mut programs = Programs::load_or_adopt(&pins)?;
            programs.set_stun(&StunService {
                port,
                dropping,
                per_second: STUN_RATE.per_second as u32,
                burst: STUN_RATE.burst as u32,
            })?;
            Ok::<_, dataplane::Error>(programs)
        });
        *self.programs() = Some(loaded.await??);
        Ok(())
    }

    fn programs(&self) -> MutexGuard<'_, Option<Programs>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if self.programs().take().is_some()
            && let Err(error) = Programs::remove_all(&self.name)
        {
            tracing::warn!(%error, "STUN programs not removed");
        }
    }
}

/// Ethernet devices without VLANs on them (a card takes the tag off, and an answer would go out without it), and which of
/// their addresses the socket serves.
fn devices<'a>(links: &'a [Link], addresses: &[Address], place: IpAddr) -> Vec<(&'a Link, Vec<IpAddr>)> {
    let has_vlans =
        |link: &Link| links.iter().any(|other| other.kind.is("vlan") && other.lower == Some(link.index));
    let serves = |ip: &IpAddr| match place {
        IpAddr::V4(place) if place.is_unspecified() => ip.is_ipv4(),
        IpAddr::V6(place) if place.is_unspecified() => true,
        place => place == *ip,
    };
    let of = |link: &Link| {
        let here = addresses.iter().filter(|address| address.link == link.index);
        here.map(|address| address.net.addr()).filter(serves).collect::<Vec<_>>()
    };
    links
        .iter()
        .filter(|link| link.up && link.mac.is_some() && !has_vlans(link))
        .filter(|link| !matches!(link.kind, Kind::Loopback | Kind::Wireguard | Kind::Tun))
        .map(|link| (link, of(link)))
        .filter(|(_, ips)| !ips.is_empty())
        .collect()
}

/// Whether a device sends a frame back where it came from. Cards do; a veth does if its other end takes frames, and then
/// the kernel says so (from 6.3).
fn answers(link: &Link, outlets: Option<&BTreeSet<u32>>) -> bool {
    !link.kind.is("veth") || outlets.is_some_and(|outlets| outlets.contains(&link.index))
}

fn concerns(event: &Event) -> bool {
    !matches!(
        event,
        Event::RouteChanged(_) | Event::RouteRemoved(_) | Event::RuleAdded(_) | Event::RuleRemoved(_)
    )
}
