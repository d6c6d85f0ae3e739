//! Steering on a real device: a veth between two namespaces, sockets as WireGuard and the controller hold them. Root.
//!
//! ```text
//!   peer 192.0.2.2 ---- veth ---- 192.0.2.1 node: steer, a socket on 41641 (WireGuard's), one on 5000 (the controller's)
//! ```

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use dataplane::{Mechanism, NoXdp, Origin, Program, Programs, Reason};
use programs::cases::{PORT, address};
use programs::namespace::{Namespace, wait_for};
use programs::packets::{disco, stun, wireguard};
use programs::{counts, skipped};

const DEVICE: &str = "test1";
const CONTROLLER: u16 = 5000;
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const PEER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// The node with its programs attached, and a peer.
struct Site {
    node: Namespace,
    peer: Namespace,
}

impl Site {
    fn new() -> Self {
        let (node, peer) = (Namespace::new(), Namespace::new());
        node.join("under0", &peer, "peer0");
        for (namespace, device, addresses) in [(&node, "under0", NODE), (&peer, "peer0", PEER)] {
            namespace.ip(&format!("address add {}/24 dev {device}", addresses[0]));
            namespace.ip(&format!("address add {}/64 dev {device} nodad", addresses[1]));
        }
        let ifindex = node.ifindex("under0");
        node.run(move || {
            let mut programs = Programs::load_or_adopt(DEVICE).expect("the programs load");
            programs.set_ports(PORT, CONTROLLER).expect("the map takes them");
            programs.attach_underlay(ifindex).expect("steer attaches");
        });
        Self { node, peer }
    }

    /// A socket of the node on `port`, in the family of `address`.
    fn bind(&self, wildcard: &'static str, port: u16) -> UdpSocket {
        self.node.run(move || {
            let socket = UdpSocket::bind((address(wildcard), port)).expect("the port is free");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a valid time");
            socket
        })
    }

    /// Sends one datagram from the peer's port 7000 to the node's WireGuard port.
    fn send(&self, family: usize, payload: Vec<u8>) {
        self.peer.run(move || {
            let socket = UdpSocket::bind((address(PEER[family]), 7000)).expect("the port is free");
            socket.send_to(&payload, (address(NODE[family]), PORT)).expect("sent");
        });
    }

    /// The folder of the node's pins.
    fn pins(&self) -> PathBuf {
        self.node.run(|| programs::pins(DEVICE))
    }

    fn counted(&self, reason: Reason) -> u64 {
        self.node.run(move || {
            let programs = Programs::load_or_adopt(DEVICE).expect("adopted");
            counts(&programs, Program::Steer)[reason as usize]
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let removed = self.node.run(|| Programs::remove_all(DEVICE));
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

const WILDCARDS: [&str; 2] = ["0.0.0.0", "::"];

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram comes within five seconds");
    (buffer[..len].to_vec(), from)
}

fn is_empty(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).expect("a socket");
    let result = socket.recv_from(&mut [0; 2048]);
    socket.set_nonblocking(false).expect("a socket");
    result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn disco_and_stun_reach_the_controller_with_their_true_source_and_wireguard_its_own() {
    if skipped("disco_and_stun_reach_the_controller_with_their_true_source_and_wireguard_its_own") {
        return;
    }
    let site = Site::new();
    for family in [0, 1] {
        let wireguard_socket = site.bind(NODE[family], PORT);
        let controller = site.bind(NODE[family], CONTROLLER);
        let from = SocketAddr::new(address(PEER[family]), 7000);
        for payload in [disco(120), stun(0x0101)] {
            site.send(family, payload.clone());
            assert_eq!(receive(&controller), (payload, from));
        }
        for payload in [wireguard(4, 64), wireguard(1, 148), stun(0x0001), b"noise".to_vec()] {
            site.send(family, payload.clone());
            assert_eq!(receive(&wireguard_socket), (payload, from));
        }
        assert!(is_empty(&controller) && is_empty(&wireguard_socket), "each datagram came once");
    }
    assert_eq!((site.counted(Reason::Disco), site.counted(Reason::Stun)), (2, 2));
}

#[test]
fn sockets_bound_to_no_address_are_found_too() {
    if skipped("sockets_bound_to_no_address_are_found_too") {
        return;
    }
    let site = Site::new();
    for family in [0, 1] {
        let controller = site.bind(WILDCARDS[family], CONTROLLER);
        site.send(family, disco(120));
        assert_eq!(receive(&controller).1.ip(), address(PEER[family]));
    }
}

#[test]
fn without_a_controller_disco_passes_and_is_counted() {
    if skipped("without_a_controller_disco_passes_and_is_counted") {
        return;
    }
    let site = Site::new();
    let wireguard_socket = site.bind(WILDCARDS[0], PORT);
    let controller = site.bind(WILDCARDS[0], CONTROLLER);
    drop(controller);
    site.send(0, disco(120));
    assert_eq!(receive(&wireguard_socket).0, disco(120));
    assert_eq!(site.counted(Reason::NoController), 1);
}

/// The worst trap of the trial with a packet socket: a firewall dropped WireGuard while DISCO still answered.
#[test]
fn a_firewall_that_drops_wireguard_drops_disco_as_well() {
    if skipped("a_firewall_that_drops_wireguard_drops_disco_as_well") {
        return;
    }
    let site = Site::new();
    let controller = site.bind(WILDCARDS[0], CONTROLLER);
    // What is dropped by WireGuard's port is counted there; the controller's own port stays open.
    site.node.nft(&format!(
        "add table inet test\n\
         add chain inet test input {{ type filter hook input priority 0; }}\n\
         add rule inet test input udp dport {PORT} counter drop\n\
         add rule inet test input udp dport {CONTROLLER} accept\n"
    ));
    site.send(0, disco(120));
    wait_for("the firewall to see the packet", || site.node.nft_counter() == 1);
    assert_eq!(site.counted(Reason::Disco), 1, "steered before the firewall");
    assert!(is_empty(&controller), "and dropped by it");
    site.node.nft("flush ruleset");
    site.send(0, disco(120));
    assert_eq!(receive(&controller).0, disco(120));
}

/// A NAT of the machine (Docker's, our own masquerade) takes an assigned socket off the first packet of a flow that the peer
/// began, unless the socket is transparent: why the controller's sockets are.
#[test]
fn a_nat_on_the_machine_takes_disco_from_every_socket_but_a_transparent_one() {
    if skipped("a_nat_on_the_machine_takes_disco_from_every_socket_but_a_transparent_one") {
        return;
    }
    let site = Site::new();
    site.node.nft(
        "add table ip test\n\
         add chain ip test input { type nat hook input priority 100; }\n\
         add chain ip test postrouting { type nat hook postrouting priority 100; }\n\
         add rule ip test postrouting oifname other masquerade\n",
    );
    let (wireguard_socket, controller) = (site.bind(WILDCARDS[0], PORT), site.bind(WILDCARDS[0], CONTROLLER));
    site.send(0, disco(120));
    assert_eq!(receive(&wireguard_socket).0, disco(120), "the NAT gave it back to the port's owner");
    assert!(is_empty(&controller));
    socket2::SockRef::from(&controller).set_ip_transparent_v4(true).expect("root may");
    // A flow of its own: the first one is known to conntrack by now.
    site.peer.run(|| {
        let socket = UdpSocket::bind((PEER[0], 7001)).expect("the port is free");
        socket.send_to(&disco(120), (NODE[0], PORT)).expect("sent");
    });
    assert_eq!(receive(&controller).0, disco(120));
    assert_eq!(site.counted(Reason::Disco), 2, "steered both times");
}

/// A gateway forwards DISCO to a host behind it that uses the same port number.
#[test]
fn disco_for_a_machine_behind_us_is_forwarded() {
    if skipped("disco_for_a_machine_behind_us_is_forwarded") {
        return;
    }
    let site = Site::new();
    let controller = site.bind(WILDCARDS[0], CONTROLLER);
    let lan = Namespace::new();
    site.node.join("lan0", &lan, "host0");
    site.node.ip("address add 198.51.100.1/24 dev lan0");
    lan.ip("address add 198.51.100.2/24 dev host0");
    lan.ip("route add default via 198.51.100.1");
    site.peer.ip("route add 198.51.100.0/24 via 192.0.2.1");
    site.node.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("root may forward");
    let host = lan.run(|| {
        let socket = UdpSocket::bind(("198.51.100.2", PORT)).expect("the port is free");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a valid time");
        socket
    });
    site.peer.run(|| {
        let socket = UdpSocket::bind((PEER[0], 7000)).expect("the port is free");
        socket.send_to(&disco(120), ("198.51.100.2", PORT)).expect("sent");
    });
    assert_eq!(receive(&host), (disco(120), SocketAddr::new(address(PEER[0]), 7000)));
    assert_eq!(site.counted(Reason::Transit), 1);
    // With forwarding on, what is for us is still ours.
    site.send(0, disco(120));
    assert_eq!(receive(&controller).0, disco(120));
}

#[test]
fn a_tagged_frame_is_steered_on_its_vlan_device() {
    if skipped("a_tagged_frame_is_steered_on_its_vlan_device") {
        return;
    }
    let site = Site::new();
    for (namespace, device, address) in
        [(&site.node, "under0", "203.0.113.1"), (&site.peer, "peer0", "203.0.113.2")]
    {
        if !namespace.try_ip(&format!("link add link {device} name {device}.7 type vlan id 7")) {
            println!(
                "SKIPPED: a_tagged_frame_is_steered_on_its_vlan_device: this kernel has no VLAN devices"
            );
            return;
        }
        namespace.ip(&format!("address add {address}/24 dev {device}.7"));
        namespace.ip(&format!("link set {device}.7 up"));
    }
    let vlan = site.node.ifindex("under0.7");
    site.node.run(move || {
        let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
        programs.attach_underlay(vlan).expect("steer attaches");
    });
    let controller = site.bind(WILDCARDS[0], CONTROLLER);
    site.peer.run(|| {
        let socket = UdpSocket::bind(("203.0.113.2", 7000)).expect("the port is free");
        socket.send_to(&disco(120), ("203.0.113.1", PORT)).expect("sent");
    });
    assert_eq!(receive(&controller).1, SocketAddr::new(IpAddr::from([203, 0, 113, 2]), 7000));
    assert_eq!(site.counted(Reason::Disco), 1, "once, not on both devices");
}

#[test]
fn a_restart_finds_the_program_attached_and_leaves_it() {
    if skipped("a_restart_finds_the_program_attached_and_leaves_it") {
        return;
    }
    let site = Site::new();
    let ifindex = site.node.ifindex("under0");
    let programs = move || {
        let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
        let before = programs.attachments().expect("readable");
        programs.attach_underlay(ifindex).expect("attached already");
        assert_eq!(programs.attachments().expect("readable"), before);
        before
    };
    let found = site.node.run(programs);
    let kinds: Vec<_> = found.iter().map(|a| (a.ifindex, a.program, a.mechanism)).collect();
    assert_eq!(kinds, [(ifindex, Program::Steer, Mechanism::of_kernel())]);
    let controller = site.bind(WILDCARDS[0], CONTROLLER);
    site.send(0, disco(120));
    assert_eq!(receive(&controller).0, disco(120), "without any process holding the program");
}

/// As if another version's programs were there.
fn forget_version(pins: &std::path::Path) {
    let object = aya::maps::MapData::from_pin(pins.join("map_OBJECT")).expect("pinned");
    let object = aya::maps::Map::from_map_data(object).expect("a map");
    let mut object = aya::maps::Array::<_, abi::Object>::try_from(object).expect("an array");
    object.set(0, abi::Object { hash: [7; 32] }, 0).expect("writable");
}

/// What a start of another version finds: everything as this one left it, but for the object's hash.
#[test]
fn another_version_takes_the_place_of_the_programs_and_keeps_the_filter() {
    if skipped("another_version_takes_the_place_of_the_programs_and_keeps_the_filter") {
        return;
    }
    let site = Site::new();
    let ifindex = site.node.ifindex("under0");
    let pins = site.pins();
    let (before, after) = site.node.run(move || {
        let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
        programs.attach_tunnel(ifindex).expect("attached");
        programs.install(&programs::cases::filter()).expect("the filter fits");
        let state = |programs: &Programs| {
            (programs.generation().expect("readable"), programs.attachments().expect("readable"))
        };
        let before = state(&programs);
        forget_version(&pins);
        let programs = Programs::load_or_adopt(DEVICE).expect("replaced");
        assert_eq!(programs.origin(), Origin::Replaced);
        assert_eq!(Programs::load_or_adopt(DEVICE).expect("adopted").origin(), Origin::Adopted);
        (before, state(&programs))
    });
    assert_eq!(before, after);
    assert_eq!(before.1.len(), 3, "every program is attached");
}

/// Maps of another layout cannot be taken over: they and their programs go once the new ones are attached.
#[test]
fn a_version_with_other_maps_is_removed_when_this_one_is_attached() {
    if skipped("a_version_with_other_maps_is_removed_when_this_one_is_attached") {
        return;
    }
    let site = Site::new();
    let ifindex = site.node.ifindex("under0");
    let pins = site.pins();
    let older = PathBuf::from(pins.to_string_lossy().replace(abi::PIN_VERSION, "v0"));
    site.node.run({
        let older = older.clone();
        move || {
            let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
            programs.attach_tunnel(ifindex).expect("attached");
            std::fs::create_dir_all(older.parent().expect("a folder")).expect("bpffs takes folders");
            std::fs::rename(pins, older).expect("bpffs renames");
            let mut programs = Programs::load_or_adopt(DEVICE).expect("loaded");
            assert_eq!(programs.origin(), Origin::Loaded);
            programs.attach_tunnel(ifindex).expect("attached");
            programs.attach_underlay(ifindex).expect("attached");
            assert_eq!(programs.attachments().expect("readable").len(), 3);
        }
    });
    assert!(!older.exists());
    let controller = site.bind(WILDCARDS[0], CONTROLLER);
    site.node.run(move || {
        let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
        // No filter is loaded, and the device is no tunnel.
        programs.detach(ifindex).expect("detached");
        programs.set_ports(PORT, CONTROLLER).expect("the map takes them");
        programs.attach_underlay(ifindex).expect("attached");
    });
    site.send(0, disco(120));
    assert_eq!(receive(&controller).0, disco(120), "the older filter is gone");
}

#[test]
fn a_detached_device_is_as_it_was() {
    if skipped("a_detached_device_is_as_it_was") {
        return;
    }
    let site = Site::new();
    let (wireguard_socket, _controller) =
        (site.bind(WILDCARDS[0], PORT), site.bind(WILDCARDS[0], CONTROLLER));
    let ifindex = site.node.ifindex("under0");
    site.node.run(move || {
        let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
        programs.detach(ifindex).expect("detached");
        programs.detach(ifindex).expect("detached already");
        assert_eq!(programs.attachments().expect("readable"), []);
    });
    site.send(0, disco(120));
    assert_eq!(receive(&wireguard_socket).0, disco(120));
}

#[test]
fn a_device_that_comes_back_gets_its_program_again_and_nothing_is_left_at_the_end() {
    if skipped("a_device_that_comes_back_gets_its_program_again_and_nothing_is_left_at_the_end") {
        return;
    }
    let site = Site::new();
    // The same index twice: only the kernel can say that the pin of the first device holds nothing any more.
    for _ in 0..2 {
        site.node.ip("link add again0 index 77 type veth peer name again1");
        site.node.run(|| {
            let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
            programs.attach_underlay(77).expect("steer attaches");
            assert!(programs.attachments().expect("readable").iter().any(|a| a.ifindex == 77));
        });
        site.node.ip("link delete again0");
    }
    let pins = site.pins();
    assert!(pins.is_dir());
    drop(site);
    assert!(!pins.exists(), "no pin is left");
}

#[test]
fn the_trace_shows_what_was_dropped_and_why() {
    if skipped("the_trace_shows_what_was_dropped_and_why") {
        return;
    }
    let site = Site::new();
    let _controller = site.bind(WILDCARDS[0], CONTROLLER);
    let ifindex = site.node.ifindex("under0");
    let record = site.node.run(move || {
        let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
        // A tunnel on the veth: no filter is loaded, so everything is dropped.
        programs.attach_tunnel(ifindex).expect("attached");
        // The device says things of its own over IPv6.
        let settings = dataplane::TraceSettings {
            drops_only: true,
            peer_v4: PEER[0].parse().ok(),
            ..Default::default()
        };
        programs.trace(Some(&settings)).expect("switched on");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let packet = programs::packets::udp(7000, PORT, &disco(64));
        let packet = programs::packets::ip(address(PEER[0]), address(NODE[0]), 17, &packet);
        runtime.block_on(async {
            let mut reader = programs.trace_reader().expect("the buffer opens");
            programs
                .test_run(Program::FromTunnel, &programs::packets::ethernet(&packet), 1)
                .expect("it runs");
            tokio::time::timeout(Duration::from_secs(5), reader.next())
                .await
                .expect("in time")
                .expect("readable")
        })
    });
    assert_eq!((record.program, record.reason), (Program::FromTunnel, Reason::NoFilter));
    assert_eq!((record.source.0, record.source.1), (address(PEER[0]), 7000));
    assert_eq!((record.destination.0, record.destination.1), (address(NODE[0]), PORT));
}

#[test]
fn xdp_is_attached_natively_beside_steer_adopted_and_taken_off_again() {
    if skipped("xdp_is_attached_natively_beside_steer_adopted_and_taken_off_again") {
        return;
    }
    let site = Site::new();
    let ifindex = site.node.ifindex("under0");
    let mechanisms = move |programs: &Programs| {
        let found = programs.attachments().expect("readable");
        let of = |program| found.iter().find(|a| a.program == program).map(|a| a.mechanism);
        (of(Program::Underlay), of(Program::Steer))
    };
    let both = (Some(Mechanism::Xdp), Some(Mechanism::of_kernel()));
    site.node.run(move || {
        let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
        assert_eq!(programs.attach_xdp(ifindex).expect("no failure"), Ok(()));
        assert_eq!(mechanisms(&programs), both);
        let mut restarted = Programs::load_or_adopt(DEVICE).expect("adopted");
        assert_eq!(restarted.attach_xdp(ifindex).expect("no failure"), Ok(()), "there already");
        assert_eq!(mechanisms(&restarted), both);
    });
    let controller = site.bind(WILDCARDS[0], CONTROLLER);
    site.send(0, disco(120));
    assert_eq!(receive(&controller).0, disco(120), "through XDP, then steered");
    assert!(site.node.is_native_xdp("under0"));
    site.node.run(move || {
        let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
        programs.detach_xdp(ifindex).expect("detached");
        assert_eq!(mechanisms(&programs), (None, both.1));
    });
    assert!(!site.node.is_native_xdp("under0"));
}

#[test]
fn another_version_takes_the_place_of_xdp_without_a_gap() {
    if skipped("another_version_takes_the_place_of_xdp_without_a_gap") {
        return;
    }
    let site = Site::new();
    let ifindex = site.node.ifindex("under0");
    let pins = site.pins();
    site.node.run(move || {
        let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
        assert_eq!(programs.attach_xdp(ifindex).expect("no failure"), Ok(()));
        forget_version(&pins);
        let replaced = Programs::load_or_adopt(DEVICE).expect("replaced");
        assert_eq!(replaced.origin(), Origin::Replaced);
        assert!(replaced.attachments().expect("readable").iter().any(|a| a.mechanism == Mechanism::Xdp));
    });
    let controller = site.bind(WILDCARDS[0], CONTROLLER);
    site.send(0, disco(120));
    assert_eq!(receive(&controller).0, disco(120));
}

#[test]
fn a_device_without_native_xdp_and_a_foreign_program_are_left_to_tc() {
    if skipped("a_device_without_native_xdp_and_a_foreign_program_are_left_to_tc") {
        return;
    }
    let site = Site::new();
    site.node.ip("link add bridge0 type bridge");
    let attach = |device: &str| {
        let ifindex = site.node.ifindex(device);
        site.node.run(move || {
            let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
            programs.attach_xdp(ifindex).expect("no failure")
        })
    };
    assert_eq!(attach("bridge0"), Err(NoXdp::Driver));
    // Somebody else's: here, that of another node of the same namespace.
    let ifindex = site.node.ifindex("under0");
    site.node.run(move || {
        let mut stranger = Programs::load_or_adopt("stranger").expect("the programs load");
        assert_eq!(stranger.attach_xdp(ifindex).expect("no failure"), Ok(()));
    });
    assert_eq!(attach("under0"), Err(NoXdp::Foreign));
    assert!(site.node.is_native_xdp("under0"), "the stranger's program stays");
    site.node.run(|| Programs::remove_all("stranger").expect("removed"));
    assert_eq!(attach("under0"), Ok(()));
}
