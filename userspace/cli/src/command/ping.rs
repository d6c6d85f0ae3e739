//! `underpass ping`: one line an answer, with the path it took; by default until that path is direct.

use std::time::Duration;

use anyhow::bail;
use clap::{ArgAction, Args};
use tokio::time::{sleep, timeout};
use wire::local::{PingResult, PingType};

use super::{peer, status};
use crate::client::{Client, ClientError};
use crate::exit::NotSo;
use crate::{duration, output};

/// Pause between two pings.
const PAUSE: Duration = Duration::from_secs(1);

/// `underpass ping`
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 an answer came (and, with --until-direct, by a direct path); 1 none did, or the \
path stayed relayed; 3 no node answers."
)]
pub(crate) struct Ping {
    /// Name or address of a peer, or an address behind a subnet router.
    peer: String,
    /// Number of pings; 0 is no limit.
    #[arg(short, long = "c", value_name = "N", default_value_t = 10)]
    count: u32,
    /// Stop at the first direct path.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true)]
    #[arg(action = ArgAction::Set, default_missing_value = "true")]
    until_direct: bool,
    /// Time to wait for each answer.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
    /// Payload of a disco ping in bytes; 0 is the smallest.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    size: usize,
    /// Through the tunnel, to the peer's node software.
    #[arg(long, group = "layer")]
    tsmp: bool,
    /// Through the tunnel, to the peer's operating system.
    #[arg(long, group = "layer")]
    icmp: bool,
    /// An HTTP request to the peer's node software.
    #[arg(long, group = "layer")]
    peerapi: bool,
    /// Say which address the name has, too.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    output: output::Json,
}

impl Ping {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        let network = node.status(true).await?;
        if let Some(sentence) = status::why_not_up(&network) {
            output::text(&(sentence + "\n"))?;
            return Err(NotSo.into());
        }
        let (addr, own) = peer::address(&network, &self.peer).await?;
        if own {
            return output::text(&format!("{addr} is an address of this node\n"));
        }
        if self.verbose && self.peer != addr.to_string() {
            output::text(&format!("lookup {:?} => \"{addr}\"\n", self.peer))?;
        }
        let kind = self.kind();
        let path = format!("ping?ip={addr}&type={kind}&size={}", self.size);
        let mut answered = false;
        for sent in 1.. {
            match timeout(self.timeout, node.post::<PingResult>(&path)).await {
                Ok(result) => {
                    let result = answer(result)?;
                    answered = true;
                    self.show(&result, kind)?;
                    let direct = !result.endpoint.is_empty();
                    if kind != PingType::Disco || (direct && self.until_direct) {
                        return Ok(());
                    }
                }
                Err(_) => eprintln!("ping {} timed out", self.peer),
            }
            if sent == self.count {
                break;
            }
            sleep(PAUSE).await;
        }
        match (answered, self.until_direct) {
            (false, _) => bail!("no reply from {} ({addr})", self.peer),
            (true, true) => bail!("direct connection not established; the answers came through a relay"),
            (true, false) => Ok(()),
        }
    }

    fn kind(&self) -> PingType {
        match (self.tsmp, self.icmp, self.peerapi) {
            (true, ..) => PingType::Tsmp,
            (_, true, _) => PingType::Icmp,
            (_, _, true) => PingType::PeerApi,
            _ => PingType::Disco,
        }
    }

    fn show(&self, result: &PingResult, kind: PingType) -> anyhow::Result<()> {
        if self.output.json { output::json(result) } else { output::text(&sentence(result, kind)) }
    }
}

fn answer(result: Result<PingResult, ClientError>) -> anyhow::Result<PingResult> {
    let result = result?;
    if result.err.is_empty() { Ok(result) } else { bail!("{}", result.err) }
}

fn sentence(result: &PingResult, kind: PingType) -> String {
    let via = if !result.peer_relay.is_empty() {
        format!("peer-relay({})", result.peer_relay)
    } else if !result.derp_region_id.is_zero() {
        format!("DERP({})", result.derp_region_code)
    } else if !result.endpoint.is_empty() {
        result.endpoint.clone()
    } else {
        kind.to_string()
    };
    let millis = (result.latency_seconds * 1e3).max(0.0);
    let latency = if millis < 10.0 { format!("{millis:.1}ms") } else { format!("{millis:.0}ms") };
    format!("pong from {} ({}) via {via} in {latency}\n", result.node_name, result.node_ip)
}

#[cfg(test)]
mod tests {
    use types::RegionId;

    use super::*;

    #[test]
    fn the_line_names_the_path() {
        let pong = PingResult {
            node_name: "gw".into(),
            node_ip: "100.64.0.2".into(),
            latency_seconds: 0.0123,
            ..PingResult::default()
        };
        let direct = PingResult { endpoint: "203.0.113.7:41641".into(), ..pong.clone() };
        assert_eq!(
            sentence(&direct, PingType::Disco),
            "pong from gw (100.64.0.2) via 203.0.113.7:41641 in 12ms\n"
        );
        let relayed =
            PingResult { derp_region_id: RegionId(900), derp_region_code: "hq".into(), ..pong.clone() };
        assert!(sentence(&relayed, PingType::Disco).contains("via DERP(hq) in"));
        assert!(sentence(&pong, PingType::Tsmp).contains("via TSMP in"));
    }
}
