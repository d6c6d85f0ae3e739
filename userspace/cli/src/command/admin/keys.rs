//! `underpass admin keys`

use std::time::Duration;

use clap::{Args, Subcommand};
use control::admin::{Client, CreateKey, CreatedKey, KeyInfo, KeyState};

use super::nodes::date;
use crate::{duration, output, setting, table};

#[derive(Subcommand)]
pub(super) enum Keys {
    /// Make an auth key. It is shown once: the server keeps only its hash.
    Create(Create),
    /// List all auth keys, without their secrets.
    List {
        #[command(flatten)]
        output: output::Json,
    },
    /// Withdraw an auth key; nodes that it admitted stay.
    Revoke {
        /// Its number.
        id: i64,
        #[command(flatten)]
        output: output::Json,
    },
}

#[derive(Args)]
pub(super) struct Create {
    /// Whose nodes it admits.
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Admits any number of nodes; without this and --uses, one.
    #[arg(long, conflicts_with = "uses")]
    reusable: bool,
    /// Admits this many nodes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// Its nodes are removed some time after they disconnect.
    #[arg(long)]
    ephemeral: bool,
    /// Tags its nodes get, separated by commas, such as tag:gw.
    #[arg(long, value_name = "TAG,...", value_delimiter = ',', value_parser = setting::parse_tag)]
    tags: Vec<String>,
    /// How long it works, such as 24h or 90d; without, for ever.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    expires: Option<Duration>,
    #[command(flatten)]
    output: output::Json,
}

impl Keys {
    pub(super) async fn run(self, server: &mut Client) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(server).await,
            Self::List { output } => output.print(&server.keys().await?, |keys| table_of(keys)),
            Self::Revoke { id, output } => {
                output.print(&server.revoke_key(id).await?, |key| format!("Key {} is revoked.\n", key.id))
            }
        }
    }
}

impl Create {
    async fn run(self, server: &mut Client) -> anyhow::Result<()> {
        let request = CreateKey {
            user: self.user,
            reusable: self.reusable,
            uses: self.uses,
            ephemeral: self.ephemeral,
            tags: self.tags,
            expires_in: self.expires.map(|span| span.as_secs()),
        };
        let created = server.create_key(&request).await?;
        // Only the key on standard output, so that a script can take it as it is.
        self.output.print(&created, |CreatedKey { key, info }| {
            eprintln!("Key {} admits {} of {}{}.", info.id, uses(info), info.user, until(info));
            format!("{key}\n")
        })
    }
}

fn uses(key: &KeyInfo) -> String {
    match key.uses_limit {
        None => "any number of nodes".into(),
        Some(1) => "one node".into(),
        Some(limit) => format!("{limit} nodes"),
    }
}

fn until(key: &KeyInfo) -> String {
    key.expires.map(|at| format!(" until {}", date(at))).unwrap_or_default()
}

fn table_of(keys: &[KeyInfo]) -> String {
    let row = |key: &KeyInfo| {
        let limit = key.uses_limit.map_or("any".into(), |limit| limit.to_string());
        let state = match key.state {
            KeyState::Valid => "valid",
            KeyState::Used => "used",
            KeyState::Expired => "expired",
            KeyState::Revoked => "revoked",
        };
        [
            key.id.to_string(),
            key.user.clone(),
            state.into(),
            format!("{}/{limit}", key.uses),
            if key.ephemeral { "yes" } else { "no" }.into(),
            key.tags.join(","),
            key.expires.map_or("never".into(), date),
        ]
    };
    let head = ["ID", "USER", "STATE", "USES", "EPHEMERAL", "TAGS", "EXPIRES"];
    table::with_head(head, keys.iter().map(row).collect())
}
