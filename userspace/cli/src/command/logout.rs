//! `underpass logout`: the node key expires at the server, and the data plane goes.

use clap::Args;

use crate::client::Client;
use crate::progress::noting;

/// `underpass logout`
#[derive(Args)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct Logout {}

impl Logout {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        Ok(noting("Telling the server", node.post_unit("logout")).await?)
    }
}
