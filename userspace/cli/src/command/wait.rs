//! `underpass wait`: for scripts and units that bind to the node's addresses.

use std::cell::Cell;
use std::net::UdpSocket;
use std::time::Duration;

use clap::Args;
use tokio::time::{sleep, timeout};
use wire::local::{NotifyMask, State};

use crate::client::{Client, ClientError};
use crate::duration;
use crate::exit::TimedOut;

/// How often what cannot be watched (the socket, the device) is looked at again.
const PAUSE: Duration = Duration::from_millis(100);

/// `underpass wait`
#[derive(Args)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct Wait {
    /// Give up after this long, such as 30s; 0 waits forever.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration::parse)]
    timeout: Duration,
}

impl Wait {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        let stage = Cell::new("no node answers");
        let span = if self.timeout.is_zero() { Duration::MAX } else { self.timeout };
        timeout(span, until_up(node, &stage)).await.unwrap_or_else(|_| {
            let (socket, span) = (node.socket().display(), duration::rough(span));
            Err(TimedOut(format!("gave up on {socket} after {span}: {}", stage.get())).into())
        })
    }
}

/// `stage` always says what is waited for.
async fn until_up(node: &Client, stage: &Cell<&str>) -> anyhow::Result<()> {
    let mut bus = loop {
        match node.watch(NotifyMask::INITIAL_STATE).await {
            Ok(bus) => break bus,
            Err(ClientError::Unreachable { .. }) => sleep(PAUSE).await,
            Err(other) => return Err(other.into()),
        }
    };
    stage.set("the node is not up; see `underpass status`");
    while bus.notify().await?.state != Some(State::Running) {}
    stage.set("the node is up, but its addresses cannot be bound in this network namespace");
    loop {
        let addresses = node.status(false).await?.tailscale_ips;
        // Binding is exactly what the caller is about to do.
        if !addresses.is_empty() && addresses.iter().all(|&addr| UdpSocket::bind((addr, 0)).is_ok()) {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}
