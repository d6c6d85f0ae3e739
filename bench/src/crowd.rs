//! Many nodes that only register: the node's own control client, a machine key and a node key each.

use anyhow::{Context, bail};
use node::control::{Client, Config, Event, Registration, Report};
use tokio::task::JoinSet;
use transport::tls::Trust;
use types::{DiscoPrivate, MachinePrivate, NodePrivate};
use wire::control::{AuthKey, Hostinfo};

/// Registrations under way at once.
const AT_ONCE: usize = 8;

/// Registers `count` nodes at the server behind `url`. Runs in the calling thread's network namespace.
pub(crate) fn register(count: usize, url: &str, key: &str, certificate: &[u8]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut running = JoinSet::new();
        for number in 0..count {
            if running.len() == AT_ONCE {
                running.join_next().await.context("a task runs")???;
            }
            let trust = Trust::pem(certificate)?;
            let config = Config {
                server: url.parse()?,
                machine: MachinePrivate::from_random(bytes(number, 1)),
                trust,
                mark: None,
            };
            running.spawn(one(number, config, key.to_owned()));
        }
        while let Some(done) = running.join_next().await {
            done??;
        }
        Ok(())
    })
}

async fn one(number: usize, config: Config, key: String) -> anyhow::Result<()> {
    let hostinfo = Hostinfo {
        backend_log_id: "bench".to_owned(),
        hostname: format!("node-{number}"),
        os: "linux".to_owned(),
        ..Hostinfo::default()
    };
    let disco_key = DiscoPrivate::from_random(bytes(number, 2)).public();
    let (client, mut events) = Client::start(config, Report { hostinfo, disco_key, ..Report::default() });
    let node_key = NodePrivate::from_random(bytes(number, 3)).public();
    client.register(Registration { node_key, auth_key: Some(AuthKey(key)), ..Registration::default() });
    while let Some(event) = events.recv().await {
        match event {
            Event::Registered(_) => return Ok(()),
            Event::Failed { failure, .. } => bail!("node {number}: {failure}"),
            _ => {}
        }
    }
    bail!("node {number}: the client ended")
}

/// Thirty-two bytes that no other node and role has.
fn bytes(number: usize, role: u8) -> [u8; 32] {
    let mut bytes = [role; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    bytes
}
