//! STUN and the underlay: netchecks started, pumped and concluded; our own endpoints and home region follow.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use types::RegionId;
use wire::control::NetInfo;
use wire::stun::{decode_response, encode_request};

use super::Node;
use crate::input::PortMapping;
use crate::netcheck::Families;
use crate::output::{Event, Transmit};
use crate::path::Path;
use crate::report::Report;
use crate::timers::Wake;
use crate::underlay::Underlay;

/// A netcheck keeps NAT mappings open, which many NATs close after 30 s: between 20 and 26 s, so that a fleet spreads.
const RESTUN_MIN: Duration = Duration::from_secs(20);
const RESTUN_SPREAD_MS: u64 = 6000;

impl Node {
    /// The machine's addresses or routes changed. What went away may have carried paths, so those are doubted; our
    /// own endpoints are gathered again.
    pub fn handle_underlay(&mut self, underlay: Underlay, now: Instant) {
        if underlay == self.underlay {
            return;
        }
        let old = std::mem::replace(&mut self.underlay, underlay);
        if old != Underlay::default() {
            self.follow_underlay(&old, now);
        }
        self.refresh_endpoints(now);
        self.start_netcheck(now);
        self.refresh_health(now);
    }

    fn follow_underlay(&mut self, old: &Underlay, now: Instant) {
        let lost_address = old.addresses.iter().any(|addr| !self.underlay.addresses.contains(addr));
        let unsettled = lost_address || old.has_default() != self.underlay.has_default();
        if unsettled {
            self.endpoints.forget();
            self.netcheck.reset();
        }
        for key in self.peers.keys() {
            let underlay = &self.underlay;
            let doubtful = |path: &Path| path.uplink.map_or(unsettled, |uplink| !underlay.has_uplink(uplink));
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.doubt(doubtful, now);
            if peer.is_active(now) && !peer.is_blocked(now) {
                self.probe_urgently(key, now);
            }
            self.settle(key, now);
        }
    }

    /// Addresses that the administrator knows to lead here, a forwarded port for instance: peers are told of them as they are.
    pub fn set_static_endpoints(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        self.endpoints.fix(addresses);
        self.refresh_endpoints(now);
    }

    /// The answer to [`Event::Resolve`]; empty when there is none.
    pub fn handle_resolved(&mut self, host: &str, addresses: &[IpAddr], now: Instant) {
        let Some(entry) = self.names.get_mut(host) else { return };
        *entry = Some(addresses.to_vec());
        if !addresses.is_empty() {
            self.netcheck.reset();
            self.start_netcheck(now);
        }
    }

    /// A netcheck now, unless one is under way or we are not running.
    pub(super) fn start_netcheck(&mut self, now: Instant) {
        if !self.is_running(now) || self.netcheck.is_running() {
            return;
        }
        let families = Families {
            v4: self.underlay.addresses.iter().any(|net| is_usable(net.addr(), true)),
            v6: self.underlay.addresses.iter().any(|net| is_usable(net.addr(), false)),
        };
        let names =
            self.names.iter().filter_map(|(name, known)| Some((name.clone(), known.clone()?))).collect();
        self.sides.start();
        let unknown = self.netcheck.start(self.netmap.derp(), &names, families, self.home, now);
        for name in unknown {
            if self.names.insert(name.clone(), None).is_none() {
                self.events.push_back(Event::Resolve(name));
            }
        }
        self.pump_netcheck(now);
    }

    /// Sends what is due of the running netcheck, and concludes it when it is over.
    pub(super) fn pump_netcheck(&mut self, now: Instant) {
        for (to, tx_id) in self.netcheck.poll(&mut self.rng, now) {
            let bytes = encode_request(tx_id).to_vec();
            self.transmits.push_back(Transmit::Udp { path: Path::direct(to), bytes });
            for (path, tx_id) in self.sides.accompany(to, &self.underlay, &mut self.rng) {
                let bytes = encode_request(tx_id).to_vec();
                self.transmits.push_back(Transmit::Udp { path, bytes });
            }
        }
        if let Some(report) = self.netcheck.finish(now) {
            self.conclude(&report, now);
        }
        for (wake, at) in
            [(Wake::Probe, self.netcheck.next_probe()), (Wake::NetcheckEnds, self.netcheck.deadline())]
        {
            match at {
                Some(at) => self.timers.set(wake, at),
                None => self.timers.stop(wake),
            }
        }
    }

    pub(super) fn handle_stun(&mut self, bytes: &[u8], now: Instant) {
        let Ok((tx_id, seen)) = decode_response(bytes) else { return };
        if self.sides.handle(tx_id) {
            self.endpoints.note_side(seen, now);
            self.refresh_endpoints(now);
        } else if self.netcheck.handle(tx_id, seen, now) {
            self.pump_netcheck(now);
        }
    }

    /// Our mapping may have changed: ask again, as long as anybody talks to us.
    pub(super) fn restun(&mut self, now: Instant) {
        // A name that could not be looked up gets another chance.
        self.names.retain(|_, known| known.as_ref().is_none_or(|addresses| !addresses.is_empty()));
        if self.peers.iter().any(|peer| peer.is_active(now)) {
            let wait = RESTUN_MIN + Duration::from_millis(self.rng.below(RESTUN_SPREAD_MS));
            self.timers.set(Wake::Restun, now + wait);
            self.start_netcheck(now);
        }
    }

    fn conclude(&mut self, report: &Report, now: Instant) {
        self.endpoints.note(report, self.wireguard_port, now);
        self.refresh_endpoints(now);
        let home = self.choose_home(report, now);
        self.set_home(home, now);
        self.note_net_info(report.net_info(home));
        self.events.push_back(Event::NetcheckEnded);
        for key in std::mem::take(&mut self.to_call) {
            self.call(key, now);
        }
        self.refresh_health(now);
    }

    /// The router was asked for a port mapping.
    pub fn handle_port_mapping(&mut self, mapping: PortMapping, now: Instant) {
        self.port_mapping = mapping;
        self.endpoints.map(mapping.external);
        self.refresh_endpoints(now);
        self.note_net_info(self.net_info.clone());
    }

    /// Measures every region anew, unless that is under way; [`Event::NetcheckEnded`] follows. False when not running.
    pub fn measure(&mut self, now: Instant) -> bool {
        if !self.netcheck.is_running() {
            self.netcheck.reset();
            self.start_netcheck(now);
        }
        self.is_running(now)
    }

    /// What the last netcheck found, as address families and regions.
    pub fn report(&self) -> &Report {
        self.netcheck.last()
    }

    /// What the router offers and has granted.
    pub fn port_mapping(&self) -> &PortMapping {
        &self.port_mapping
    }

    fn note_net_info(&mut self, info: NetInfo) {
        let PortMapping { external, upnp, nat_pmp, pcp } = self.port_mapping;
        let info = NetInfo { have_port_map: external.is_some(), upnp, pmp: nat_pmp, pcp, ..info };
        if !basically_equal(&info, &self.net_info) {
            self.events.push_back(Event::NetInfoChanged);
        }
        self.net_info = info;
    }

    fn refresh_endpoints(&mut self, now: Instant) {
        if self.endpoints.refresh(&self.underlay, self.wireguard_port, now) {
            self.events.push_back(Event::EndpointsChanged(self.endpoints.list().to_vec()));
        }
    }

    fn choose_home(&mut self, report: &Report, now: Instant) -> Option<RegionId> {
        let heard = self.home.and_then(|home| self.connections.get(&home)?.heard);
        let chosen = self.derp_home.choose(&report.latencies(), self.netmap.derp(), self.home, heard, now);
        let asking = self.names.values().any(Option::is_none);
        match (chosen, self.home) {
            // Nobody could be told.
            (_, Some(home)) if !self.control_connected => Some(home),
            (Some(region), _) => Some(region),
            (None, Some(home)) => Some(home),
            (None, None) if asking => None,
            (None, None) => self.draw_home(),
        }
    }

    /// UDP is blocked and no region is known: any one, always the same, so that restarts move nobody.
    fn draw_home(&self) -> Option<RegionId> {
        let regions: Vec<RegionId> = self
            .netmap
            .derp()
            .present()
            .filter(|(_, region)| !region.no_measure_no_home && !region.avoid)
            .map(|(id, _)| id)
            .collect();
        let draw = usize::from(self.node_key.as_bytes()[0]);
        regions.get(draw % regions.len().max(1)).copied()
    }
}

fn is_usable(ip: IpAddr, v4: bool) -> bool {
    ip.is_ipv4() == v4 && crate::endpoints::is_candidate(ip)
}

/// Whether control need not hear of the difference (`NetInfo.BasicallyEqual`): latencies always differ a little.
fn basically_equal(a: &NetInfo, b: &NetInfo) -> bool {
    let without_latency = |info: &NetInfo| NetInfo { derp_latency: Default::default(), ..info.clone() };
    without_latency(a) == without_latency(b)
}
