//! Detours on real devices: sockets as WireGuard, the relay and a peer hold them, over veth pairs. Root.
//!
//! ```text
//!   relay or peer 192.0.2.2 ---- veth ---- 192.0.2.1 node: steer and egress, perhaps XDP; wrap on a pair of its own
//! ```

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use dataplane::{Device, Error, Program, Programs, Reason, Relayed, Rewritten, Steer, Steering};
use nix::sys::socket::{setsockopt, sockopt};
use programs::cases::{PORT, address};
use programs::namespace::{Namespace, wait_for};
use programs::packets::{disco, geneve, wireguard};
use programs::{counts, skipped};

const DEVICE: &str = "test2";
const CONTROLLER: u16 = 5000;
const MARK: u32 = 0x80000;
const MASK: u32 = 0xff_0000;
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OTHER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const WIREGUARD: u16 = 0x7a12;
const VNI: u32 = 0x0012_3456;

/// The node with everything attached, and the machine it speaks to.
struct Site {
    node: Namespace,
    other: Namespace,
}

impl Site {
    fn new(steer: Steer) -> Self {
        let (node, other) = (Namespace::new(), Namespace::new());
        node.join("under0", &other, "other0");
        for (namespace, device, addresses) in [(&node, "under0", NODE), (&other, "other0", OTHER)] {
            namespace.ip(&format!("address add {}/24 dev {device}", addresses[0]));
            namespace.ip(&format!("address add {}/64 dev {device} nodad", addresses[1]));
        }
        let site = Self { node, other };
        site.programs(move |programs| {
            programs.set_ports(PORT, CONTROLLER)?;
            programs.set_bypass(MARK, MASK)?;
            programs.set_probe_ports(&(40_000..40_100))
        });
        site.steer(steer);
        site
    }

    fn programs(&self, work: impl FnOnce(&mut Programs) -> Result<(), Error> + Send + 'static) {
        self.node.run(move || {
            work(&mut Programs::load_or_adopt(DEVICE).expect("the programs load"))
                .expect("the kernel agrees");
        });
    }

    /// As the node does after each change.
    fn steer(&self, steer: Steer) {
        let ifindex = self.node.ifindex("under0");
        self.programs(move |programs| {
            let device = Device { name: "under0".into(), uplink: true, ..Device::default() };
            for (_, steering) in programs.steer(steer, &[(ifindex, device)].into()) {
                assert_eq!(steering? == Steering::Xdp, steer == Steer::Xdp);
            }
            Ok(())
        });
    }

    /// Peers behind the relay at `OTHER`, port 7777, one a family.
    fn relay(&self) {
        self.node.run(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut programs = Programs::load_or_adopt(DEVICE).expect("adopted");
                let handle = netlink::Handle::open().expect("netlink opens");
                dataplane::ensure_wrap(&handle, &mut programs, DEVICE).await.expect("the pair is made");
                dataplane::ensure_wrap(&handle, &mut programs, DEVICE).await.expect("it is there");
                programs.set_relayed(&RELAYED.map(relayed)).expect("the tables take them");
            });
        });
    }

    /// WireGuard's socket of the node.
    fn wireguard(&self, family: usize) -> UdpSocket {
        self.node.run(move || {
            let socket = bound(NODE[family], PORT);
            setsockopt(&socket, sockopt::Mark, &MARK).expect("root may mark");
            socket
        })
    }

    fn outside(&self, family: usize, port: u16) -> UdpSocket {
        self.other.run(move || bound(OTHER[family], port))
    }

    fn counted(&self, program: Program, reason: Reason) -> u64 {
        self.node
            .run(move || counts(&Programs::load_or_adopt(DEVICE).expect("adopted"), program)[reason as usize])
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let counted =
                self.node.run(|| Programs::load_or_adopt(DEVICE).map(|programs| programs.counters()));
            println!("counted: {counted:#?}");
        }
        let removed = self.node.run(|| Programs::remove_all(DEVICE));
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

/// The port that stands for the peer, by family.
const RELAYED: [(usize, u16); 2] = [(0, 9), (1, 10)];

fn relayed((family, port): (usize, u16)) -> Relayed {
    Relayed { relay: SocketAddr::new(address(OTHER[family]), 7777), vni: VNI, port }
}

fn bound(address_of: &str, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address(address_of), port)).expect("the port is free");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a valid time");
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 4096];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram comes within five seconds");
    (buffer[..len].to_vec(), from)
}

fn at(address_of: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address(address_of), port)
}

/// The other machine completes its checksums itself, as if a wire were between.
fn complete_checksums(site: &Site) {
    site.other.run(|| netlink::offload::switch_off("other0").expect("a veth can do without"));
}

fn steers() -> [Steer; 2] {
    [Steer::Xdp, Steer::Tc]
}

/// The receiving stacks verify the checksums: what is delivered was right.
#[test]
fn a_relayed_peer_is_an_endpoint_of_wireguard_and_geneve_on_the_wire() {
    if skipped("a_relayed_peer_is_an_endpoint_of_wireguard_and_geneve_on_the_wire") {
        return;
    }
    for steer in steers() {
        let site = Site::new(steer);
        site.relay();
        for (family, port) in RELAYED {
            let (inside, relay) = (site.wireguard(family), site.outside(family, 7777));
            // Odd, even, a handshake, and as long as an underlay of 1500 takes.
            let longest = 1500 - [28, 48][family] - 8;
            for len in [32, 33, 148, longest] {
                let packet = wireguard(4, len);
                inside.send_to(&packet, at(OTHER[family], port)).expect("sent");
                let (wire, from) = receive(&relay);
                assert_eq!((wire, from), (geneve(WIREGUARD, VNI, &packet), at(NODE[family], PORT)), "{len}");
                relay.send_to(&geneve(WIREGUARD, VNI, &packet), from).expect("sent");
                assert_eq!(receive(&inside), (packet, at(OTHER[family], port)), "{steer:?} {len}");
            }
            // What is direct stays as it is.
            let direct = site.outside(family, 5555);
            inside.send_to(&wireguard(4, 64), at(OTHER[family], 5555)).expect("sent");
            assert_eq!(receive(&direct), (wireguard(4, 64), at(NODE[family], PORT)));
        }
        // The other machine leaves checksums to its veth, which leaves them undone.
        assert_eq!(site.counted(Program::Steer, Reason::RelayedUnfinished), 8, "{steer:?}");
        assert_eq!(site.counted(Program::Wrap, Reason::RelayedIn), 8, "{steer:?}");
        assert_eq!(site.counted(Program::Egress, Reason::RelayedOut), 8);
        assert_eq!(site.counted(Program::Wrap, Reason::RelayedOut), 8);
        complete_checksums(&site);
        for (family, port) in RELAYED {
            let (inside, relay) = (site.wireguard(family), site.outside(family, 7777));
            for len in 32..100 {
                let packet = [wireguard(4, len - 1), vec![len as u8]].concat();
                relay.send_to(&geneve(WIREGUARD, VNI, &packet), at(NODE[family], PORT)).expect("sent");
                assert_eq!(receive(&inside), (packet, at(OTHER[family], port)), "{steer:?} {len}");
            }
        }
        let program = if steer == Steer::Xdp { Program::Underlay } else { Program::Steer };
        assert_eq!(site.counted(program, Reason::RelayedIn), 2 * 68, "{steer:?}, in place");
    }
}

/// A relay in userspace, and an embedded WireGuard, send many datagrams as one; on a veth they stay one.
#[test]
fn super_packets_are_cut_before_headers_come_on_or_off() {
    if skipped("super_packets_are_cut_before_headers_come_on_or_off") {
        return;
    }
    for steer in steers() {
        let site = Site::new(steer);
        site.relay();
        for (family, port) in RELAYED {
            let (inside, relay) = (site.wireguard(family), site.outside(family, 7777));
            let packets: Vec<Vec<u8>> =
                (0..5_u8).map(|n| [vec![4, 0, 0, 0], vec![n; 1000]].concat()).collect();
            let wrapped: Vec<Vec<u8>> = packets.iter().map(|packet| geneve(WIREGUARD, VNI, packet)).collect();
            let whole = |socket: &UdpSocket, size: usize, datagrams: &[Vec<u8>], to| {
                let size = i32::try_from(size).expect("small");
                setsockopt(socket, sockopt::UdpGsoSegment, &size).expect("the kernel segments");
                socket.send_to(&datagrams.concat(), to).expect("sent");
            };
            whole(&inside, packets[0].len(), &packets, at(OTHER[family], port));
            let wire: Vec<Vec<u8>> = packets.iter().map(|_| receive(&relay).0).collect();
            assert!(wire == wrapped, "{steer:?} out");
            whole(&relay, wrapped[0].len(), &wrapped, at(NODE[family], PORT));
            for packet in &packets {
                assert!(receive(&inside) == (packet.clone(), at(OTHER[family], port)), "{steer:?} in");
            }
        }
        let unfinished = site.counted(Program::Steer, Reason::RelayedUnfinished);
        // XDP on a veth makes the other end send packet by packet, but not with complete checksums.
        assert_eq!(unfinished, if steer == Steer::Xdp { 10 } else { 2 });
    }
}

#[test]
fn what_is_not_a_known_relayed_peer_is_left_to_the_others() {
    if skipped("what_is_not_a_known_relayed_peer_is_left_to_the_others") {
        return;
    }
    for steer in steers() {
        let site = Site::new(steer);
        site.relay();
        complete_checksums(&site);
        let (inside, relay, stranger) = (site.wireguard(0), site.outside(0, 7777), site.outside(0, 7778));
        let data = wireguard(4, 64);
        let control = [&[0, 0x80][..], &geneve(WIREGUARD, VNI, &data)[2..]].concat();
        for (socket, packet) in [
            (&relay, geneve(WIREGUARD, VNI + 1, &data)),
            (&stranger, geneve(WIREGUARD, VNI, &data)),
            (&relay, control),
        ] {
            socket.send_to(&packet, at(NODE[0], PORT)).expect("sent");
        }
        relay.send_to(&geneve(WIREGUARD, VNI, &data), at(NODE[0], PORT)).expect("sent");
        // All four arrive somewhere on the node; only the last as a relayed peer's.
        wait_for("a relayed peer's packet", || receive(&inside) == (data.clone(), at(OTHER[0], 9)));
        let program = if steer == Steer::Xdp { Program::Underlay } else { Program::Steer };
        assert_eq!(site.counted(program, Reason::RelayedIn), 1);
    }
}

#[test]
fn the_tables_say_who_is_relayed_and_a_peer_that_is_no_longer_is_gone() {
    if skipped("the_tables_say_who_is_relayed_and_a_peer_that_is_no_longer_is_gone") {
        return;
    }
    let site = Site::new(Steer::Tc);
    site.relay();
    site.programs(|programs| {
        // A restarted controller finds them.
        assert_eq!(programs.relayed()?, RELAYED.map(relayed).into());
        programs.set_relayed(&[relayed(RELAYED[0])])?;
        assert_eq!(programs.relayed()?, [relayed(RELAYED[0])].into());
        let attached = |programs: &Programs| {
            programs.attachments().map(|all| all.iter().any(|one| one.program == Program::Egress))
        };
        assert!(attached(programs)?);
        programs.set_relayed(&[])
    });
    site.programs(|programs| {
        let attached = programs.attachments()?;
        assert!(
            attached.iter().all(|one| one.program != Program::Egress),
            "nothing is on the way out any more"
        );
        Ok(())
    });
    let (inside, relay) = (site.wireguard(0), site.outside(0, 7777));
    relay.send_to(&geneve(WIREGUARD, VNI, &wireguard(4, 64)), at(NODE[0], PORT)).expect("sent");
    assert_eq!(receive(&inside).1, at(OTHER[0], 7777), "as it came");
}

#[test]
fn a_packet_that_is_too_long_with_the_header_is_dropped_and_counted() {
    if skipped("a_packet_that_is_too_long_with_the_header_is_dropped_and_counted") {
        return;
    }
    let site = Site::new(Steer::Tc);
    site.relay();
    let inside = site.wireguard(0);
    inside.send_to(&wireguard(4, 1500 - 28 - 7), at(OTHER[0], 9)).expect("sent");
    wait_for("the packet to be counted", || site.counted(Program::Wrap, Reason::RelayedTooBig) == 1);
}

#[test]
fn a_peer_can_be_spoken_to_from_another_port_and_wireguard_does_not_notice() {
    if skipped("a_peer_can_be_spoken_to_from_another_port_and_wireguard_does_not_notice") {
        return;
    }
    for steer in steers() {
        let site = Site::new(steer);
        site.programs(|programs| {
            let peers = [0, 1].map(|family| Rewritten { remote: at(OTHER[family], 6000), source: 40_042 });
            programs.set_rewritten(&peers)
        });
        site.steer(steer);
        for family in [0, 1] {
            let (inside, peer) = (site.wireguard(family), site.outside(family, 6000));
            for len in [32, 33, 1400] {
                inside.send_to(&wireguard(4, len), at(OTHER[family], 6000)).expect("sent");
                assert_eq!(receive(&peer), (wireguard(4, len), at(NODE[family], 40_042)), "{steer:?}");
                peer.send_to(&wireguard(4, len), at(NODE[family], 40_042)).expect("sent");
                assert_eq!(receive(&inside), (wireguard(4, len), at(OTHER[family], 6000)), "{steer:?}");
            }
            let controller = site.node.run(move || bound(NODE[family], CONTROLLER));
            peer.send_to(&disco(100), at(NODE[family], 40_099)).expect("sent");
            assert_eq!(receive(&controller), (disco(100), at(OTHER[family], 6000)), "to any of the ports");
        }
        let program = if steer == Steer::Xdp { Program::Underlay } else { Program::Steer };
        assert_eq!(site.counted(program, Reason::PortIn), 6);
        assert_eq!(site.counted(Program::Egress, Reason::PortOut), 6);
    }
}

/// Kernel WireGuards in two namespaces, and a relay between them that only knows VNIs. They change to the direct path and back
/// under way.
#[test]
fn kernel_wireguards_speak_through_a_relay() {
    let test = "kernel_wireguards_speak_through_a_relay";
    if skipped(test) {
        return;
    }
    if !Namespace::new().try_ip("link add probe type wireguard") {
        println!("SKIPPED: {test}: this kernel has no WireGuard");
        return;
    }
    for steer in steers() {
        let pair = Pair::new(steer);
        pair.nodes[0].ping(true);
        let through = |pair: &Pair| pair.nodes[0].sent();
        assert!(through(&pair) >= 5, "through the relay");
        for (node, port) in [(0, 2), (1, 1)] {
            pair.nodes[node].endpoint(&format!("192.0.2.{port}:{PORT}"));
        }
        pair.nodes[0].ping(false);
        let before = through(&pair);
        pair.nodes[0].ping(false);
        assert_eq!(through(&pair), before, "direct");
        for node in &pair.nodes {
            node.endpoint("192.0.2.9:9");
        }
        pair.nodes[0].ping(false);
        assert!(through(&pair) > before, "through the relay again");
        // What came back was shown as the endpoint that was sent to.
        assert_eq!(pair.nodes[0].run("wg show wg0 endpoints").split_whitespace().last(), Some("192.0.2.9:9"));
    }
}

/// Two nodes and a relay on one wire: 192.0.2.1, .2 and .9; inside 10.0.0.1 and .2.
struct Pair {
    nodes: [Inside; 2],
    _switch: Namespace,
    _relay: Namespace,
}

/// A node with a kernel WireGuard.
struct Inside(Namespace);

impl Pair {
    fn new(steer: Steer) -> Self {
        let (switch, relay) = (Namespace::new(), Namespace::new());
        let nodes = [Inside(Namespace::new()), Inside(Namespace::new())];
        switch.ip("link add switch type bridge");
        switch.ip("link set switch up");
        for (namespace, port, host) in [(&nodes[0].0, "p1", 1), (&nodes[1].0, "p2", 2), (&relay, "p9", 9)] {
            switch.join(port, namespace, "under0");
            switch.ip(&format!("link set {port} master switch"));
            namespace.ip(&format!("address add 192.0.2.{host}/24 dev under0"));
        }
        forward(&relay);
        let keys = nodes.each_ref().map(Inside::set_up);
        for (n, node) in nodes.iter().enumerate() {
            node.0.ip(&format!("address add 10.0.0.{}/24 dev wg0", n + 1));
            let peer = keys[1 - n].clone();
            node.run(&format!("wg set wg0 peer {peer} allowed-ips 10.0.0.{}/32 endpoint 192.0.2.9:9", 2 - n));
            node.attach(steer);
            node.0.ip("link set wg0 up");
        }
        Self { nodes, _switch: switch, _relay: relay }
    }
}

/// A relay: what one end sends goes to the other, whole.
fn forward(relay: &Namespace) {
    let socket = relay.run(|| UdpSocket::bind(("192.0.2.9", 7777)).expect("the port is free"));
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let other = if from.ip() == address("192.0.2.1") { "192.0.2.2" } else { "192.0.2.1" };
            // Shorter than its header, or another session's: not for us.
            if buffer[4..7] == VNI.to_be_bytes()[1..] && len > 8 {
                let _ = socket.send_to(&buffer[..len], at(other, PORT));
            }
        }
    });
}

impl Inside {
    /// Runs a command; what it printed.
    fn run(&self, command: &str) -> String {
        let command = command.to_owned();
        self.0.run(move || {
            let output = std::process::Command::new("sh").args(["-c", &command]).output().expect("sh runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
            text
        })
    }

    /// Makes the device; its public key.
    fn set_up(&self) -> String {
        self.0.ip("link add wg0 type wireguard");
        self.run(&format!(
            "wg genkey | wg set wg0 private-key /proc/self/fd/0 listen-port {PORT} fwmark {MARK}"
        ));
        self.run("wg show wg0 public-key").trim().to_owned()
    }

    fn attach(&self, steer: Steer) {
        let ifindex = self.0.ifindex("under0");
        self.0.run(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut programs = Programs::load_or_adopt(DEVICE).expect("the programs load");
                programs.set_ports(PORT, CONTROLLER).expect("the map takes them");
                programs.set_bypass(MARK, MASK).expect("the map takes it");
                let device = Device { name: "under0".into(), uplink: true, ..Device::default() };
                for (_, steering) in programs.steer(steer, &[(ifindex, device)].into()) {
                    steering.expect("steered");
                }
                let handle = netlink::Handle::open().expect("netlink opens");
                dataplane::ensure_wrap(&handle, &mut programs, DEVICE).await.expect("the pair is made");
                let relay = at("192.0.2.9", 7777);
                programs.set_relayed(&[Relayed { relay, vni: VNI, port: 9 }]).expect("the tables take it");
            });
        });
    }

    fn endpoint(&self, endpoint: &str) {
        self.run(&format!("wg set wg0 peer $(wg show wg0 peers) endpoint {endpoint}"));
    }

    /// Five pings to the other end, short and long, all answered; the first may wait for a handshake.
    fn ping(&self, first: bool) {
        let other =
            if self.run("ip -o -4 address show wg0").contains("10.0.0.1/") { "10.0.0.2" } else { "10.0.0.1" };
        if first {
            self.run(&format!("ping -c 1 -w 10 {other}"));
        }
        self.run(&format!("ping -c 3 -i 0.2 -W 2 {other} && ping -c 2 -i 0.2 -W 2 -s 1300 {other}"));
    }

    /// Packets that got the relay's header.
    fn sent(&self) -> u64 {
        self.0.run(|| {
            counts(&Programs::load_or_adopt(DEVICE).expect("adopted"), Program::Wrap)
                [Reason::RelayedOut as usize]
        })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let removed = self.0.run(|| Programs::remove_all(DEVICE));
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}
