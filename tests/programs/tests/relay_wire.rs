//! The relay on real devices: a -- relay -- b, with real sockets at both ends and nobody at the relay. Needs root.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use dataplane::{Program, Programs, Reason, RelayLeg, StunService};
use programs::namespace::{Namespace, wait_for};
use programs::packets::geneve;
use programs::{Loaded, counts, skipped};

const DEVICE: &str = "wire0";
const PORT: u16 = 40_000;
const RELAY_A: [&str; 2] = ["198.51.100.1", "2001:db8:a::1"];
const RELAY_B: [&str; 2] = ["203.0.113.1", "2001:db8:b::1"];

struct Wire {
    a: Namespace,
    relay: Namespace,
    b: Namespace,
}

impl Wire {
    /// Ends whose packets are summed up before they leave, as real cards do.
    fn new() -> Self {
        let wire = Self { a: Namespace::new(), relay: Namespace::new(), b: Namespace::new() };
        wire.a.join("a0", &wire.relay, "ra");
        wire.b.join("b0", &wire.relay, "rb");
        for (namespace, device, v4, v6) in [
            (&wire.a, "a0", "198.51.100.10/24", "2001:db8:a::10/64"),
            (&wire.relay, "ra", "198.51.100.1/24", "2001:db8:a::1/64"),
            (&wire.relay, "rb", "203.0.113.1/24", "2001:db8:b::1/64"),
            (&wire.b, "b0", "203.0.113.20/24", "2001:db8:b::20/64"),
        ] {
            namespace.ip(&format!("addr add {v4} dev {device}"));
            namespace.ip(&format!("addr add {v6} dev {device} nodad"));
            ethtool(namespace, &format!("-K {device} tx off"));
        }
        wire
    }

    /// Has the ends take frames.
    fn take_frames(&self) {
        ethtool(&self.a, "-K a0 gro on");
        ethtool(&self.b, "-K b0 gro on");
    }
}

fn ethtool(namespace: &Namespace, arguments: &str) {
    let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    let done = namespace.run(move || Command::new("ethtool").args(&arguments).status());
    assert!(done.expect("ethtool runs").success());
}

/// A client's socket in a namespace.
fn client(namespace: &Namespace, at: &str) -> UdpSocket {
    let at: SocketAddr = at.parse().expect("an address");
    let socket = namespace.run(move || UdpSocket::bind(at).expect("a free port"));
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    socket
}

fn leg(socket: &UdpSocket, local: &str) -> RelayLeg {
    RelayLeg { remote: socket.local_addr().expect("bound"), local: local.parse().expect("an address") }
}

/// One packet from one client to the other, by the relay.
fn exchange(vni: u32, from: (&UdpSocket, RelayLeg), to: (&UdpSocket, RelayLeg)) {
    let payload = geneve(0x7a12, vni, &[7; 64]);
    from.0.send_to(&payload, (from.1.local, PORT)).expect("sent");
    let mut bytes = [0; 256];
    let (length, source) = to.0.recv_from(&mut bytes).expect("the relay sends it on");
    assert_eq!((&bytes[..length], source), (&payload[..], SocketAddr::new(to.1.local, PORT)));
}

/// Which of the relay's devices the kernel says take frames.
fn outlets(relay: &Namespace, devices: [u32; 2]) -> BTreeSet<u32> {
    relay.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let handle = netlink::Handle::open().expect("netlink opens");
            handle.frame_outlets(&devices).await.expect("listed").expect("this kernel says it")
        })
    })
}

#[test]
fn bound_sessions_go_on_without_anybody_and_are_adopted() {
    if skipped("bound_sessions_go_on_without_anybody_and_are_adopted") {
        return;
    }
    let wire = Wire::new();
    let (ra, rb) = (wire.relay.ifindex("ra"), wire.relay.ifindex("rb"));
    let sockets = [
        [client(&wire.a, "198.51.100.10:5001"), client(&wire.b, "203.0.113.20:6001")],
        [client(&wire.a, "[2001:db8:a::10]:5002"), client(&wire.b, "[2001:db8:b::20]:6002")],
        [client(&wire.a, "198.51.100.10:5003"), client(&wire.b, "[2001:db8:b::20]:6003")],
    ];
    let locals = [[RELAY_A[0], RELAY_B[0]], [RELAY_A[1], RELAY_B[1]], [RELAY_A[0], RELAY_B[1]]];
    let legs: Vec<[RelayLeg; 2]> = sockets
        .iter()
        .zip(locals)
        .map(|(sockets, locals)| [leg(&sockets[0], locals[0]), leg(&sockets[1], locals[1])])
        .collect();

    let sessions = legs.clone();
    wire.relay.run(move || {
        let mut programs = Programs::load_or_adopt(DEVICE).expect("the programs load");
        for device in [ra, rb] {
            assert_eq!(programs.attach_xdp(device).expect("attached"), Ok(()));
        }
        programs.set_relay_port(PORT).expect("the map takes it");
        programs.set_outlets(&BTreeSet::from([ra, rb])).expect("the map takes them");
        for (vni, legs) in (1..).zip(sessions) {
            programs.add_relay_session(vni, legs).expect("there is room");
        }
    });
    assert_eq!(outlets(&wire.relay, [ra, rb]), BTreeSet::new(), "nobody takes frames yet");
    wire.take_frames();
    assert_eq!(outlets(&wire.relay, [ra, rb]), BTreeSet::from([ra, rb]), "both ends take frames");
    // The kernel finds its neighbors for packets of its own; the relay's programs only ask what it found.
    for address in ["198.51.100.10", "203.0.113.20", "2001:db8:a::10", "2001:db8:b::20"] {
        let ping = wire
            .relay
            .run(move || Command::new("ping").args(["-c1", "-w5", address]).output().expect("ping runs"));
        assert!(ping.status.success(), "{ping:?}");
    }

    // The process that loaded the programs holds nothing any more; nobody listens on the port.
    for (vni, (sockets, legs)) in (1..).zip(sockets.iter().zip(&legs)) {
        for _ in 0..3 {
            exchange(vni, (&sockets[0], legs[0]), (&sockets[1], legs[1]));
            exchange(vni, (&sockets[1], legs[1]), (&sockets[0], legs[0]));
        }
    }
    // A stranger, and a client with another's VNI, reach nobody.
    let stranger = client(&wire.a, "198.51.100.10:5999");
    stranger.send_to(&geneve(0x7a12, 1, &[7; 64]), (legs[0][0].local, PORT)).expect("sent");
    sockets[0][0].send_to(&geneve(0x7a12, 2, &[7; 64]), (legs[0][0].local, PORT)).expect("sent");
    exchange(1, (&sockets[0][0], legs[0][0]), (&sockets[0][1], legs[0][1]));

    wire.relay.run(move || {
        let adopted = Loaded::new(DEVICE);
        let traffic: Vec<[u64; 2]> = adopted
            .relay_sessions()
            .expect("readable")
            .iter()
            .map(|session| session.traffic.map(|traffic| traffic.packets))
            .collect();
        assert_eq!(traffic, [[4, 3], [3, 3], [3, 3]]);
        assert_eq!(counts(&adopted, Program::Relay)[Reason::Relayed as usize], 19);
    });
}

#[test]
fn stun_is_answered_on_the_wire() {
    if skipped("stun_is_answered_on_the_wire") {
        return;
    }
    let wire = Wire::new();
    wire.take_frames();
    let ra = wire.relay.ifindex("ra");
    let clients = [client(&wire.a, "198.51.100.10:5001"), client(&wire.a, "[2001:db8:a::10]:5001")];
    wire.relay.run(move || {
        let mut programs = Loaded::new(DEVICE);
        assert_eq!(programs.attach_xdp(ra).expect("attached"), Ok(()));
        let own: [IpAddr; 2] = RELAY_A.map(|ip| ip.parse().expect("an address"));
        programs.set_veths(BTreeSet::from([ra]));
        programs.set_own_addresses(&own.map(|ip| (ra, ip)).into()).expect("the map takes them");
        programs.set_stun(&StunService { port: 3478, ..StunService::default() }).expect("the map takes it");
        for (client, us) in clients.iter().zip(own) {
            let id = wire::stun::TxId([9; 12]);
            client.send_to(&wire::stun::encode_request(id), (us, 3478)).expect("sent");
            let mut answer = [0; 256];
            let (length, source) = client.recv_from(&mut answer).expect("nobody but the program can answer");
            assert_eq!(source, SocketAddr::new(us, 3478));
            assert_eq!(
                wire::stun::decode_response(&answer[..length]),
                Ok((id, client.local_addr().expect("bound")))
            );
        }
        wait_for("both are counted", || counts(&programs, Program::Stun)[Reason::StunAnswered as usize] == 2);
    });
}
