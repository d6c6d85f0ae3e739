//! `underpass debug`: windows into a running node.

use clap::{Args, Subcommand};
use serde_json::Value;
use wire::local::{NotifyMask, TraceLine};

use super::{paths, peer, whois::query_value};
use crate::client::Client;
use crate::output;

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
    /// Every path to a peer or to all: who named it, what it answered, and why it is used or not.
    Paths {
        /// Only this peer, by name or address.
        peer: Option<String>,
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
            Window::Paths { peer, output } => paths::show(node, peer.as_deref(), output).await,
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
        path += &format!("&peer={}", query_value(&peer::key(node, text).await?.to_string()));
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
