//! Real clients of ours on streams, and the HTTP face byte by byte.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::Stream as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use transport::derp::{self, DerpError, Event, Receiver, Sender, Server};
use transport::dial::Dialer;
use transport::tls::{Expect, Trust};
use types::{MeshKey, NodePrivate, NodePublic};
use wire::derp::{ClientInfo, Frame, GoneReason, HEADER_LEN};
use wire::nacl::SharedBox;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
/// No test changes the machine's devices.
const SOCKET_ALONE: StunOptions = StunOptions { xdp: Xdp::Off, dropping: false };

fn private(n: u8) -> NodePrivate {
    NodePrivate::from_random([n; 32])
}

fn source() -> SocketAddr {
    "192.0.2.1:4242".parse().unwrap()
}

fn open_relay(config: Config) -> Relay {
    Relay::new(config, private(200), |_, _| async { Ok(()) })
}

/// A client on a stream of its own, with so much room before it blocks.
async fn client(relay: &Relay, n: u8, room: usize) -> (Sender, Receiver) {
    let (near, far) = tokio::io::duplex(room);
    let relay = relay.clone();
    tokio::spawn(async move { relay.serve_connection(far, source()).await });
    derp::start(near, &private(n), "test").await.unwrap()
}

async fn logged_in(relay: &Relay, n: u8) -> (Sender, Receiver) {
    let (sender, mut receiver) = client(relay, n, 1 << 20).await;
    assert!(matches!(event(&mut receiver).await, Event::LoggedIn(_)));
    (sender, receiver)
}

async fn event(receiver: &mut Receiver) -> Event {
    timeout(DEADLINE, receiver.recv()).await.expect("an event in time").expect("a connection")
}

async fn ended(receiver: &mut Receiver) -> DerpError {
    timeout(DEADLINE, receiver.recv()).await.expect("an end in time").expect_err("an end")
}

/// Waits for something another task brings about.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"));
}

#[tokio::test]
async fn two_clients_exchange_packets_and_hear_when_the_other_goes() {
    let relay = open_relay(Config::default());
    let (a, mut from_a) = logged_in(&relay, 1).await;
    let (b, mut from_b) = logged_in(&relay, 2).await;
    let (key_a, key_b) = (private(1).public(), private(2).public());
    a.send(key_b, b"ping").unwrap();
    assert_eq!(event(&mut from_b).await, Event::Packet { source: key_a, packet: b"ping".to_vec() });
    b.send(key_a, &[7; 60_000]).unwrap();
    assert_eq!(event(&mut from_a).await, Event::Packet { source: key_b, packet: vec![7; 60_000] });
    a.ping([9; 8]).unwrap();
    assert_eq!(event(&mut from_a).await, Event::Pong([9; 8]));
    drop((a, from_a));
    assert_eq!(event(&mut from_b).await, Event::PeerGone { peer: key_a, reason: GoneReason::Disconnected });
    assert_eq!(relay.counters().connections, 1);
}

/// A server of a region, listening; the address of it.
async fn mesh_server(n: u8) -> (Relay, SocketAddr) {
    let key = MeshKey::from_text(&"ab".repeat(32)).unwrap();
    let nobody = |_, _| async { Err(Denied::NotAllowed) };
    let relay = Relay::with_mesh(Config::default(), private(n), Some(key), nobody);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = relay.clone();
    tokio::spawn(async move {
        while let Ok((stream, source)) = listener.accept().await {
            let relay = serving.clone();
            tokio::spawn(async move { relay.serve_http(stream, source).await });
        }
    });
    (relay, address)
}

/// A client that shows the mesh key, so that nobody is asked about it.
async fn prober(relay: &Relay, n: u8) -> derp::LoggedIn<DuplexStream> {
    let (near, far) = tokio::io::duplex(1 << 20);
    let relay = relay.clone();
    tokio::spawn(async move { relay.serve_connection(far, source()).await });
    let key = MeshKey::from_text(&"ab".repeat(32)).unwrap();
    derp::log_in(near, &private(n), &ClientInfo::mesh("test", key)).await.unwrap()
}

/// The next packet a client gets.
async fn packet(client: &mut derp::LoggedIn<DuplexStream>) -> Vec<u8> {
    let next = async {
        loop {
            while let Some((frame, _)) = client.decoder.next_frame().unwrap() {
                if let Frame::RecvPacket { packet, .. } = frame {
                    return packet.to_vec();
                }
            }
            let count = client.stream.read(client.decoder.space()).await.unwrap();
            client.decoder.filled(count);
        }
    };
    timeout(DEADLINE, next).await.expect("a packet in time")
}

async fn send(client: &mut derp::LoggedIn<DuplexStream>, destination: NodePublic, packet: &[u8]) {
    let mut bytes = Vec::new();
    Frame::SendPacket { destination, packet }.encode(&mut bytes);
    client.stream.write_all(&bytes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_a_region_hand_packets_on_both_ways_and_leave_themselves_out() {
    let (one, two) = (mesh_server(201).await, mesh_server(202).await);
    let trust = Trust::system(None).unwrap();
    for (relay, _) in [&one, &two] {
        for (_, address) in [&one, &two] {
            let (relay, trust) = (relay.clone(), trust.clone());
            let peer: MeshPeer = format!("http://{address}").parse().unwrap();
            tokio::spawn(async move { relay.mesh_with(peer, trust).await });
        }
    }
    for round in 0..50u8 {
        let (mut a, mut b) = (prober(&one.0, 2 * round + 1).await, prober(&two.0, 2 * round + 2).await);
        let (key_a, key_b) = (private(2 * round + 1).public(), private(2 * round + 2).public());
        let known = || one.0.knows_elsewhere(&key_b) && two.0.knows_elsewhere(&key_a);
        until("the servers know each other's clients", known).await;
        for size in [1, 1280, 60_000] {
            send(&mut a, key_b, &vec![7; size]).await;
            assert_eq!(packet(&mut b).await, vec![7; size], "round {round}");
            send(&mut b, key_a, &vec![8; size]).await;
            assert_eq!(packet(&mut a).await, vec![8; size], "round {round}");
        }
    }
}

#[tokio::test]
async fn a_slow_reader_loses_the_oldest_and_stays_connected() {
    let relay = open_relay(Config { queue_bytes: 4 << 10, rate: None });
    let (a, mut from_a) = logged_in(&relay, 1).await;
    let (_b, mut from_b) = client(&relay, 2, 2048).await;
    assert!(matches!(event(&mut from_b).await, Event::LoggedIn(_)));
    for n in 0..100 {
        a.send(private(2).public(), &[n; 1000]).unwrap();
    }
    // The pong comes after everything was taken in.
    a.ping([1; 8]).unwrap();
    assert_eq!(event(&mut from_a).await, Event::Pong([1; 8]));
    let dropped = relay.counters().dropped(DropReason::QueueHead, PacketKind::Data);
    assert!(dropped > 50, "{dropped} dropped");
    let mut seen = 0;
    loop {
        let Event::Packet { packet, .. } = event(&mut from_b).await else { continue };
        seen += 1;
        if packet[0] == 99 {
            break;
        }
    }
    assert_eq!(seen + dropped, 100, "the newest arrive, the others are counted");
}

#[tokio::test]
async fn who_is_not_verified_is_refused_and_so_is_everyone_when_nobody_can_say() {
    let known = private(1).public();
    let relay = Relay::new(Config::default(), private(200), move |key, address: IpAddr| async move {
        assert_eq!(address, source().ip());
        if key == known { Ok(()) } else { Err(Denied::NotAllowed) }
    });
    logged_in(&relay, 1).await;
    let (_, mut refused) = client(&relay, 2, 1 << 20).await;
    assert!(matches!(ended(&mut refused).await, DerpError::Closed | DerpError::Io(_)));
    assert_eq!((relay.refused(), relay.counters().accepts), (1, 1));

    let relay = Relay::new(Config::default(), private(200), |_, _| async {
        Err(Denied::Unavailable("it is down".into()))
    });
    let (_, mut refused) = client(&relay, 1, 1 << 20).await;
    assert!(matches!(ended(&mut refused).await, DerpError::Closed | DerpError::Io(_)));
    assert_eq!((relay.refused(), relay.counters().accepts), (1, 0));
}

#[tokio::test]
async fn a_removed_node_is_disconnected_and_a_restart_is_announced() {
    let relay = open_relay(Config::default());
    let (_a, mut from_a) = logged_in(&relay, 1).await;
    let (_b, mut from_b) = logged_in(&relay, 2).await;
    relay.disconnect(&private(1).public());
    assert!(matches!(ended(&mut from_a).await, DerpError::Closed | DerpError::Io(_)));
    let (reconnect_in, try_for) = (Duration::from_secs(1), Duration::from_secs(5));
    relay.announce_restart(reconnect_in, try_for);
    assert_eq!(event(&mut from_b).await, Event::Restarting { reconnect_in, try_for });
    until("a's connection is forgotten", || relay.counters().connections == 1).await;
}

/// A stream on which the relay speaks HTTP, with `request` written to it.
async fn http(relay: &Relay, request: &str) -> DuplexStream {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let relay = relay.clone();
    tokio::spawn(async move { relay.serve_http(far, source()).await });
    near.write_all(request.replace('\n', "\r\n").as_bytes()).await.unwrap();
    near
}

async fn answer(relay: &Relay, request: &str) -> String {
    let mut stream = http(relay, request).await;
    let mut text = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text.to_ascii_lowercase()
}

#[tokio::test]
async fn probes_and_challenges_are_answered() {
    let relay = open_relay(Config::default());
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\nHost: x\nConnection: close\n{more}\n");
    let probe = answer(&relay, &get("/derp/probe", "")).await;
    assert!(probe.starts_with("http/1.1 200") && probe.contains("access-control-allow-origin: *"), "{probe}");
    let post = "POST /derp/latency-check HTTP/1.1\nHost: x\nConnection: close\nContent-Length: 0\n\n";
    assert!(answer(&relay, post).await.starts_with("http/1.1 405"));
    let portal = answer(&relay, &get("/generate_204", "X-Tailscale-Challenge: ts_1.2-x:3\n")).await;
    assert!(portal.starts_with("http/1.1 204"), "{portal}");
    assert!(portal.contains("x-tailscale-response: response ts_1.2-x:3"), "{portal}");
    let portal = answer(&relay, &get("/generate_204", "X-Tailscale-Challenge: <script>\n")).await;
    assert!(portal.starts_with("http/1.1 204") && !portal.contains("x-tailscale-response"), "{portal}");
    assert!(answer(&relay, &get("/derp", "")).await.starts_with("http/1.1 426"));
    assert!(answer(&relay, &get("/else", "")).await.starts_with("http/1.1 404"));
}

#[tokio::test]
async fn an_upgrade_names_version_and_key_then_derp_begins() {
    let relay = open_relay(Config::default());
    let mut stream =
        http(&relay, "GET /derp HTTP/1.1\nHost: x\nUpgrade: DERP\nConnection: Upgrade\n\n").await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("derp-version: 2"), "{head}");
    let digits = relay.public_key().to_string().replace("nodekey:", "");
    assert!(head.contains(&format!("derp-public-key: {digits}")), "{head}");
    assert_eq!(greeting(&mut stream).await, relay.public_key());
}

/// The server's first frame.
async fn greeting(stream: &mut DuplexStream) -> NodePublic {
    let mut frame = [0; HEADER_LEN + 40];
    timeout(DEADLINE, stream.read_exact(&mut frame)).await.unwrap().unwrap();
    match Frame::decode(frame[0], &frame[HEADER_LEN..]) {
        Ok(Frame::ServerKey(key)) => key,
        other => panic!("no greeting: {other:?}"),
    }
}

#[tokio::test]
async fn with_fast_start_not_a_byte_of_http_comes_back() {
    let relay = open_relay(Config::default());
    let request = "GET /derp HTTP/1.1\nHost: x\nUpgrade: DERP\nConnection: Upgrade\nDerp-Fast-Start: 1\n\n";
    let mut stream = http(&relay, request).await;
    // The client knows the server's key, so it does not wait.
    let shared = SharedBox::node(&private(1), &relay.public_key());
    let sealed = ClientInfo::node("test").seal(&shared, [3; 24]);
    let mut login = Vec::new();
    Frame::ClientInfo { key: private(1).public(), sealed: &sealed }.encode(&mut login);
    stream.write_all(&login).await.unwrap();
    assert_eq!(greeting(&mut stream).await, relay.public_key());
    until("the client is admitted", || relay.counters().accepts == 1).await;
}

#[tokio::test]
async fn derp_works_inside_a_websocket() {
    let relay = open_relay(Config::default());
    let (near, far) = tokio::io::duplex(1 << 20);
    let serving = relay.clone();
    tokio::spawn(async move { serving.serve_http(far, source()).await });
    let mut request = "ws://relay.example/derp".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "derp".parse().unwrap());
    let (mut messages, response) = tokio_tungstenite::client_async(request, near).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "derp");
    let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut messages).poll_next(cx));
    let greeting = timeout(DEADLINE, next).await.unwrap().unwrap().unwrap().into_data();
    assert_eq!(Frame::decode(greeting[0], &greeting[HEADER_LEN..]), Ok(Frame::ServerKey(relay.public_key())));
}

#[tokio::test]
async fn stun_is_answered_with_the_source() {
    let relay = open_relay(Config::default());
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let answering = relay.clone();
    tokio::spawn(async move { answering.run_stun(server, SOCKET_ALONE).await });
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tx_id = wire::stun::TxId([5; 12]);
    client.send_to(b"not STUN", address).await.unwrap();
    client.send_to(&wire::stun::encode_request(tx_id), address).await.unwrap();
    let mut answer = [0; 100];
    let length = timeout(DEADLINE, client.recv(&mut answer)).await.unwrap().unwrap();
    let source = client.local_addr().unwrap();
    assert_eq!(wire::stun::decode_response(&answer[..length]), Ok((tx_id, source)));
    assert_eq!((relay.stun_counters().answered, relay.stun_counters().foreign), (1, 1));
}

/// A web server that gives every request the same answer; its URL.
async fn web_server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/verify?network=1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                request.push(stream.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("POST /verify?network=1 HTTP/1.1\r\n"), "{request}");
            assert!(request.contains(r#"{"NodePublic":"nodekey:"#), "{request}");
            assert!(request.ends_with(r#""Source":"192.0.2.1"}"#), "{request}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn only_a_clear_yes_of_the_verify_url_lets_a_client_in() {
    let verdict = |url: String| async move {
        let verifier = VerifyUrl::new(&url, Trust::system(None).unwrap()).unwrap();
        verifier.verify(private(1).public(), source().ip()).await
    };
    let yes = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"Allow\":true}";
    assert_eq!(verdict(web_server(yes).await).await, Ok(()));
    let no = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"Allow\":false}";
    assert_eq!(verdict(web_server(no).await).await, Err(Denied::NotAllowed));
    for broken in [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 14\r\n\r\n{\"Allow\":true}",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        assert!(verdict(web_server(broken).await).await.is_err(), "{broken}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(verdict(format!("http://{closed}/")).await, Err(Denied::Unavailable(_))));
}

/// The daemon over TLS in a folder of its own, until dropped.
struct Daemon {
    address: SocketAddr,
    pin: [u8; 32],
    _stop: tokio::sync::oneshot::Sender<()>,
    _folder: tempfile::TempDir,
}

impl Daemon {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
        let pem = |name: &str, text: String| -> PathBuf {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let tls = Some((
            pem("cert.pem", certificate.cert.pem()),
            pem("key.pem", certificate.signing_key.serialize_pem()),
        ));
        let Expect::Pin(pin) = Expect::from_cert_name(&transport::tls::pin(certificate.cert.der())).unwrap()
        else {
            panic!("a pin")
        };
        // A free port: taken and given back, for the daemon binds by itself.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let options = daemon::Options {
            listen: address,
            stun: Some(address),
            stun_options: SOCKET_ALONE,
            metrics: None,
            tls,
            state: folder.path().join("state"),
            admit: daemon::Admit::Everyone,
            mesh: None,
            relay: Config::default(),
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(daemon::run(options, async { drop(stopped.await) }));
        Self { address, pin, _stop: stop, _folder: folder }
    }

    fn connect(&self, pin: [u8; 32]) -> impl Future<Output = Result<(Sender, Receiver), DerpError>> {
        let server = Server {
            host: "relay.example".into(),
            dial: vec![self.address.ip().to_string()],
            port: self.address.port(),
            expect: Some(Expect::Pin(pin)),
        };
        async move {
            derp::connect(&server, &Dialer::default(), &Trust::system(None).unwrap(), &private(1), "test")
                .await
        }
    }
}

#[tokio::test]
async fn the_daemon_speaks_tls_and_clients_hold_it_to_its_pin() {
    let daemon = Daemon::start().await;
    let connecting = async {
        loop {
            match daemon.connect(daemon.pin).await {
                Ok(connected) => break connected,
                Err(DerpError::Dial(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    let (sender, mut receiver) = timeout(DEADLINE, connecting).await.expect("the daemon listens");
    assert!(matches!(event(&mut receiver).await, Event::LoggedIn(_)));
    sender.send(private(1).public(), b"to myself").unwrap();
    assert!(matches!(event(&mut receiver).await, Event::Packet { .. }));
    assert!(matches!(daemon.connect([0; 32]).await.err(), Some(DerpError::Tls(_))));
}
