//! `underpass set`: changes what is named and nothing else.

use anyhow::bail;
use clap::Args;

use crate::client::Client;
use crate::progress::noting;
use crate::setting::Settings;

/// `underpass set`
#[derive(Args)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct Set {
    #[command(flatten)]
    settings: Settings,
}

impl Set {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        let edit = self.settings.edit();
        if edit.is_empty() {
            bail!(
                "nothing to set; name a setting, such as --hostname=NAME (all of them: underpass set --help)"
            );
        }
        let mut prefs = node.prefs().await?;
        prefs.apply(&edit);
        node.check_prefs(&prefs).await?;
        noting("Applying", node.edit_prefs(&edit)).await?;
        super::up::warn_of_forwarding(node, &edit.prefs).await;
        Ok(())
    }
}
