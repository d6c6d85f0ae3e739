//! Sends the same configuration through this crate (`ours`) or wireguard-control (`control`), for README.md's table:
//! `strace -e trace=sendto,sendmsg requests ours|control DEVICE add N` or `... endpoint N`, on a kernel WireGuard DEVICE.

use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use netlink::Handle;
use netlink::wireguard::{PeerChange, PublicKey, Wireguard};
use wireguard_control::{Backend, DeviceUpdate, Key, PeerConfigBuilder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [library, device, action, count] = words.as_slice() else {
        return Err("arguments: ours|control DEVICE add|endpoint N".into());
    };
    let (add, count) = (action == "add", count.parse()?);
    let began = Instant::now();
    match library.as_str() {
        "ours" => ours(device, add, count)?,
        _ => control(device, add, count)?,
    }
    println!("{library} {action} {count}: {:?}", began.elapsed());
    Ok(())
}

fn key(n: u32) -> [u8; 32] {
    let mut key = [1; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    key
}

fn address(n: u32) -> IpAddr {
    IpAddr::from((0x6440_0000 + n).to_be_bytes())
}

fn ours(device: &str, add: bool, count: u32) -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = "192.0.2.9:41641".parse()?;
    let change = |n| {
        let key = PublicKey(key(n));
        let allowed_ips = vec![IpNet::from(address(n))];
        match add {
            true => PeerChange::Set { key, endpoint: Some(endpoint), allowed_ips, keepalive: 0 },
            false => PeerChange::Endpoint { key, endpoint },
        }
    };
    let changes: Vec<_> = (0..count).map(change).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let wireguard = Wireguard::open(&Handle::open()?, device).await?;
        Ok(wireguard.apply(&changes).await?)
    })
}

fn control(device: &str, add: bool, count: u32) -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = "192.0.2.9:41641".parse()?;
    let peer = |n| {
        let peer = PeerConfigBuilder::new(&Key(key(n))).set_endpoint(endpoint);
        if add { peer.replace_allowed_ips().add_allowed_ip(address(n), 32) } else { peer }
    };
    let update = DeviceUpdate::new().add_peers(&(0..count).map(peer).collect::<Vec<_>>());
    Ok(update.apply(&device.parse()?, Backend::Kernel)?)
}
