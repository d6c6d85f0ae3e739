//! `underpass relay`: a DERP and STUN server by itself. Its work is `relay::daemon::run`; here are its flags.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use relay::Config;
use relay::daemon::{self, Options};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::logging::Verbosity;

/// `underpass relay`
#[derive(Args)]
#[command(after_help = "Exit codes: 0 ended by a signal; 1 failed; 2 wrong usage.")]
pub(crate) struct Relay {
    /// Folder of the relay's key.
    #[arg(long, value_name = "DIR", env = "UNDERPASS_STATE", default_value = "/var/lib/underpass-relay")]
    state: PathBuf,
    /// Where to accept DERP.
    #[arg(long, value_name = "ADDR", default_value_t = any(443))]
    listen: SocketAddr,
    /// Where to answer STUN, or off.
    #[arg(long, value_name = "ADDR|off", default_value = "[::]:3478", value_parser = parse_stun)]
    stun: Place,
    /// How TLS is done: two PEM files, or none behind a proxy.
    #[arg(long, value_name = "off|CERT,KEY", value_parser = parse_tls)]
    tls: Tls,
    /// URL that is asked whom to admit, such as https://vpn.example.com/verify; without one, everybody.
    #[arg(long, value_name = "URL")]
    verify_url: Option<String>,
    /// Where to show counters as Prometheus text; keep it from strangers.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    verbosity: Verbosity,
}

// Newtypes, because clap gives a bare Option the meaning "the flag may be absent".
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place(Option<SocketAddr>);
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tls(Option<(PathBuf, PathBuf)>);

fn any(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

fn parse_stun(text: &str) -> Result<Place, String> {
    match text {
        "off" => Ok(Place(None)),
        _ => text.parse().map(|addr| Place(Some(addr))).map_err(|_| "give ADDRESS:PORT, or off".into()),
    }
}

fn parse_tls(text: &str) -> Result<Tls, String> {
    match text.split_once(',') {
        None if text == "off" => Ok(Tls(None)),
        Some((chain, key)) if !chain.is_empty() && !key.is_empty() => {
            Ok(Tls(Some((chain.into(), key.into()))))
        }
        _ => Err("give off, or CERT,KEY (two PEM files)".into()),
    }
}

impl Relay {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.verbosity.start();
        let options = Options {
            listen: self.listen,
            stun: self.stun.0,
            metrics: self.metrics,
            tls: self.tls.0,
            state: self.state,
            verify_url: self.verify_url,
            relay: Config::default(),
        };
        Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            daemon::run(options, async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_is_nowhere() {
        assert_eq!(parse_stun("off"), Ok(Place(None)));
        assert_eq!(parse_stun("192.0.2.1:3478"), Ok(Place("192.0.2.1:3478".parse().ok())));
        assert!(parse_stun("3478").is_err());
        assert_eq!(parse_tls("off"), Ok(Tls(None)));
        assert_eq!(parse_tls("a.pem,b.pem"), Ok(Tls(Some(("a.pem".into(), "b.pem".into())))));
        assert!(parse_tls("a.pem").is_err() && parse_tls(",").is_err());
    }
}
