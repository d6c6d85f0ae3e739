//! `underpass down`: device, routes and rules go, the login stays.

use clap::Args;
use wire::local::{MaskedPrefs, Pref, State};

use crate::client::Client;
use crate::exit::NotSo;
use crate::progress::noting;

/// `underpass down`
#[derive(Args)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct Down {}

impl Down {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        match node.status(false).await?.backend_state {
            State::Stopped => eprintln!("The node is already stopped."),
            State::NeedsLogin => {
                eprintln!("The node is not logged in, so there is nothing to stop.");
                return Err(NotSo.into());
            }
            _ => {}
        }
        // Also where it is stopped already: what a crash left behind is then removed.
        let edit = MaskedPrefs { set: [Pref::WantRunning].into(), ..MaskedPrefs::default() };
        noting("Taking device, routes and rules away", node.edit_prefs(&edit)).await?;
        Ok(())
    }
}
