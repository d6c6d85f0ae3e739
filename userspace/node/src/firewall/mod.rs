//! The machine's own firewall, read and named, never changed: which rule would drop a new peer's packet to WireGuard's port.
//!
//! Read by `nft -j list ruleset` when the tunnel comes up, while DISCO gets through and WireGuard does not, and as long as the
//! warning stands; iptables, ufw and firewalld keep their rules there, too. Deliberately not here: our own table (`kernel`),
//! firewalls elsewhere on the way, which only the peers' silence tells of (`node-core`).

mod ruleset;

use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

pub(crate) use self::ruleset::{Blocked, Packet, blocked};

/// A machine with tens of thousands of rules takes a second or two.
const DEADLINE: Duration = Duration::from_secs(10);

/// The first rule that drops one of `packets`; `None` where none does, or nobody can say (no `nft`, no right).
pub(crate) async fn look(packets: Vec<Packet>) -> Option<(Packet, Blocked)> {
    let listing = Command::new("nft").args(["-j", "list", "ruleset"]).kill_on_drop(true).output();
    let output = match timeout(DEADLINE, listing).await {
        Ok(Ok(output)) if output.status.success() => output.stdout,
        Ok(Ok(output)) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            tracing::debug!(why, "the firewall's rules cannot be read");
            return None;
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "the firewall's rules cannot be read");
            return None;
        }
        Err(_) => return None,
    };
    // Parsing a large ruleset would hold up the event loop.
    let judge = move || {
        let rules = serde_json::from_slice(&output).ok()?;
        packets.into_iter().find_map(|packet| Some((packet.clone(), blocked(&rules, &packet)?)))
    };
    tokio::task::spawn_blocking(judge).await.ok().flatten()
}

/// What a person reads and types.
pub(crate) fn sentence(packet: &Packet, blocked: &Blocked) -> String {
    let Packet { port, device, .. } = packet;
    format!(
        "The firewall of this machine drops WireGuard: UDP port {port} on {device} meets {blocked}. Peers reach this node by \
         relays only. Let it in with: {}",
        blocked.advice(*port)
    )
}
