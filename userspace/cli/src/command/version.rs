//! `underpass version`: of this command, and with `--daemon` of the node.

use clap::Args;
use serde::Serialize;

use crate::client::Client;
use crate::output;

/// `underpass version`
#[derive(Args)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct Version {
    /// Ask the node for its version too.
    #[arg(long)]
    daemon: bool,
    #[command(flatten)]
    output: output::Json,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    long: &'static str,
    cap: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon_long: Option<String>,
}

impl Version {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        let daemon = if self.daemon { Some(node.status(false).await?.version) } else { None };
        let cap = types::CapabilityVersion::CURRENT.0;
        let versions = Versions { long: env!("CARGO_PKG_VERSION"), cap, daemon_long: daemon };
        self.output.print(&versions, |versions| match &versions.daemon_long {
            None => format!("{}\n", versions.long),
            Some(daemon) => format!("Client: {}\nDaemon: {daemon}\n", versions.long),
        })
    }
}
