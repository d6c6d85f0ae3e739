//! Every call against a real kernel, each test in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends in a panic, helpers included")]

mod site;

use std::net::IpAddr;

use ipnet::IpNet;
use netlink::wireguard::{Backend, DeviceChange, PeerChange, PrivateKey, PublicKey, Wireguard};
use netlink::{
    Action, Address, Error, Event, Family, Handle, Kind, LinkChange, Mark, Reachability, Route, RouteChange,
    RouteKind, Rule, Table, TableFamily, Watch,
};
use site::{Site, can_run, wait_for};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A site with a bridge `br0`, up, and its index.
fn with_bridge() -> (Site, u32) {
    let site = Site::new();
    site.sh("ip link add br0 type bridge");
    let index = site.run(|| async {
        let handle = Handle::open().unwrap();
        handle.set_link("br0", &LinkChange { up: Some(true), ..LinkChange::default() }).await.unwrap();
        handle.link("br0").await.unwrap().unwrap().index
    });
    (site, index)
}

#[test]
fn links_are_listed_changed_and_deleted() {
    if !can_run("links_are_listed_changed_and_deleted") {
        return;
    }
    let (site, index) = with_bridge();
    site.run(move || async move {
        let handle = Handle::open().unwrap();
        let change = LinkChange { up: Some(true), mtu: Some(1280), alias: Some("the wire".into()) };
        handle.set_link("br0", &change).await.unwrap();
        let link = handle.link_by_index(index).await.unwrap().unwrap();
        assert_eq!((link.mtu, link.up, link.alias.as_deref()), (1280, true, Some("the wire")));
        assert_eq!((link.kind.clone(), link.mac.is_some()), (Kind::Other("bridge".into()), true));
        let all = handle.links().await.unwrap();
        assert!(all.contains(&link) && all.iter().any(|link| link.kind == Kind::Loopback), "{all:?}");
        handle.delete_link("br0").await.unwrap();
        assert_eq!(handle.link("br0").await.unwrap(), None);
        let error = handle.delete_link("br0").await.unwrap_err();
        assert!(error.is_missing() && error.to_string().contains("link br0"), "{error}");
    });
}

#[test]
fn addresses_of_both_families_come_and_go() {
    if !can_run("addresses_of_both_families_come_and_go") {
        return;
    }
    let (site, link) = with_bridge();
    site.run(move || async move {
        let handle = Handle::open().unwrap();
        for text in ["100.64.0.7/32", "fd7a:115c:a1e0::7/128"] {
            let address = Address { link, net: net(text) };
            handle.add_address(&address).await.unwrap();
            assert!(handle.addresses(Some(link)).await.unwrap().contains(&address));
            let again = handle.add_address(&address).await.unwrap_err();
            assert!(again.is_taken() && again.to_string().contains(text), "{again}");
            handle.remove_address(&address).await.unwrap();
            assert!(handle.remove_address(&address).await.unwrap_err().is_missing());
            assert!(!handle.addresses(None).await.unwrap().contains(&address));
        }
    });
}

#[test]
fn a_route_reads_back_as_it_was_written() {
    if !can_run("a_route_reads_back_as_it_was_written") {
        return;
    }
    let (site, link) = with_bridge();
    site.run(move || async move {
        let handle = Handle::open().unwrap();
        handle.add_address(&Address { link, net: net("100.64.0.7/24") }).await.unwrap();
        let source: Option<IpAddr> = Some("100.64.0.7".parse().unwrap());
        let gateway: Option<IpAddr> = Some("100.64.0.1".parse().unwrap());
        let written = [
            Route { source, metric: Some(5), ..Route::to_device(52, net("10.0.0.0/8"), link) },
            Route { gateway, ..Route::to_device(52, net("10.1.0.0/16"), link) },
            Route { protocol: 84, ..Route::verdict(1052, net("10.2.0.0/16"), RouteKind::Blackhole) },
            Route::verdict(52, net("0.0.0.0/0"), RouteKind::Throw),
            Route::verdict(52, net("10.3.0.0/16"), RouteKind::Unreachable),
            Route { metric: Some(1024), ..Route::to_device(52, net("fd7a::/48"), link) },
        ];
        for route in &written {
            handle.add_route(route).await.unwrap();
            let again = handle.add_route(route).await.unwrap_err();
            assert!(
                again.is_taken() && again.to_string().contains(&route.destination.to_string()),
                "{again}"
            );
        }
        let read =
            [handle.routes(Some(52)).await.unwrap(), handle.routes(Some(1052)).await.unwrap()].concat();
        assert_eq!(read.len(), written.len(), "{read:?}");
        assert!(written.iter().all(|route| read.contains(route)), "{read:?}");
        assert!(
            handle.routes(None).await.unwrap().len() > read.len(),
            "the kernel's own are in other tables"
        );

        let moved = Route { source: None, ..written[0].clone() };
        handle.replace_route(&moved).await.unwrap();
        let read = handle.routes(Some(52)).await.unwrap();
        assert!(read.contains(&moved) && !read.contains(&written[0]));
        handle.remove_route(&moved).await.unwrap();
        assert!(handle.remove_route(&moved).await.unwrap_err().is_missing());
    });
}

#[test]
fn thousands_of_routes_go_together_and_a_bad_one_costs_itself() {
    if !can_run("thousands_of_routes_go_together_and_a_bad_one_costs_itself") {
        return;
    }
    let (site, link) = with_bridge();
    site.run(move || async move {
        let handle = Handle::open().unwrap();
        let prefix = |n: u32| IpNet::new(IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes()), 24).unwrap();
        let mut changes: Vec<_> =
            (0..5000).map(|n| RouteChange::Replace(Route::to_device(52, prefix(n), link))).collect();
        let bad = Route {
            gateway: Some("203.0.113.1".parse().unwrap()),
            ..Route::to_device(52, prefix(9000), link)
        };
        changes.insert(2500, RouteChange::Replace(bad.clone()));
        let failed = handle.change_routes(changes).await;
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(failed[0].0, RouteChange::Replace(bad));
        // The kernel's own words are part of the error.
        let text = failed[0].1.to_string();
        assert!(text.contains(&prefix(9000).to_string()) && text.contains("invalid gateway"), "{text}");
        let there = handle.routes(Some(52)).await.unwrap();
        assert_eq!(there.len(), 5000);
        let mut removals: Vec<_> = there.into_iter().map(RouteChange::Remove).collect();
        removals.push(RouteChange::Remove(Route::to_device(52, prefix(9999), link)));
        assert!(handle.change_routes(removals).await.is_empty(), "absent already counts as removed");
        assert_eq!(handle.routes(Some(52)).await.unwrap(), []);
    });
}

#[test]
fn rules_of_both_families_read_back_as_written() {
    if !can_run("rules_of_both_families_read_back_as_written") {
        return;
    }
    let site = Site::new();
    site.run(|| async {
        let handle = Handle::open().unwrap();
        let mark = Some(Mark { value: 0x80000, mask: 0xff_0000 });
        let written = [
            Rule { mark, ..Rule::lookup(Family::V4, 5210, 254) },
            Rule { mark, action: Action::Unreachable, ..Rule::lookup(Family::V4, 5250, 0) },
            Rule::lookup(Family::V4, 5270, 52),
            Rule { source: Some(net("fd7a::/48")), ..Rule::lookup(Family::V6, 5270, 1052) },
            Rule { input: Some("lo".into()), ..Rule::lookup(Family::V6, 5271, 52) },
        ];
        for rule in &written {
            handle.add_rule(rule).await.unwrap();
            assert!(handle.add_rule(rule).await.unwrap_err().is_taken(), "{rule}");
        }
        let read = handle.rules().await.unwrap();
        for rule in &written {
            assert!(read.contains(rule), "{rule} in {read:?}");
            handle.remove_rule(rule).await.unwrap();
            assert!(handle.remove_rule(rule).await.unwrap_err().is_missing(), "{rule}");
        }
        let left = handle.rules().await.unwrap();
        assert_eq!(left.len(), read.len() - written.len());
    });
}

#[test]
fn neighbors_are_seen_with_their_ethernet_address() {
    if !can_run("neighbors_are_seen_with_their_ethernet_address") {
        return;
    }
    let (a, b) = Site::pair();
    a.ping("192.0.2.2");
    let mac = b.run(|| async { Handle::open().unwrap().link("wire").await.unwrap().unwrap().mac });
    let seen = a.run(|| async { Handle::open().unwrap().neighbors(None).await.unwrap() });
    let address: IpAddr = "192.0.2.2".parse().unwrap();
    let found = seen.iter().find(|neighbor| neighbor.address == address).unwrap();
    assert_eq!((found.mac, found.state), (mac, Reachability::Usable));
}

#[test]
fn changes_are_told_as_events() {
    if !can_run("changes_are_told_as_events") {
        return;
    }
    let site = Site::new();
    site.run(|| async {
        let (handle, mut watch) = (Handle::open().unwrap(), Watch::open().unwrap());
        let lo = handle.link("lo").await.unwrap().unwrap().index;
        let address = Address { link: lo, net: net("100.64.0.9/32") };
        let route = Route::to_device(52, net("10.9.0.0/16"), lo);
        let rule = Rule::lookup(Family::V4, 5270, 52);
        handle.add_address(&address).await.unwrap();
        handle.add_route(&route).await.unwrap();
        handle.add_rule(&rule).await.unwrap();
        handle.set_link("lo", &LinkChange { mtu: Some(40_000), ..LinkChange::default() }).await.unwrap();
        handle.remove_rule(&rule).await.unwrap();
        handle.remove_route(&route).await.unwrap();
        handle.remove_address(&address).await.unwrap();
        let mut expected = vec![
            Event::AddressChanged(address),
            Event::RouteChanged(route.clone()),
            Event::RuleAdded(rule.clone()),
            Event::RuleRemoved(rule),
            Event::RouteRemoved(route),
            Event::AddressRemoved(address),
        ];
        let mut resized = false;
        let all = async {
            while !expected.is_empty() || !resized {
                let event = watch.next().await.unwrap();
                resized |= matches!(&event, Event::LinkChanged(link) if link.mtu == 40_000);
                if expected.first() == Some(&event) {
                    expected.remove(0);
                }
            }
        };
        let late = tokio::time::timeout(std::time::Duration::from_secs(10), all).await;
        assert!(late.is_ok(), "never told: {expected:?}, resized {resized}");
    });
}

#[test]
fn a_storm_of_changes_says_that_events_were_lost() {
    if !can_run("a_storm_of_changes_says_that_events_were_lost") {
        return;
    }
    let (site, link) = with_bridge();
    site.run(move || async move {
        // Nobody serves the watch's runtime while another thread of the same namespace changes 20,000 routes.
        let mut watch = Watch::open().unwrap();
        let storm = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let prefix = |n: u32| IpNet::new(IpAddr::from((0x0a00_0000 + n).to_be_bytes()), 32).unwrap();
                let changes =
                    (0..20_000).map(|n| RouteChange::Replace(Route::to_device(52, prefix(n), link)));
                Handle::open().unwrap().change_routes(changes.collect()).await
            })
        });
        assert!(storm.join().unwrap().is_empty());
        let lost = async { while watch.next().await.unwrap() != Event::Lost {} };
        assert!(tokio::time::timeout(std::time::Duration::from_secs(10), lost).await.is_ok());
    });
}

#[test]
fn a_table_is_replaced_as_a_whole_or_not_at_all() {
    if !can_run("a_table_is_replaced_as_a_whole_or_not_at_all") {
        return;
    }
    let site = Site::new();
    let ruleset =
        |chain: &str| format!("chain {chain} {{ type filter hook input priority 0; policy accept; }}");
    let (first, second) = (ruleset("first"), ruleset("second"));
    site.run(|| async move {
        let table = Table::new(TableFamily::Inet, "underpass_test");
        assert!(table.listing().await.unwrap().is_none());
        table.remove().await.unwrap();
        table.replace(&first).await.unwrap();
        table.replace(&second).await.unwrap();
        assert!(table.listing().await.unwrap().is_some());
        let error = table.replace("chain input { no such thing }").await.unwrap_err();
        assert!(matches!(&error, Error::Nft { table, .. } if table == "inet underpass_test"), "{error}");
    });
    let kept = site.sh("nft list table inet underpass_test");
    assert!(kept.contains("second") && !kept.contains("first"), "{kept}");
    site.run(|| async {
        let table = Table::new(TableFamily::Inet, "underpass_test");
        table.remove().await.unwrap();
        assert!(table.listing().await.unwrap().is_none());
    });
}

#[test]
fn forwarding_is_switched_in_the_namespace_only() {
    if !can_run("forwarding_is_switched_in_the_namespace_only") {
        return;
    }
    let (site, other) = (Site::new(), Site::new());
    let switched = |site: &Site| site.run(|| async { netlink::sysctl::read("net.ipv4.ip_forward").unwrap() });
    let before = switched(&other);
    site.run(|| async { netlink::sysctl::write("net.ipv4.ip_forward", "1").unwrap() });
    assert_eq!(switched(&site), "1");
    site.run(|| async { netlink::sysctl::write("net.ipv4.ip_forward", "0").unwrap() });
    assert_eq!((switched(&site), switched(&other)), ("0".into(), before));
}

#[test]
fn a_kernel_wireguard_is_driven_step_by_step() {
    let test = "a_kernel_wireguard_is_driven_step_by_step";
    if !can_run(test) {
        return;
    }
    let site = Site::new();
    let absent = site.run(|| async {
        match Handle::open().unwrap().create_wireguard("wg7").await {
            Ok(link) => {
                assert_eq!(link.kind, Kind::Wireguard);
                None
            }
            Err(error) => Some(error),
        }
    });
    if let Some(error) = absent {
        assert!(matches!(&error, Error::NoKernelWireguard(name) if name == "wg7"), "{error}");
        site::skipped(test, "this kernel has no WireGuard");
        return;
    }
    site.run(|| async {
        let handle = Handle::open().unwrap();
        let again = handle.create_wireguard("wg7").await.unwrap_err();
        assert!(again.is_taken(), "{again}");
        drive(&handle).await;
    });
    wait_for("peers in `wg show`", || site.sh("wg show wg7 peers").lines().count() == 2001);
}

async fn drive(handle: &Handle) {
    let wireguard = Wireguard::open(handle, "wg7").await.unwrap();
    assert_eq!(wireguard.backend(), &Backend::Kernel);
    let change =
        DeviceChange { private_key: Some(PrivateKey([7; 32])), listen_port: Some(51820), fwmark: Some(9) };
    wireguard.configure(&change).await.unwrap();
    let key = |n: u16| {
        let mut key = [1; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        PublicKey(key)
    };
    let prefix = |n: u16| IpNet::new(IpAddr::from((0x6440_0000 + u32::from(n)).to_be_bytes()), 32).unwrap();
    let set = |n: u16| PeerChange::Set {
        key: key(n),
        endpoint: Some("192.0.2.9:51820".parse().unwrap()),
        allowed_ips: vec![prefix(n)],
        keepalive: 25,
    };
    wireguard.apply(&(0..2000).map(set).collect::<Vec<_>>()).await.unwrap();
    let many: Vec<_> = (0..3000)
        .map(|n| IpNet::new(IpAddr::from((0x0a00_0000u32 + n).to_be_bytes()), 32).unwrap())
        .collect();
    let big = PeerChange::Set { key: key(5000), endpoint: None, allowed_ips: many, keepalive: 0 };
    wireguard.apply(&[big]).await.unwrap();
    wireguard
        .apply(&[
            PeerChange::Endpoint { key: key(0), endpoint: "[2001:db8::9]:7".parse().unwrap() },
            PeerChange::Endpoint { key: key(9999), endpoint: "[2001:db8::9]:7".parse().unwrap() },
            PeerChange::AddAllowedIps { key: key(1), nets: vec![prefix(2)] },
            PeerChange::RemoveAllowedIps { key: key(2), nets: vec![prefix(2)] },
            PeerChange::RemoveAllowedIps { key: key(3), nets: vec![prefix(3)] },
        ])
        .await
        .unwrap();
    let device = wireguard.device().await.unwrap();
    assert_eq!((device.listen_port, device.fwmark, device.peers.len()), (51820, 9, 2001));
    let peer = |n: u16| device.peers.iter().find(|peer| peer.key == key(n)).unwrap();
    assert_eq!(peer(0).endpoint, Some("[2001:db8::9]:7".parse().unwrap()));
    assert_eq!(peer(0).keepalive, 25);
    let mut gained = peer(1).allowed_ips.clone();
    gained.sort();
    assert_eq!(gained, [prefix(1), prefix(2)]);
    assert_eq!((peer(2).allowed_ips.len(), peer(3).allowed_ips.len()), (0, 0));
    assert_eq!(peer(5000).allowed_ips.len(), 3000);
}

#[test]
fn a_veth_takes_frames_while_its_other_end_has_gro() {
    if !can_run("a_veth_takes_frames_while_its_other_end_has_gro") {
        return;
    }
    let site = Site::new();
    site.sh("ip link add near type veth peer name far");
    site.sh("ip link set near up");
    site.sh("ip link set far up");
    let takes = |site: &Site| {
        site.run(|| async {
            let handle = Handle::open().unwrap();
            let near = handle.link("near").await.unwrap().unwrap().index;
            let Some(outlets) = handle.frame_outlets(&[near]).await.unwrap() else {
                println!(
                    "SKIPPED: a_veth_takes_frames_while_its_other_end_has_gro: the kernel is older than 6.3"
                );
                return None;
            };
            Some(outlets.contains(&near))
        })
    };
    if takes(&site).is_none() {
        return;
    }
    assert_eq!(takes(&site), Some(false));
    site.sh("ethtool -K far gro on");
    assert_eq!(takes(&site), Some(true));
}
