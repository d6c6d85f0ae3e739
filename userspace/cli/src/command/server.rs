//! `underpass server`: the coordination server. Its work is `control::run`; here are its flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use control::{Config, Options};
use tokio::runtime::Builder;

use crate::exit::DaemonFailed;
use crate::logging::Verbosity;

/// `underpass server`
#[derive(Args)]
#[command(after_help = "Exit codes: 0 ended by a signal; 1 failed; 2 wrong usage or configuration.")]
pub(crate) struct Server {
    /// Folder of the database and keys.
    #[arg(long, value_name = "DIR", env = "UNDERPASS_STATE")]
    state: Option<PathBuf>,
    /// URL under which nodes reach this server.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Where to accept connections [default: every address, the URL's port].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where to answer STUN [default: every address, port 3478].
    #[arg(long, value_name = "ADDR")]
    stun: Option<SocketAddr>,
    /// Answer STUN ahead of the kernel's stack, by XDP: on every device whose driver has it, but on veths only if "on" (it
    /// costs their other traffic more than it saves). The socket answers what the program does not [default: auto].
    #[arg(long, value_name = "auto|on|off")]
    xdp: Option<String>,
    /// Drop STUN requests: in maintenance, so that clients choose another server [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    drop_stun: Option<bool>,
    /// How TLS is done: a certificate of its own, none behind a proxy, or two PEM files [default: self-signed for an
    /// https URL, off for an http one].
    #[arg(long, value_name = "self-signed|off|CERT,KEY")]
    tls: Option<String>,
    /// Policy file (HuJSON); without one everything is allowed.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// More relays beside this server: a DERP map as a file or URL; may be repeated. Read again every hour and on SIGHUP.
    #[arg(long, value_name = "FILE|URL")]
    derp_map: Vec<String>,
    /// Whether nodes are given this server as a relay [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    embedded_relay: Option<bool>,
    /// File with the same settings as these flags (HuJSON); flags win.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    verbosity: Verbosity,
}

impl Server {
    pub(crate) fn run(self, socket: Option<PathBuf>) -> anyhow::Result<()> {
        self.verbosity.start();
        let file = self.config.as_deref().map(Options::read).transpose().map_err(misconfigured)?;
        let flags = Options {
            state: self.state,
            url: self.url,
            listen: self.listen,
            stun: self.stun,
            xdp: self.xdp,
            drop_stun: self.drop_stun,
            tls: self.tls,
            policy: self.policy,
            derp_map: (!self.derp_map.is_empty()).then_some(self.derp_map),
            embedded_relay: self.embedded_relay,
            socket,
        };
        let config = Config::try_from(flags.over(file.unwrap_or_default())).map_err(misconfigured)?;
        Builder::new_multi_thread().enable_all().build()?.block_on(control::run(config))
    }
}

fn misconfigured(error: impl std::fmt::Display) -> DaemonFailed {
    DaemonFailed { message: error.to_string(), code: 2 }
}
