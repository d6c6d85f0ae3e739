//! `underpass relay`: a DERP and STUN server by itself. Its work is `relay::daemon::run`; here are its flags.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgAction, Args};
use relay::daemon::{self, Admit, Mesh, Options};
use relay::{Config, MeshError, MeshPeer, Rate, StunOptions, Xdp};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::DaemonFailed;
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
    #[command(flatten)]
    stun_args: StunArgs,
    /// How TLS is done: two PEM files, or none behind a proxy.
    #[arg(long, value_name = "off|CERT,KEY", value_parser = parse_tls)]
    tls: Tls,
    /// URL that is asked whom to admit, such as https://vpn.example.com/verify. While it cannot be asked, nobody is.
    #[arg(long, value_name = "URL")]
    verify_url: Option<String>,
    /// Admit only whom the URL allows; without, every node of every network may use this relay.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    verify_clients: bool,
    /// Bytes a second that one client may send; 0 is no limit.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    client_rate: u64,
    /// Bytes that one client may send at once beyond its rate.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    client_burst: u64,
    #[command(flatten)]
    mesh: MeshArgs,
    /// Where to show counters as Prometheus text; keep it from strangers.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    verbosity: Verbosity,
}

/// How STUN is answered.
#[derive(Args)]
struct StunArgs {
    /// Answer STUN ahead of the kernel's stack, by XDP: on every device whose driver has it, but on veths only if "on" (it
    /// costs their other traffic more than it saves). The socket answers what the program does not.
    #[arg(long, value_name = "auto|on|off", default_value = "auto")]
    xdp: Xdp,
    /// Drop STUN requests: in maintenance, so that clients choose another server.
    #[arg(long)]
    drop_stun: bool,
}

impl StunArgs {
    fn options(&self) -> StunOptions {
        StunOptions { xdp: self.xdp, dropping: self.drop_stun }
    }
}

/// The other servers of the region.
#[derive(Args)]
pub(crate) struct MeshArgs {
    /// Other servers of this region, comma separated: a URL, or HOST[:PORT][/DIAL]; this one may be among them.
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "mesh_key_file")]
    mesh_with: Vec<MeshPeer>,
    /// File with 64 hex digits that the servers of this region share.
    #[arg(long, value_name = "FILE")]
    mesh_key_file: Option<PathBuf>,
}

impl MeshArgs {
    pub(crate) fn read(self) -> Result<Option<Mesh>, MeshError> {
        let Some(file) = self.mesh_key_file else { return Ok(None) };
        Ok(Some(Mesh { key: relay::read_mesh_key(&file)?, with: self.mesh_with }))
    }
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
        let rate =
            (self.client_rate > 0).then_some(Rate { per_second: self.client_rate, burst: self.client_burst });
        let options = Options {
            listen: self.listen,
            stun: self.stun.0,
            stun_options: self.stun_args.options(),
            metrics: self.metrics,
            tls: self.tls.0,
            state: self.state,
            admit: admit(self.verify_url, self.verify_clients)?,
            mesh: self.mesh.read()?,
            relay: Config { rate, ..Config::default() },
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

/// Nobody is admitted unasked, but by an explicit word.
fn admit(url: Option<String>, verify: bool) -> Result<Admit, DaemonFailed> {
    match (verify, url) {
        (true, Some(url)) => Ok(Admit::Verified(url)),
        (false, _) => Ok(Admit::Everyone),
        (true, None) => Err(DaemonFailed {
            message: "nobody says who may use this relay: give --verify-url URL (a coordination server's /verify), or \
                      --verify-clients=false to let in every node of every network"
                .into(),
            code: 2,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        relay: Relay,
    }

    #[test]
    fn nobody_is_admitted_unasked_but_by_an_explicit_word() {
        let parse = |more: &[&str]| {
            let line = ["relay", "--tls", "off"].iter().chain(more);
            <Line as clap::Parser>::try_parse_from(line).map(|line| line.relay)
        };
        let admitted = |more: &[&str]| {
            let relay = parse(more).ok().unwrap();
            admit(relay.verify_url, relay.verify_clients).map_err(|error| error.message)
        };
        assert!(admitted(&[]).unwrap_err().contains("--verify-url"));
        assert_eq!(admitted(&["--verify-clients=false"]), Ok(Admit::Everyone));
        let url = "https://a/verify";
        assert_eq!(admitted(&["--verify-url", url]), Ok(Admit::Verified(url.into())));
        assert!(parse(&["--mesh-with", "b"]).is_err(), "a mesh needs a key");
    }

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
