//! `underpass admin users`

use clap::Subcommand;
use control::admin::{Client, CreateUser, UserInfo};

use crate::{output, table};

#[derive(Subcommand)]
pub(super) enum Users {
    /// Make a user.
    Create {
        /// Its name: lower-case letters, digits and `.-_@`.
        name: String,
        #[command(flatten)]
        output: output::Json,
    },
    /// List all users.
    List {
        #[command(flatten)]
        output: output::Json,
    },
}

impl Users {
    pub(super) async fn run(self, server: &mut Client) -> anyhow::Result<()> {
        match self {
            Self::Create { name, output } => {
                let user = server.create_user(&CreateUser { name }).await?;
                output.print(&user, |user| format!("User {} is number {}.\n", user.name, user.id))
            }
            Self::List { output } => output.print(&server.users().await?, |users| table_of(users)),
        }
    }
}

fn table_of(users: &[UserInfo]) -> String {
    let row = |user: &UserInfo| [user.id.to_string(), user.name.clone(), super::nodes::date(user.created)];
    table::with_head(["ID", "NAME", "CREATED"], users.iter().map(row).collect())
}
