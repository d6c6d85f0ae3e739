//! `underpass status`: the node, its peers, the paths to them; and what is wrong.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use types::UserId;
use wire::local::{DataPlane, PeerRelayReport, PeerStatus, State, Status, SteeredDevice};

use crate::client::Client;
use crate::exit::NotSo;
use crate::{duration, output, table};

/// `underpass status`
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 the node is running or starting; 1 it is stopped, logged out or not approved \
(--json prints the state and exits 0); 3 no node answers."
)]
pub(crate) struct StatusArgs {
    /// Only peers with recent traffic.
    #[arg(long)]
    active: bool,
    /// Show this node itself.
    #[arg(long = "self", value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true)]
    #[arg(action = clap::ArgAction::Set, default_missing_value = "true")]
    own: bool,
    /// Show the peers.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true)]
    #[arg(action = clap::ArgAction::Set, default_missing_value = "true")]
    peers: bool,
    /// Print a line of headings.
    #[arg(long)]
    header: bool,
    #[command(flatten)]
    output: output::Json,
}

impl StatusArgs {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        let mut status = node.status(self.peers).await?;
        if self.active {
            status.peer.retain(|_, peer| peer.active);
        }
        if self.output.json {
            return output::json(&status);
        }
        if let Some(sentence) = why_not_up(&status) {
            // Of a node that was told to stop, health would only say that it is stopped.
            let health = if status.backend_state == State::Stopped { String::new() } else { health(&status) };
            output::text(&format!("{sentence}\n{health}"))?;
            return Err(NotSo.into());
        }
        output::text(&self.report(&status, Timestamp::now()))
    }

    fn report(&self, status: &Status, now: Timestamp) -> String {
        let mut rows = Vec::new();
        if self.header {
            rows.push(["IP", "Name", "User", "OS", "State"].map(str::to_owned));
        }
        let mut peers: Vec<&PeerStatus> = status.peer.values().filter(|peer| !peer.sharee_node).collect();
        peers.sort_by_key(|peer| (name(status, peer), peer.node_id));
        let own = status.self_node.iter().filter(|_| self.own);
        rows.extend(own.chain(peers).map(|node| row(status, node, now)));
        let mut text = table::align(&rows);
        if let Some(plane) = &status.data_plane {
            text += &data_plane(plane);
        }
        text + &health(status)
    }
}

/// The sentence for a node that is neither running nor about to.
pub(super) fn why_not_up(status: &Status) -> Option<String> {
    let sentence = match status.backend_state {
        State::Running | State::Starting => return None,
        State::Stopped => "The node is stopped; start it with `underpass up`.",
        State::NeedsLogin if status.auth_url.is_empty() => "Logged out; log in with `underpass up`.",
        State::NeedsLogin => return Some(format!("Logged out.\nLog in at: {}", status.auth_url)),
        State::NeedsMachineAuth => "The machine is not yet approved by an administrator.",
        State::NoState | State::InUseOtherUser => "The node has not yet read its state.",
    };
    Some(sentence.to_owned())
}

/// The `# Health check:` lines, as scripts know them.
fn health(status: &Status) -> String {
    if status.health.is_empty() {
        return String::new();
    }
    let lines = status.health.iter().map(|problem| format!("#     - {problem}\n"));
    format!("\n# Health check:\n{}", lines.collect::<String>())
}

fn data_plane(plane: &DataPlane) -> String {
    let mut text = String::new();
    if !plane.wireguard.is_empty() {
        let attached = if plane.attach.is_empty() { "not attached" } else { &plane.attach };
        let _ = writeln!(
            text,
            "\n# WireGuard: {} on {} port {}, programs: {attached}",
            plane.wireguard, plane.device, plane.port
        );
        if !plane.fast_path.is_empty() {
            let _ = writeln!(text, "# Gateway: fast path {}", plane.fast_path);
        }
    }
    if !plane.devices.is_empty() {
        let devices: Vec<String> = plane.devices.iter().map(steered).collect();
        let _ = writeln!(text, "# Steering: {}", devices.join(", "));
    }
    if plane.devices.iter().any(|device| device.steering == "xdp") {
        let shield = if plane.shield { "on" } else { "off" };
        let _ =
            writeln!(text, "# In the kernel: pings of {} peers answered, shield {shield}", plane.answering);
    }
    let drops = plane.drops.iter().filter(|drop| drop.packets > 0);
    let drops: Vec<String> = drops.map(|drop| format!("{} {}", drop.packets, drop.reason)).collect();
    if !drops.is_empty() {
        let _ = writeln!(text, "# Dropped packets: {}", drops.join(", "));
    }
    if let Some(relay) = &plane.peer_relay {
        let _ = writeln!(text, "{}", peer_relay(relay));
    }
    text
}

/// "eth0 by xdp", "br0 by tc (its driver has no native XDP)".
fn steered(device: &SteeredDevice) -> String {
    let SteeredDevice { name, steering, why } = device;
    if why.is_empty() { format!("{name} by {steering}") } else { format!("{name} by {steering} ({why})") }
}

fn peer_relay(relay: &PeerRelayReport) -> String {
    let place = match relay.addresses.as_slice() {
        [] => format!("port {}, its own addresses not known yet", relay.port),
        addresses => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let sessions = format!("{} open, {} connecting", relay.open, relay.connecting);
    format!("# Peer relay: {place}; sessions: {sessions}; forwarding: {}", relay.forwarding)
}

fn row(status: &Status, node: &PeerStatus, now: Timestamp) -> [String; 5] {
    [
        node.tailscale_ips.first().map(ToString::to_string).unwrap_or_default(),
        name(status, node),
        owner(status, node),
        if node.os.is_empty() { "-".into() } else { node.os.clone() },
        state(node, now),
    ]
}

/// The first part of the name, or the machine's own name in quotes where it has none here.
pub(super) fn name(status: &Status, node: &PeerStatus) -> String {
    let full = node.dns_name.trim_end_matches('.');
    let suffix = status.magic_dns_suffix.trim_matches('.');
    let base = full.strip_suffix(suffix).filter(|_| !suffix.is_empty()).unwrap_or(full).trim_end_matches('.');
    if base.is_empty() { format!("({:?})", node.host_name) } else { base.to_owned() }
}

fn owner(status: &Status, node: &PeerStatus) -> String {
    let id = if node.alt_sharer_user_id.is_zero() { node.user_id } else { node.alt_sharer_user_id };
    if id == UserId::default() {
        return "-".into();
    }
    match status.user.get(&id) {
        Some(user) => match user.login_name.split_once('@') {
            Some((local, _)) => format!("{local}@"),
            None => user.login_name.clone(),
        },
        None => id.to_string(),
    }
}

/// The last column: whether it is used, by which path, how much has passed.
fn state(node: &PeerStatus, now: Timestamp) -> String {
    let traffic = node.tx_bytes != 0 || node.rx_bytes != 0;
    let exit = match (node.exit_node, node.exit_node_option) {
        (true, _) => Some("exit node"),
        (false, true) => Some("offers exit node"),
        (false, false) => None,
    };
    let mut parts: Vec<String> = Vec::new();
    match (node.active, traffic || exit.is_some()) {
        (true, _) => parts.push("active".into()),
        (false, true) => parts.push("idle".into()),
        (false, false) => {}
    }
    parts.extend(exit.map(str::to_owned));
    if node.active {
        parts.extend(path(node));
    }
    if !node.online {
        parts.push(format!("offline{}", last_seen(node, now)));
    }
    let mut text = if parts.is_empty() { "-".to_owned() } else { parts.join("; ") };
    if traffic {
        let _ = write!(text, ", tx {} rx {}", node.tx_bytes, node.rx_bytes);
    }
    text
}

/// The path in use. Direct comes first: a relay is named for every peer that has a home region.
fn path(node: &PeerStatus) -> Option<String> {
    if !node.cur_addr.is_empty() {
        Some(format!("direct {}", node.cur_addr))
    } else if !node.peer_relay.is_empty() {
        Some(format!("peer-relay {}", node.peer_relay))
    } else if !node.relay.is_empty() {
        Some(format!("relay {:?}", node.relay))
    } else {
        None
    }
}

fn last_seen(node: &PeerStatus, now: Timestamp) -> String {
    let Some(at) = node.last_seen.get() else { return String::new() };
    let ago = Duration::try_from(now.duration_since(at)).unwrap_or_default();
    format!(", last seen {} ago", duration::rough(ago))
}

#[cfg(test)]
mod tests {
    use types::NodePublic;
    use wire::control::UserProfile;
    use wire::local::DropCount;

    use super::*;

    fn peer(name: &str) -> PeerStatus {
        PeerStatus {
            host_name: name.into(),
            dns_name: format!("{name}.net.test."),
            os: "linux".into(),
            user_id: UserId(1),
            tailscale_ips: vec!["100.64.0.2".parse().unwrap()],
            online: true,
            ..PeerStatus::default()
        }
    }

    fn status(peers: Vec<PeerStatus>) -> Status {
        let alice = UserProfile { login_name: "alice@example.com".into(), ..UserProfile::default() };
        Status {
            backend_state: State::Running,
            magic_dns_suffix: "net.test".into(),
            user: [(UserId(1), alice)].into(),
            peer: (0..).zip(peers).map(|(i, peer)| (NodePublic::from_bytes([i; 32]), peer)).collect(),
            ..Status::default()
        }
    }

    #[track_caller]
    fn check(peer: PeerStatus, expected: &str) {
        assert_eq!(state(&peer, "2026-01-01T00:10:00Z".parse().unwrap()), expected);
    }

    #[test]
    fn the_last_column_reads_like_tailscales() {
        let active = PeerStatus { active: true, relay: "hq".into(), tx_bytes: 9, rx_bytes: 8, ..peer("a") };
        check(peer("a"), "-");
        check(PeerStatus { online: false, ..peer("a") }, "offline");
        check(PeerStatus { tx_bytes: 1, ..peer("a") }, "idle, tx 1 rx 0");
        check(active.clone(), "active; relay \"hq\", tx 9 rx 8");
        let direct = PeerStatus { cur_addr: "203.0.113.7:41641".into(), ..active };
        check(direct.clone(), "active; direct 203.0.113.7:41641, tx 9 rx 8");
        let seen: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        let gone = PeerStatus { online: false, last_seen: seen.into(), ..direct };
        check(gone, "active; direct 203.0.113.7:41641; offline, last seen 5m ago, tx 9 rx 8");
        check(PeerStatus { exit_node_option: true, ..peer("a") }, "idle; offers exit node");
    }

    #[test]
    fn the_report_has_a_row_a_peer_then_the_data_plane_then_health() {
        let mut status = status(vec![peer("b"), peer("a")]);
        status.health = vec!["cannot reach the server".into()];
        let drops = vec![DropCount { reason: "no rule".into(), packets: 3 }, DropCount::default()];
        let device = "underpass0".into();
        let on = |name: &str, steering: &str, why: &str| SteeredDevice {
            name: name.into(),
            steering: steering.into(),
            why: why.into(),
        };
        let devices = vec![on("eth0", "xdp", ""), on("br0", "tc", "its driver has no native XDP")];
        let addresses = ["203.0.113.1:7777", "10.0.0.1:7777"].map(|addr| addr.parse().unwrap()).to_vec();
        let forwarding = "xdp".into();
        let peer_relay = PeerRelayReport {
            port: 7777,
            addresses,
            forwarding,
            connecting: 1,
            open: 2,
            sessions: Vec::new(),
        };
        status.data_plane = Some(DataPlane {
            wireguard: "kernel".into(),
            device,
            port: 41641,
            attach: "tcx".into(),
            fast_path: String::new(),
            devices,
            shield: true,
            answering: 2,
            drops,
            peer_relay: Some(peer_relay),
        });
        let args = StatusArgs {
            active: false,
            own: true,
            peers: true,
            header: false,
            output: output::Json { json: false },
        };
        assert_eq!(
            args.report(&status, Timestamp::UNIX_EPOCH),
            "100.64.0.2  a  alice@  linux  -\n\
             100.64.0.2  b  alice@  linux  -\n\
             \n# WireGuard: kernel on underpass0 port 41641, programs: tcx\n\
             # Steering: eth0 by xdp, br0 by tc (its driver has no native XDP)\n\
             # In the kernel: pings of 2 peers answered, shield on\n\
             # Dropped packets: 3 no rule\n\
             # Peer relay: 203.0.113.1:7777, 10.0.0.1:7777; sessions: 2 open, 1 connecting; forwarding: xdp\n\
             \n# Health check:\n#     - cannot reach the server\n"
        );
    }

    #[test]
    fn a_node_without_a_name_shows_its_own_in_quotes() {
        let nameless = PeerStatus { dns_name: String::new(), host_name: "box".into(), ..peer("x") };
        let status = status(vec![]);
        assert_eq!(name(&status, &nameless), "(\"box\")");
        assert_eq!(name(&status, &peer("gw")), "gw");
    }
}
