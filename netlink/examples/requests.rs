//! Sends the same configuration through this crate (`ours`) or wireguard-control (`control`), for README.md's table:
//! `strace -f -e trace=sendto,sendmsg requests ours|control DEVICE add N` (one call for N peers) or `... endpoint N` (N
//! calls, each moving one peer), on a kernel WireGuard DEVICE. Prints what the calls took, after the first opening.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink::Handle;
use netlink::wireguard::{PeerChange, PublicKey, Wireguard};
use wireguard_control::{Backend, DeviceUpdate, InterfaceName, Key, PeerConfigBuilder};

type Outcome = Result<Duration, Box<dyn std::error::Error>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [library, device, action, count] = words.as_slice() else {
        return Err("arguments: ours|control DEVICE add|endpoint N".into());
    };
    let (add, count) = (action == "add", count.parse()?);
    let took = match library.as_str() {
        "ours" => ours(device, add, count)?,
        _ => control(&device.parse()?, add, count)?,
    };
    println!("{library} {action} {count}: {took:?}");
    Ok(())
}

const ENDPOINT: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9)), 41641);

fn key(n: u32) -> [u8; 32] {
    let mut key = [1; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    key
}

fn address(n: u32) -> IpAddr {
    IpAddr::from((0x6440_0000 + n).to_be_bytes())
}

fn ours(device: &str, add: bool, count: u32) -> Outcome {
    let set = |n| PeerChange::Set {
        key: PublicKey(key(n)),
        endpoint: Some(ENDPOINT),
        allowed_ips: vec![IpNet::from(address(n))],
        keepalive: 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let wireguard = Wireguard::open(&Handle::open()?, device).await?;
        let began = Instant::now();
        if add {
            wireguard.apply(&(0..count).map(set).collect::<Vec<_>>()).await?;
        } else {
            for n in 0..count {
                wireguard
                    .apply(&[PeerChange::Endpoint { key: PublicKey(key(n)), endpoint: ENDPOINT }])
                    .await?;
            }
        }
        Ok(began.elapsed())
    })
}

fn control(device: &InterfaceName, add: bool, count: u32) -> Outcome {
    let peer = |n| PeerConfigBuilder::new(&Key(key(n))).set_endpoint(ENDPOINT);
    let set = |n| peer(n).replace_allowed_ips().add_allowed_ip(address(n), 32);
    let began = Instant::now();
    if add {
        DeviceUpdate::new()
            .add_peers(&(0..count).map(set).collect::<Vec<_>>())
            .apply(device, Backend::Kernel)?;
    } else {
        for n in 0..count {
            DeviceUpdate::new().add_peer(peer(n)).apply(device, Backend::Kernel)?;
        }
    }
    Ok(began.elapsed())
}
