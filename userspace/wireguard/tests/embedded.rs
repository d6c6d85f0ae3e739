//! Embedded devices in namespaces, driven by `netlink::wireguard`, `wg` and wireguard-control.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends in a panic, helpers included")]

#[path = "../../../netlink/tests/site/mod.rs"]
mod site;

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use ipnet::IpNet;
use netlink::wireguard::{Backend, Device, DeviceChange, PeerChange, PrivateKey, PublicKey, Wireguard};
use netlink::{Address, Error, Handle, LinkChange};
use site::{Site, can_run, wait_for};
use wireguard::{SpawnOptions, Started};
use x25519_dalek::StaticSecret;

/// One end of a tunnel: its process, its site and its keys. Ends the process when dropped.
struct End {
    site: Site,
    name: String,
    secret: StaticSecret,
}

fn spawn_options() -> SpawnOptions {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_wireguard-test-device"));
    SpawnOptions { program: Some(program), ..SpawnOptions::default() }
}

/// Names of sockets are machine-wide: unique by test process.
fn device_name(suffix: &str) -> String {
    format!("uwt{}{suffix}", std::process::id() % 1_000_000)
}

impl End {
    fn new(site: Site, suffix: &str, overlay: &str) -> Self {
        let mut random = [0; 32];
        getrandom::fill(&mut random).unwrap();
        let end = Self { site, name: device_name(suffix), secret: StaticSecret::from(random) };
        assert_eq!(end.spawn().unwrap(), Started::New);
        let (name, net) = (end.name.clone(), overlay.parse::<IpNet>().unwrap());
        end.site.run(move || async move {
            let handle = Handle::open().unwrap();
            let link = handle.link(&name).await.unwrap().unwrap();
            assert_eq!((link.kind, link.mtu), (netlink::Kind::Tun, 1280));
            handle.add_address(&Address { link: link.index, net }).await.unwrap();
            handle.set_link(&name, &LinkChange { up: Some(true), ..LinkChange::default() }).await.unwrap();
        });
        end.configure(DeviceChange {
            private_key: Some(PrivateKey(end.secret.to_bytes())),
            listen_port: Some(51820),
            fwmark: Some(0x80000),
        })
        .unwrap();
        end
    }

    fn spawn(&self) -> Result<Started, wireguard::Error> {
        let name = self.name.clone();
        self.site.run(move || async move { wireguard::spawn(&name, &spawn_options()) })
    }

    fn key(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&self.secret).to_bytes())
    }

    fn configure(&self, change: DeviceChange) -> netlink::Result<()> {
        let name = self.name.clone();
        self.site.run(move || async move { open(&name).await.configure(&change).await })
    }

    fn apply(&self, changes: Vec<PeerChange>) {
        let name = self.name.clone();
        self.site.run(move || async move { open(&name).await.apply(&changes).await.unwrap() });
    }

    fn device(&self) -> Device {
        let name = self.name.clone();
        self.site.run(move || async move { open(&name).await.device().await.unwrap() })
    }

    fn add(&self, peer: &End, endpoint: Option<&str>, net: &str) {
        self.apply(vec![PeerChange::Set {
            key: peer.key(),
            endpoint: endpoint.map(|endpoint| endpoint.parse().unwrap()),
            allowed_ips: vec![net.parse().unwrap()],
            keepalive: 0,
        }]);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let name = self.name.clone();
        self.site.run(move || async move { wireguard::stop(&name).unwrap() });
    }
}

async fn open(name: &str) -> Wireguard {
    let device = Wireguard::open(&Handle::open().unwrap(), name).await.unwrap();
    assert_eq!(device.backend(), &Backend::Userspace(name.into()));
    device
}

/// Two configured ends, `a` knowing where `b` is.
fn tunnel(suffix: &str) -> (End, End) {
    let (a, b) = Site::pair();
    let a = End::new(a, &format!("{suffix}a"), "100.64.0.1/24");
    let b = End::new(b, &format!("{suffix}b"), "100.64.0.2/24");
    a.add(&b, Some("192.0.2.2:51820"), "100.64.0.2/32");
    b.add(&a, None, "100.64.0.1/32");
    (a, b)
}

#[test]
fn two_devices_ping_and_everybody_reads_the_same() {
    if !can_run("two_devices_ping_and_everybody_reads_the_same") {
        return;
    }
    let (a, b) = tunnel("p");
    // Noise on the port that is no WireGuard: DISCO's magic, and a torn message.
    b.site.run(|| async {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"TS\xf0\x9f\x92\xac not for WireGuard", "127.0.0.1:51820").unwrap();
        socket.send_to(&[4, 0, 0, 0, 1], "127.0.0.1:51820").unwrap();
    });
    a.site.ping("100.64.0.2");
    let (at_a, at_b) = (a.device(), b.device());
    assert_eq!(at_a.public_key, Some(a.key()));
    assert_eq!((at_a.listen_port, at_a.fwmark), (51820, 0x80000));
    assert_eq!(
        at_b.peers[0].endpoint,
        Some("192.0.2.1:51820".parse().unwrap()),
        "learned from the handshake"
    );
    assert!(at_a.peers[0].last_handshake.is_some() && at_b.peers[0].last_handshake.is_some());
    assert!(at_a.peers[0].tx_bytes >= 148 + 32 + 128, "{:?}", at_a.peers[0]);
    assert!(at_b.peers[0].rx_bytes >= at_a.peers[0].tx_bytes);

    let shown = a.site.sh(&format!("wg show {} dump", a.name));
    assert!(shown.contains(&b.key().to_string()) && shown.contains("192.0.2.2:51820"), "{shown}");
    let name: wireguard_control::InterfaceName = a.name.parse().unwrap();
    let seen = wireguard_control::Device::get(&name, wireguard_control::Backend::Userspace).unwrap();
    assert_eq!(seen.peers[0].config.public_key.as_bytes(), &b.key().0);
    assert_eq!(seen.fwmark, Some(0x80000));
}

#[test]
fn an_endpoint_step_keeps_the_session_and_roaming_follows_the_peer() {
    if !can_run("an_endpoint_step_keeps_the_session_and_roaming_follows_the_peer") {
        return;
    }
    let (a, b) = tunnel("r");
    a.site.ping("100.64.0.2");
    let before = a.device().peers[0].last_handshake;
    let v6: SocketAddr = "[2001:db8::2]:51820".parse().unwrap();
    a.apply(vec![PeerChange::Endpoint { key: b.key(), endpoint: v6 }]);
    a.site.ping("100.64.0.2");
    let after = &a.device().peers[0];
    assert_eq!((after.endpoint, after.last_handshake), (Some(v6), before), "the same session over IPv6");
    assert_eq!(b.device().peers[0].endpoint, Some("[2001:db8::1]:51820".parse().unwrap()));

    // The peer moves to another port: b hears it from there and answers there.
    a.configure(DeviceChange { listen_port: Some(51999), ..DeviceChange::default() }).unwrap();
    a.site.ping("100.64.0.2");
    assert_eq!(b.device().peers[0].endpoint, Some("[2001:db8::1]:51999".parse().unwrap()));
    assert_eq!(a.device().peers[0].last_handshake, before);

    // Steps on a peer that is not there do not make it.
    let stranger = PublicKey([9; 32]);
    a.apply(vec![
        PeerChange::Endpoint { key: stranger, endpoint: v6 },
        PeerChange::AddAllowedIps { key: stranger, nets: vec!["100.64.0.2/32".parse().unwrap()] },
    ]);
    assert_eq!(a.device().peers.len(), 1);
    a.site.ping("100.64.0.2");
}

#[test]
fn a_new_key_needs_a_new_handshake_and_prefixes_come_and_go() {
    if !can_run("a_new_key_needs_a_new_handshake_and_prefixes_come_and_go") {
        return;
    }
    let (mut a, b) = tunnel("k");
    a.site.ping("100.64.0.2");
    let old = a.key();
    a.secret = StaticSecret::from([42; 32]);
    a.configure(DeviceChange { private_key: Some(PrivateKey([42; 32])), ..DeviceChange::default() }).unwrap();
    assert_eq!(a.device().public_key, Some(a.key()));
    // The prefix moves from the old key to the new one in one call.
    b.apply(vec![
        PeerChange::Set {
            key: a.key(),
            endpoint: None,
            allowed_ips: vec!["100.64.0.1/32".parse().unwrap()],
            keepalive: 0,
        },
        PeerChange::Remove { key: old },
    ]);
    a.site.ping("100.64.0.2");

    b.apply(vec![PeerChange::RemoveAllowedIps {
        key: a.key(),
        nets: vec!["100.64.0.1/32".parse().unwrap()],
    }]);
    assert!(b.device().peers[0].allowed_ips.is_empty());
    let (text, answered) = a.site.try_sh("ping -c 1 -W 1 100.64.0.2");
    assert!(!answered, "a packet from an address that is not the peer's: {text}");
    b.apply(vec![PeerChange::AddAllowedIps { key: a.key(), nets: vec!["100.64.0.1/32".parse().unwrap()] }]);
    a.site.ping("100.64.0.2");
}

#[test]
fn packets_wait_for_the_handshake_and_are_all_delivered() {
    if !can_run("packets_wait_for_the_handshake_and_are_all_delivered") {
        return;
    }
    let (a, b) = Site::pair();
    let a = End::new(a, "wa", "100.64.0.1/24");
    let b = End::new(b, "wb", "100.64.0.2/24");
    // a knows b, b not yet a: the first initiation is lost, the one five seconds later is not.
    a.add(&b, Some("192.0.2.2:51820"), "100.64.0.2/32");
    let receiver = b.site.run(|| async { UdpSocket::bind("100.64.0.2:7000").unwrap() });
    a.site.run(|| async {
        let socket = UdpSocket::bind("100.64.0.1:0").unwrap();
        (0..100u8).for_each(|n| assert_eq!(socket.send_to(&[n], "100.64.0.2:7000").unwrap(), 1));
    });
    wait_for("first initiation", || datagrams_read(&b.site) > 0);
    b.add(&a, None, "100.64.0.1/32");
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let got: Vec<u8> = (0..100)
        .map(|_| {
            let mut byte = [0];
            receiver.recv(&mut byte).unwrap();
            byte[0]
        })
        .collect();
    assert_eq!(got, (0..100).collect::<Vec<u8>>());
}

#[test]
fn the_kernels_wireguard_is_a_peer_like_any_other() {
    let test = "the_kernels_wireguard_is_a_peer_like_any_other";
    if !can_run(test) {
        return;
    }
    let (a, b) = Site::pair();
    let a = End::new(a, "ka", "100.64.0.1/24");
    let ours = a.key();
    let created = b.run(move || async move {
        let handle = Handle::open().unwrap();
        let link = match handle.create_wireguard("wg0").await {
            Ok(link) => link,
            Err(error) => return Err(error),
        };
        let device = Wireguard::open(&handle, "wg0").await?;
        let private_key = Some(PrivateKey([5; 32]));
        device.configure(&DeviceChange { private_key, listen_port: Some(51820), fwmark: None }).await?;
        let (endpoint, allowed_ips) =
            ("192.0.2.1:51820".parse().ok(), vec!["100.64.0.1/32".parse().unwrap()]);
        device.apply(&[PeerChange::Set { key: ours, endpoint, allowed_ips, keepalive: 0 }]).await?;
        handle.add_address(&Address { link: link.index, net: "100.64.0.2/24".parse().unwrap() }).await?;
        handle.set_link("wg0", &LinkChange { up: Some(true), ..LinkChange::default() }).await?;
        Ok(PublicKey(x25519_dalek::PublicKey::from(&StaticSecret::from([5; 32])).to_bytes()))
    });
    let key = match created {
        Ok(key) => key,
        Err(Error::NoKernelWireguard(_)) => return site::skipped(test, "this kernel has no WireGuard"),
        Err(error) => panic!("{error}"),
    };
    let allowed_ips = vec!["100.64.0.2/32".parse().unwrap()];
    a.apply(vec![PeerChange::Set { key, endpoint: None, allowed_ips, keepalive: 0 }]);
    // The kernel begins, as the embedded one does not know where it is.
    b.ping("100.64.0.1");
    a.site.ping("100.64.0.2");
    assert_eq!(a.device().peers[0].endpoint, Some("192.0.2.2:51820".parse().unwrap()));
}

#[test]
fn a_port_in_use_is_refused_and_the_old_one_kept() {
    if !can_run("a_port_in_use_is_refused_and_the_old_one_kept") {
        return;
    }
    let (a, _b) = tunnel("u");
    let taken = a.site.run(|| async { UdpSocket::bind("0.0.0.0:6000").unwrap() });
    let error = a.configure(DeviceChange { listen_port: Some(6000), ..DeviceChange::default() }).unwrap_err();
    assert!(error.is_taken(), "{error}");
    assert!(error.to_string().contains("Address already in use"), "{error}");
    assert_eq!(a.device().listen_port, 51820);
    a.site.ping("100.64.0.2");
    drop(taken);
    a.configure(DeviceChange { listen_port: Some(6000), ..DeviceChange::default() }).unwrap();
    assert_eq!(a.device().listen_port, 6000);
}

#[test]
fn a_device_is_adopted_ends_with_its_link_and_names_are_not_shared() {
    if !can_run("a_device_is_adopted_ends_with_its_link_and_names_are_not_shared") {
        return;
    }
    let end = End::new(Site::new(), "l", "100.64.0.1/24");
    assert_eq!(end.spawn().unwrap(), Started::Adopted);
    assert_eq!(end.device().public_key, Some(end.key()), "adopted as it was");
    let elsewhere = Site::new();
    let name = end.name.clone();
    let error = elsewhere.run(move || async move { wireguard::spawn(&name, &spawn_options()) }).unwrap_err();
    assert!(matches!(error, wireguard::Error::Elsewhere(_)), "{error}");

    end.site.sh(&format!("ip link delete {}", end.name));
    let socket = PathBuf::from(format!("/var/run/wireguard/{}.sock", end.name));
    wait_for("end of the process", || !socket.exists());
    end.site.sh(&format!("ip link add {} type bridge", end.name));
    let error = end.spawn().unwrap_err();
    assert!(matches!(error, wireguard::Error::NameTaken(_)), "{error}");
    let name = end.name.clone();
    let error =
        end.site.run(move || async move { Wireguard::open(&Handle::open().unwrap(), &name).await.err() });
    assert!(matches!(error, Some(Error::NotWireguard(_))), "{error:?}");
    end.site.sh(&format!("ip link delete {}", end.name));
    assert_eq!(end.spawn().unwrap(), Started::New);
}

#[test]
fn a_device_outlives_who_started_it() {
    if !can_run("a_device_outlives_who_started_it") {
        return;
    }
    let (site, name) = (Site::new(), device_name("o"));
    // A process that spawns the device and ends.
    site.sh(&format!("{} spawn --device {name}", env!("CARGO_BIN_EXE_wireguard-test-device")));
    let listed = site.sh("wg show interfaces");
    assert!(listed.split_whitespace().any(|listed| listed == name), "{listed}");
    let pid = process_of(&name);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap();
    assert_eq!(session, pid, "a session of its own");
    let ended = name.clone();
    site.run(move || async move { wireguard::stop(&ended).unwrap() });
    wait_for("end of the process", || !PathBuf::from(format!("/proc/{pid}/exe")).exists());
}

/// UDP datagrams that programs of the site have read (`InDatagrams` of RFC 4113).
fn datagrams_read(site: &Site) -> u64 {
    let counters = site.sh("cat /proc/net/snmp");
    let udp = counters.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap();
    udp.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The process whose command line ends in `wireguard --device NAME`.
fn process_of(name: &str) -> String {
    let pgrep = Command::new("pgrep").args(["-f", &format!("wireguard --device {name}")]).output().unwrap();
    let found = String::from_utf8(pgrep.stdout).unwrap();
    found.lines().next().expect("the device's process").to_owned()
}
