//! `underpass admin nodes`

use clap::Subcommand;
use control::admin::{Client, NodeInfo, PendingInfo};
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::{output, table};

/// `NODE` is a number, a name or an overlay address everywhere.
#[derive(Subcommand)]
pub(super) enum Nodes {
    /// List all nodes, and the machines that wait for an approval.
    List {
        #[command(flatten)]
        output: output::Json,
    },
    /// Show one node.
    Show {
        /// Number, name or address.
        node: String,
        #[command(flatten)]
        output: output::Json,
    },
    /// Admit a machine that waits.
    Approve {
        /// What the machine shows: the last part of its URL.
        key: String,
        /// Whose node it becomes.
        #[arg(long, value_name = "NAME")]
        user: String,
        #[command(flatten)]
        output: output::Json,
    },
    /// Set which routes a node may serve, instead of those approved before; none withdraws all.
    ApproveRoutes {
        /// Number, name or address.
        node: String,
        /// Prefixes; 0.0.0.0/0 makes an exit node.
        prefixes: Vec<IpNet>,
        #[command(flatten)]
        output: output::Json,
    },
    /// Give a node another name.
    Rename {
        /// Number, name or address.
        node: String,
        /// The new name, one label.
        name: String,
        #[command(flatten)]
        output: output::Json,
    },
    /// Expire a node's key: it must log in again.
    Expire {
        /// Number, name or address.
        node: String,
        #[command(flatten)]
        output: output::Json,
    },
    /// Remove a node from the network.
    Delete {
        /// Number, name or address.
        node: String,
        #[command(flatten)]
        output: output::Json,
    },
}

impl Nodes {
    pub(super) async fn run(self, server: &mut Client) -> anyhow::Result<()> {
        let (node, output, done) = match self {
            Self::List { output } => return list(server, output).await,
            Self::Show { node, output } => return output.print(&server.node(&node).await?, details),
            Self::Approve { key, user, output } => (server.approve(&key, &user).await?, output, "admitted"),
            Self::ApproveRoutes { node, prefixes, output } => {
                let node = server.approve_routes(&node, prefixes).await?;
                return output.print(&node, approved);
            }
            Self::Rename { node, name, output } => (server.rename(&node, &name).await?, output, "renamed"),
            Self::Expire { node, output } => (server.expire(&node).await?, output, "expired"),
            Self::Delete { node, output } => (server.delete(&node).await?, output, "removed"),
        };
        output.print(&node, |node| format!("Node {} ({}) is {done}.\n", node.id, node.name))
    }
}

fn approved(node: &NodeInfo) -> String {
    let routes =
        if node.approved_routes.is_empty() { "no routes".into() } else { words(&node.approved_routes) };
    format!("Node {} ({}) may serve {routes}.\n", node.id, node.name)
}

async fn list(server: &mut Client, output: output::Json) -> anyhow::Result<()> {
    let nodes = server.nodes().await?;
    if output.json {
        return output::json(&nodes);
    }
    output::text(&table_of(&nodes))?;
    let pending = server.pending().await?;
    if pending.is_empty() {
        Ok(())
    } else {
        output::text(&format!("\nWaiting for approval:\n{}", waiting(&pending)))
    }
}

fn table_of(nodes: &[NodeInfo]) -> String {
    let row = |node: &NodeInfo| {
        let state = match (node.expired, node.online) {
            (true, _) => "expired",
            (false, true) => "online",
            (false, false) => "offline",
        };
        let owner = if node.tags.is_empty() { node.user.clone() } else { node.tags.join(",") };
        let address = node.addresses.first().map(ToString::to_string).unwrap_or_default();
        [node.id.to_string(), node.name.clone(), owner, address, state.into(), routes(node)]
    };
    table::with_head(["ID", "NAME", "OWNER", "ADDRESS", "STATE", "ROUTES"], nodes.iter().map(row).collect())
}

/// Every route a node offers, with a question mark while nobody has approved it.
fn routes(node: &NodeInfo) -> String {
    let mark = |net: &IpNet| if node.approved_routes.contains(net) { "" } else { "?" };
    node.announced_routes.iter().map(|net| format!("{net}{}", mark(net))).collect::<Vec<_>>().join(",")
}

fn waiting(pending: &[PendingInfo]) -> String {
    let row = |one: &PendingInfo| [one.key.clone(), one.hostname.clone(), date(one.since)];
    table::with_head(["KEY", "HOSTNAME", "SINCE"], pending.iter().map(row).collect())
}

/// One node, a line a field.
fn details(node: &NodeInfo) -> String {
    let field = |name: &str, value: String| [format!("{name}:"), value];
    let seen = if node.online { "now".into() } else { node.last_seen.map_or("never".into(), date) };
    let mut rows = vec![
        field("Number", node.id.to_string()),
        field("Name", node.name.clone()),
        field("Hostname", node.hostname.clone()),
        field("User", node.user.clone()),
        field("Tags", node.tags.join(", ")),
        field("Addresses", words(&node.addresses)),
        field("Node key", node.node_key.clone()),
        field("Machine key", node.machine_key.clone()),
        field("System", format!("{} {}", node.os, node.client_version)),
        field("Last seen", seen),
        field("Created", date(node.created)),
        field("Expires", node.expires.map_or("never".into(), date)),
        field("Endpoints", words(&node.endpoints)),
        field("Home region", node.home_region.to_string()),
        field("Routes offered", words(&node.announced_routes)),
        field("Routes approved", words(&node.approved_routes)),
        field("Routes served", words(&node.primary_routes)),
    ];
    rows.retain(|[_, value]| !value.trim().is_empty());
    table::align(&rows)
}

fn words<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A time for people: to the minute, in this machine's zone.
pub(super) fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}
