//! The daemons' log: one line an event on standard error, which journald and a person both read.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// How much a daemon says.
#[derive(clap::Args)]
pub(crate) struct Verbosity {
    /// Say more: once for debugging, twice for every packet of ours. RUST_LOG, when set, wins.
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Verbosity {
    /// Begins logging.
    pub(crate) fn start(&self) {
        let level = match self.verbose {
            0 => "info",
            1 => "debug",
            _ => "trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
        builder.with_ansi(stderr().is_terminal()).with_target(self.verbose > 0).init();
    }
}
