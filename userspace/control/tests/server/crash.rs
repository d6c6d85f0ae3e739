//! SIGKILL at any moment: whatever a node was told is there after the restart. This very test runs once more as the server.

use std::collections::BTreeSet;
use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use control::admin::CreateKey;
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::client::{Machine, Place, config, node_key, request};

const FOLDER: &str = "UNDERPASS_TEST_FOLDER";
const ADDR: &str = "UNDERPASS_TEST_ADDR";
const NAME: &str = "crash::no_acknowledged_registration_is_lost_by_sigkill";
/// Nodes that register in a round, and how many may be acknowledged before the kill, round by round.
const NODES: u8 = 12;
const KILL_AFTER: [usize; 5] = [1, 2, 5, 8, 11];

#[test]
fn no_acknowledged_registration_is_lost_by_sigkill() {
    let runtime = Runtime::new().unwrap();
    if let (Ok(folder), Ok(addr)) = (env::var(FOLDER), env::var(ADDR)) {
        let addr: SocketAddr = addr.parse().unwrap();
        let error = runtime.block_on(control::run(config(&PathBuf::from(folder), addr)));
        panic!("the server ended: {error:?}");
    }
    runtime.block_on(rounds());
}

fn start(place: &Place) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(FOLDER, place.folder())
        .env(ADDR, place.addr().to_string())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn rounds() {
    let place = Place::new();
    let mut server = start(&place);
    place.answers().await;
    let key = place.key(CreateKey { user: "alice".into(), reusable: true, ..CreateKey::default() }).await;
    let mut acknowledged = BTreeSet::new();
    for (round, kill_after) in (0..).zip(KILL_AFTER) {
        let mut tasks = JoinSet::new();
        for n in 1 + round * NODES..=(round + 1) * NODES {
            let (machine, key) = (Machine::new(n, &place).await, key.clone());
            tasks.spawn(async move { machine.try_register(&request(n, &key)).await.then_some(n) });
        }
        let before = acknowledged.len();
        while let Some(told) = tasks.join_next().await {
            acknowledged.extend(told.unwrap());
            if acknowledged.len() == before + kill_after {
                server.start_kill().unwrap();
            }
        }
        server.wait().await.unwrap();
        server = start(&place);
        place.answers().await;
        check(&place, &acknowledged).await;
    }
}

/// Everybody who was told is there, nobody shares an address, and every node has cost one use of the key.
async fn check(place: &Place, acknowledged: &BTreeSet<u8>) {
    let mut admin = place.admin().await;
    let nodes = admin.nodes().await.unwrap();
    let keys: BTreeSet<_> = nodes.iter().map(|node| node.node_key.clone()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|n| !keys.contains(&node_key(**n).to_string())).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let addresses: BTreeSet<_> = nodes.iter().flat_map(|node| &node.addresses).collect();
    assert_eq!(addresses.len(), 2 * nodes.len());
    assert_eq!(admin.keys().await.unwrap()[0].uses as usize, nodes.len());
}
