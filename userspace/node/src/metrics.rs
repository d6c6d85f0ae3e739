//! Metrics in Prometheus' text format: Tailscale's names where Tailscale has them, ours for what only we have.
//!
//! Bytes by path come from the WireGuard device's counters, booked to the path a peer was on when they were read; packets by
//! program and reason from the programs' maps. Deliberately not here: an HTTP listener (the local API and the CLI print them).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use node_core::{ObservedPeer, Slot};
use types::NodePublic;

/// By which way bytes went; the label of `tailscaled_*_bytes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Path {
    DirectIpv4,
    DirectIpv6,
    Derp,
    PeerRelayIpv4,
    PeerRelayIpv6,
}

impl Path {
    const ALL: [(Self, &str); 5] = [
        (Self::DirectIpv4, "direct_ipv4"),
        (Self::DirectIpv6, "direct_ipv6"),
        (Self::Derp, "derp"),
        (Self::PeerRelayIpv4, "peer_relay_ipv4"),
        (Self::PeerRelayIpv6, "peer_relay_ipv6"),
    ];

    /// What an endpoint of the kernel is; `relay` is the peer's relay, where it has one now.
    fn of(endpoint: SocketAddr, relay: Option<SocketAddr>) -> Self {
        match (endpoint.ip(), relay) {
            (ip, Some(relay)) if Slot::from_ip(ip).is_some() || ip == relay.ip() => {
                if relay.is_ipv4() {
                    Self::PeerRelayIpv4
                } else {
                    Self::PeerRelayIpv6
                }
            }
            (ip, _) if Slot::from_ip(ip).is_some() => Self::Derp,
            (IpAddr::V4(_), _) => Self::DirectIpv4,
            (IpAddr::V6(_), _) => Self::DirectIpv6,
        }
    }
}

/// Bytes from and to peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bytes {
    inbound: u64,
    outbound: u64,
}

/// Bytes by path since the daemon started.
#[derive(Clone, Default)]
pub(crate) struct Traffic {
    last: BTreeMap<NodePublic, Bytes>,
    total: BTreeMap<Path, Bytes>,
}

impl Traffic {
    /// Books what was moved since the last dump. A peer's first dump is where counting starts. `relay` says through which
    /// peer relay a peer is reached.
    pub(crate) fn observe(
        &mut self,
        peers: &[ObservedPeer],
        relay: impl Fn(NodePublic) -> Option<SocketAddr>,
    ) {
        let mut last = BTreeMap::new();
        for peer in peers {
            let now = Bytes { inbound: peer.rx_bytes, outbound: peer.tx_bytes };
            if let (Some(before), Some(endpoint)) = (self.last.get(&peer.key), peer.endpoint) {
                let total = self.total.entry(Path::of(endpoint, relay(peer.key))).or_default();
                // A peer that was removed and added again starts from zero.
                total.inbound += now.inbound.checked_sub(before.inbound).unwrap_or(now.inbound);
                total.outbound += now.outbound.checked_sub(before.outbound).unwrap_or(now.outbound);
            }
            last.insert(peer.key, now);
        }
        self.last = last;
    }
}

/// One count of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramCount {
    /// The program's name.
    pub(crate) program: &'static str,
    /// The reason's label.
    pub(crate) reason: &'static str,
    /// Whether the reason drops.
    pub(crate) is_drop: bool,
    /// Packets since the maps were made.
    pub(crate) packets: u64,
}

/// Single numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauges {
    /// Subnet routes we offer.
    pub(crate) advertised_routes: usize,
    /// Those that control approved.
    pub(crate) approved_routes: usize,
    /// The home region, 0 for none.
    pub(crate) home_region: i32,
    /// Warnings that stand.
    pub(crate) health_messages: usize,
    /// Packets the DERP queues dropped.
    pub(crate) derp_dropped: u64,
}

/// The whole text.
pub(crate) fn render(
    traffic: &Traffic,
    gauges: Gauges,
    programs: &[ProgramCount],
    relay: &[(String, u64)],
) -> String {
    let mut text = String::new();
    let bytes = |direction: fn(Bytes) -> u64| {
        move |(path, name): (Path, &'static str)| {
            let total = traffic.total.get(&path).copied().unwrap_or_default();
            (format!("path=\"{name}\""), direction(total))
        }
    };
    let inbound = Path::ALL.into_iter().map(bytes(|bytes| bytes.inbound));
    family(&mut text, "tailscaled_inbound_bytes_total", "counter", "Bytes received from peers", inbound);
    let outbound = Path::ALL.into_iter().map(bytes(|bytes| bytes.outbound));
    family(&mut text, "tailscaled_outbound_bytes_total", "counter", "Bytes sent to peers", outbound);
    let drops = programs.iter().filter(|count| count.is_drop);
    let drops = drops.map(|count| (format!("reason=\"{}\"", count.reason), count.packets));
    let name = "tailscaled_inbound_dropped_packets_total";
    family(&mut text, name, "counter", "Packets from peers that were dropped", drops);
    let dropped = [("reason=\"error\"".to_owned(), gauges.derp_dropped)];
    let name = "tailscaled_outbound_dropped_packets_total";
    family(&mut text, name, "counter", "Packets to peers that were dropped", dropped.into_iter());
    for (name, help, value) in [
        (
            "tailscaled_advertised_routes",
            "Subnet routes offered to the network",
            gauges.advertised_routes as u64,
        ),
        (
            "tailscaled_approved_routes",
            "Offered subnet routes that are approved",
            gauges.approved_routes as u64,
        ),
        (
            "tailscaled_home_derp_region_id",
            "Home DERP region, 0 for none",
            u64::from(gauges.home_region.unsigned_abs()),
        ),
    ] {
        family(&mut text, name, "gauge", help, [(String::new(), value)].into_iter());
    }
    let messages = [("type=\"warning\"".to_owned(), gauges.health_messages as u64)];
    family(&mut text, "tailscaled_health_messages", "gauge", "Warnings that stand now", messages.into_iter());
    let counts = programs
        .iter()
        .map(|count| (format!("program=\"{}\",reason=\"{}\"", count.program, count.reason), count.packets));
    family(
        &mut text,
        "underpass_ebpf_packets_total",
        "counter",
        "Packets the programs decided about",
        counts,
    );
    relay_families(&mut text, relay);
    text
}

/// A peer relay's numbers: name with labels, and value; those of one family stand together.
fn relay_families(text: &mut String, numbers: &[(String, u64)]) {
    let split = |name: &str| match name.split_once('{') {
        Some((name, labels)) => (name.to_owned(), labels.trim_end_matches('}').to_owned()),
        None => (name.to_owned(), String::new()),
    };
    let mut families = BTreeMap::<String, Vec<(String, u64)>>::new();
    for (name, value) in numbers {
        let (name, labels) = split(name);
        families.entry(name).or_default().push((labels, *value));
    }
    for (name, values) in families {
        let (kind, help) = match name.as_str() {
            "tailscaled_peer_relay_forwarded_packets_total" => {
                ("counter", "Number of packets forwarded via Peer Relay")
            }
            "tailscaled_peer_relay_forwarded_bytes_total" => {
                ("counter", "Number of bytes forwarded via Peer Relay")
            }
            "tailscaled_peer_relay_endpoints" => ("gauge", "Number of allocated Peer Relay endpoints"),
            "underpass_peer_relay_refused_allocations_total" => {
                ("counter", "Requests for a place that were refused")
            }
            _ => ("counter", "Packets to the peer relay that were dropped"),
        };
        family(text, &name, kind, help, values.into_iter());
    }
}

fn family(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    values: impl Iterator<Item = (String, u64)>,
) {
    _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    for (labels, value) in values {
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        _ = writeln!(text, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(endpoint: &str, rx_bytes: u64, tx_bytes: u64) -> ObservedPeer {
        let key = NodePublic::from_bytes([1; 32]);
        let endpoint = Some(endpoint.parse().unwrap());
        ObservedPeer { key, endpoint, rx_bytes, tx_bytes, last_handshake: None }
    }

    #[test]
    fn bytes_are_booked_to_the_path_they_were_seen_on_and_the_first_dump_counts_nothing() {
        let mut traffic = Traffic::default();
        traffic.observe(&[peer("127.64.0.9:7", 100, 200)], |_| None);
        traffic.observe(&[peer("127.64.0.9:7", 110, 220)], |_| None);
        traffic.observe(&[peer("192.0.2.1:41641", 115, 225)], |_| None);
        traffic.observe(&[peer("192.0.2.1:41641", 3, 4)], |_| None);
        let relay = "203.0.113.1:7777".parse().ok();
        traffic.observe(&[peer("203.0.113.1:5000", 13, 24)], |_| relay);
        traffic.observe(&[peer("127.64.0.9:7", 14, 26)], |_| relay);
        let text = render(&traffic, Gauges::default(), &[], &[]);
        for line in [
            "tailscaled_inbound_bytes_total{path=\"derp\"} 10",
            "tailscaled_inbound_bytes_total{path=\"peer_relay_ipv4\"} 11",
            "tailscaled_outbound_bytes_total{path=\"peer_relay_ipv4\"} 22",
            "tailscaled_outbound_bytes_total{path=\"derp\"} 20",
            "tailscaled_inbound_bytes_total{path=\"direct_ipv4\"} 8",
            "tailscaled_outbound_bytes_total{path=\"direct_ipv4\"} 9",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn every_family_says_its_type_and_every_drop_is_shown_under_both_names() {
        let count = ProgramCount { program: "from_tunnel", reason: "acl", is_drop: true, packets: 7 };
        let relay = [
            ("tailscaled_peer_relay_endpoints{state=\"open\"}".to_owned(), 3),
            ("tailscaled_peer_relay_endpoints{state=\"connecting\"}".to_owned(), 1),
        ];
        let text =
            render(&Traffic::default(), Gauges { home_region: 900, ..Gauges::default() }, &[count], &relay);
        assert!(text.contains("tailscaled_peer_relay_endpoints{state=\"open\"} 3\n"));
        assert!(text.contains("tailscaled_inbound_dropped_packets_total{reason=\"acl\"} 7\n"));
        assert!(text.contains("underpass_ebpf_packets_total{program=\"from_tunnel\",reason=\"acl\"} 7\n"));
        assert!(text.contains("tailscaled_home_derp_region_id 900\n"));
        let families = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
        assert_eq!(families, 10);
    }
}
