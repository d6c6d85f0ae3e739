//! `underpass admin`: verbs of a running server, over its admin socket.

mod keys;
mod nodes;
mod users;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use control::DEFAULT_SOCKET;
use control::admin::Client;

/// `underpass admin`
#[derive(Args)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct Admin {
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    /// Who owns nodes.
    #[command(subcommand)]
    Users(users::Users),
    /// Auth keys, which admit nodes.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// The machines of the network.
    #[command(subcommand)]
    Nodes(nodes::Nodes),
}

impl Admin {
    pub(crate) async fn run(self, socket: Option<PathBuf>) -> anyhow::Result<()> {
        let mut server = Client::connect(socket.unwrap_or_else(|| DEFAULT_SOCKET.into())).await?;
        match self.noun {
            Noun::Users(verb) => verb.run(&mut server).await,
            Noun::Keys(verb) => verb.run(&mut server).await,
            Noun::Nodes(verb) => verb.run(&mut server).await,
        }
    }
}
