//! `underpass debug`: windows into a running node.

use clap::{Args, Subcommand};
use serde_json::Value;
use wire::local::{NotifyMask, PeerPaths, TraceLine};

use super::{peer, whois::query_value};
use crate::client::Client;
use crate::{output, table};

/// `underpass debug`
#[derive(Args)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct Debug {
    #[command(subcommand)]
    window: Window,
}

#[derive(Subcommand)]
enum Window {
    /// Follow single packets through the kernel programs, until interrupted.
    Trace {
        /// Only packets of this peer, by name or address.
        #[arg(long)]
        peer: Option<String>,
        /// Only packets that are dropped.
        #[arg(long)]
        drops: bool,
        #[command(flatten)]
        output: output::Json,
    },
    /// Every path to every peer.
    Paths {
        #[command(flatten)]
        output: output::Json,
    },
    /// The netmap, as JSON.
    Netmap,
    /// The packet filter as the server sent it, as JSON.
    Filter,
    /// All settings, as JSON.
    Prefs,
    /// The DERP map, as JSON.
    DerpMap,
    /// The bus as it speaks, as JSON, until interrupted.
    Watch {
        /// The bits of the mask as a number; by default the first message has state, prefs and health.
        #[arg(long)]
        mask: Option<u64>,
    },
    /// What belongs into a bug report.
    Report,
    /// Have the node read its --config file again.
    ReloadConfig,
    /// Stop the daemon; packets keep moving.
    Shutdown,
}

impl Debug {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        match self.window {
            Window::Trace { peer, drops, output } => trace(node, peer.as_deref(), drops, output).await,
            Window::Paths { output } => {
                let paths: Vec<PeerPaths> = node.get("underpass/paths").await?;
                output.print(&paths, |paths| table_of(paths))
            }
            Window::Netmap => output::json(&node.post::<Value>("debug?action=current-netmap").await?),
            Window::Filter => output::json(&node.post::<Value>("debug-packet-filter-rules").await?),
            Window::Prefs => output::json(&node.get::<Value>("prefs").await?),
            Window::DerpMap => output::json(&node.get::<Value>("derpmap").await?),
            Window::Watch { mask } => watch(node, mask).await,
            Window::Report => {
                let status = node.status(true).await?;
                output::text(&format!("underpass {} (this command)\n", env!("CARGO_PKG_VERSION")))?;
                output::json(&status)
            }
            Window::ReloadConfig => output::json(&node.post::<Value>("reload-config").await?),
            Window::Shutdown => Ok(node.post_unit("shutdown").await?),
        }
    }
}

async fn trace(node: &Client, whom: Option<&str>, drops: bool, output: output::Json) -> anyhow::Result<()> {
    let mut path = format!("underpass/trace?drops={drops}");
    if let Some(text) = whom {
        let status = node.status(true).await?;
        let (addr, _) = peer::address(&status, text).await?;
        let found = peer::by_address(&status, addr);
        let key = found.ok_or_else(|| anyhow::anyhow!("no peer has {addr}"))?.public_key;
        path += &format!("&peer={}", query_value(&key.to_string()));
    }
    let mut lines = node.stream(&path).await?;
    eprintln!("Tracing; end it with Ctrl-C.");
    loop {
        let line: TraceLine = serde_json::from_slice(&lines.line().await?)?;
        match output.json {
            true => output::text(&(serde_json::to_string(&line)? + "\n"))?,
            false => output::text(&format!("{} {}\n", line.time, line.text))?,
        }
    }
}

async fn watch(node: &Client, mask: Option<u64>) -> anyhow::Result<()> {
    let first = NotifyMask::INITIAL_STATE | NotifyMask::INITIAL_PREFS | NotifyMask::INITIAL_HEALTH;
    let mut bus = node.watch(mask.map_or(first, NotifyMask)).await?;
    loop {
        output::json(&serde_json::from_slice::<Value>(&bus.line().await?)?)?;
    }
}

fn table_of(paths: &[PeerPaths]) -> String {
    let rows = paths.iter().flat_map(|peer| {
        peer.paths.iter().map(|path| {
            let used = if path.endpoint == peer.current { "*" } else { "" };
            let latency =
                path.latency_seconds.map_or("-".into(), |seconds| format!("{:.1}ms", seconds * 1e3));
            let trusted = if path.trusted { "trusted" } else { "-" };
            let name = peer.name.split('.').next().unwrap_or_default();
            [name, &path.endpoint, used, &latency, trusted, &path.source].map(str::to_owned)
        })
    });
    table::with_head(["PEER", "ENDPOINT", "USED", "LATENCY", "TRUST", "FROM"], rows.collect())
}

#[cfg(test)]
mod tests {
    use wire::local::PathReport;

    use super::*;

    #[test]
    fn the_path_in_use_is_marked() {
        let path = |endpoint: &str| PathReport {
            endpoint: endpoint.into(),
            source: "netmap".into(),
            latency_seconds: Some(0.002),
            ..PathReport::default()
        };
        let peer = PeerPaths {
            name: "gw.net.test.".into(),
            current: "192.0.2.1:1".into(),
            paths: vec![path("192.0.2.1:1"), path("192.0.2.2:2")],
            ..PeerPaths::default()
        };
        let text = table_of(&[peer]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["gw", "192.0.2.1:1", "*", "2.0ms", "-", "netmap"]);
        assert_eq!(lines[2], ["gw", "192.0.2.2:2", "2.0ms", "-", "netmap"]);
    }
}
