//! `underpass ip`: overlay addresses, one a line.

use std::net::IpAddr;

use anyhow::{Context, bail};
use clap::Args;

use super::peer;
use crate::client::Client;
use crate::output;

/// `underpass ip`
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 printed (or, with --assert, so); 1 there is no such address; 3 no node answers."
)]
pub(crate) struct Ip {
    /// A peer; without it, this node.
    peer: Option<String>,
    /// Only one address.
    #[arg(short = '1', group = "which")]
    one: bool,
    /// Only IPv4.
    #[arg(short = '4', group = "which")]
    v4: bool,
    /// Only IPv6.
    #[arg(short = '6', group = "which")]
    v6: bool,
    /// Print nothing; succeed if this node has the address.
    #[arg(long, value_name = "ADDR")]
    assert: Option<IpAddr>,
    #[command(flatten)]
    output: output::Json,
}

impl Ip {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        let status = node.status(self.peer.is_some()).await?;
        if let Some(addr) = self.assert {
            if status.tailscale_ips.contains(&addr) {
                return Ok(());
            }
            bail!("this node does not have {addr}; it has {:?}", status.tailscale_ips);
        }
        let all = match &self.peer {
            None => status.tailscale_ips.clone(),
            Some(text) => {
                let (addr, _) = peer::address(&status, text).await?;
                let found = peer::by_address(&status, addr);
                found.with_context(|| format!("no peer has {addr}"))?.tailscale_ips.clone()
            }
        };
        let wanted = self.select(all);
        if wanted.is_empty() {
            bail!("no such address; the node's state is {}", status.backend_state);
        }
        self.output.print(&wanted, |addrs| addrs.iter().map(|addr| format!("{addr}\n")).collect())
    }

    fn select(&self, all: Vec<IpAddr>) -> Vec<IpAddr> {
        let family = |addr: &IpAddr| (!self.v4 || addr.is_ipv4()) && (!self.v6 || addr.is_ipv6());
        let limit = if self.one { 1 } else { usize::MAX };
        all.into_iter().filter(family).take(limit).collect()
    }
}
