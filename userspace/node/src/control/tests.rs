//! The client against [`Server`]: what it asks, what it tells, and how it takes failures.

use std::convert::Infallible;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::timeout;
use types::NodeId;
use wire::control::{Node, PingRequest, PingResponse, Time, encode_frame};

use super::test_server::{DEADLINE, Seen, Server, respond};
use super::*;

fn accepting() -> RegisterResponse {
    RegisterResponse { machine_authorized: true, ..RegisterResponse::default() }
}

fn registration() -> Registration {
    Registration {
        node_key: NodePublic::from_bytes([9; 32]),
        auth_key: Some(AuthKey("key-1".to_owned())),
        ..Registration::default()
    }
}

fn client(server: ServerUrl) -> (Client, mpsc::Receiver<Event>) {
    let config = Config {
        server,
        machine: MachinePrivate::from_random([1; 32]),
        trust: Trust::system(None).unwrap(),
        mark: None,
    };
    let hostinfo = Hostinfo { hostname: "one".to_owned(), ..Hostinfo::default() };
    Client::start(config, Report { hostinfo, ..Report::default() })
}

fn frame(message: &MapResponse) -> Bytes {
    encode_frame(&serde_json::to_vec(message).unwrap(), true).unwrap().into()
}

fn map_with_node() -> MapResponse {
    let node = Node { id: NodeId(7), name: "one.example.".to_owned(), ..Node::default() };
    MapResponse { node: Some(node), ..MapResponse::default() }
}

/// The next event that `pick` takes.
async fn next<T>(events: &mut mpsc::Receiver<Event>, pick: impl Fn(Event) -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = pick(events.recv().await.expect("the client has ended")) {
                return found;
            }
        }
    };
    timeout(DEADLINE, wait).await.expect("the event did not come")
}

fn failure(event: Event) -> Option<(Failure, bool)> {
    if let Event::Failed { failure, retry } = event { Some((failure, retry)) } else { None }
}

fn map(event: Event) -> Option<Box<MapResponse>> {
    if let Event::Map(map) = event { Some(map) } else { None }
}

fn registered(event: Event) -> Option<()> {
    matches!(event, Event::Registered(_)).then_some(())
}

#[tokio::test]
async fn registers_streams_and_reports_beside_the_stream() {
    let server = Server::new(vec![(StatusCode::OK, accepting())]);
    let frames = server.stream();
    let (client, mut events) = client(server.start().await);
    client.register(registration());
    next(&mut events, registered).await;
    let asked = server.saw(|seen| if let Seen::Register(r) = seen { Some(r.clone()) } else { None }).await;
    assert_eq!(asked.auth.unwrap().auth_key, AuthKey("key-1".to_owned()));

    frames.send(frame(&map_with_node())).unwrap();
    assert_eq!(next(&mut events, map).await.node.unwrap().id, NodeId(7));
    let asked = server.saw(|seen| if let Seen::Stream(r) = seen { Some(r.clone()) } else { None }).await;
    assert!(asked.keep_alive && asked.compress == "zstd" && !asked.omit_peers);

    let endpoint = ("192.0.2.1:41641".parse().unwrap(), EndpointType::STUN);
    client.report(Report { endpoints: vec![endpoint], ..Report::default() });
    server
        .saw(|seen| match seen {
            Seen::Update(r) if r.endpoints == [endpoint.0] && r.omit_peers && !r.stream => Some(()),
            _ => None,
        })
        .await;
    frames.send(frame(&MapResponse { keep_alive: true, ..MapResponse::default() })).unwrap();
    assert!(next(&mut events, map).await.keep_alive);
}

#[tokio::test]
async fn a_broken_stream_is_opened_again_without_registering() {
    let server = Server::new(vec![(StatusCode::OK, accepting())]);
    let (first, second) = (server.stream(), server.stream());
    let (client, mut events) = client(server.start().await);
    client.register(registration());
    first.send(frame(&map_with_node())).unwrap();
    next(&mut events, map).await;
    drop(first);
    let (failure, retry) = next(&mut events, failure).await;
    assert!(matches!(failure, Failure::Lost(_)) && retry, "{failure}");
    second.send(frame(&map_with_node())).unwrap();
    next(&mut events, map).await;
    let registered = server.seen.lock().unwrap().iter().filter(|s| matches!(s, Seen::Register(_))).count();
    assert_eq!(registered, 1);
}

#[tokio::test]
async fn a_forgotten_node_registers_again_without_the_used_key() {
    let server = Server::new(vec![(StatusCode::OK, accepting())]);
    let (client, mut events) = client(server.start().await);
    client.register(registration());
    next(&mut events, registered).await;
    assert!(matches!(next(&mut events, failure).await, (Failure::Unknown(_), true)));
    next(&mut events, registered).await;
    let seen = server.seen.lock().unwrap();
    let keys: Vec<_> = seen
        .iter()
        .filter_map(|s| if let Seen::Register(r) = s { Some(r.auth.is_some()) } else { None })
        .collect();
    assert_eq!(keys[..2], [true, false]);
}

#[tokio::test]
async fn a_refused_key_waits_for_a_person() {
    let refusal = RegisterResponse { error: "auth key expired".to_owned(), ..RegisterResponse::default() };
    for status in [StatusCode::OK, StatusCode::UNAUTHORIZED] {
        let server = Server::new(vec![(status, refusal.clone()), (StatusCode::OK, accepting())]);
        let (client, mut events) = client(server.start().await);
        client.register(registration());
        let (failure, retry) = next(&mut events, failure).await;
        assert!(failure.to_string().contains("auth key expired") && !retry, "{failure}");
        client.register(registration());
        next(&mut events, registered).await;
    }
}

#[tokio::test]
async fn a_login_page_is_followed_up() {
    let page = RegisterResponse { auth_url: "https://control/a/1".to_owned(), ..RegisterResponse::default() };
    let server = Server::new(vec![(StatusCode::OK, page), (StatusCode::OK, accepting())]);
    let (client, mut events) = client(server.start().await);
    client.register(Registration { auth_key: None, ..registration() });
    let url = next(&mut events, |event| if let Event::AuthUrl(url) = event { Some(url) } else { None }).await;
    assert_eq!(url, "https://control/a/1");
    next(&mut events, registered).await;
    server
        .saw(|seen| match seen {
            Seen::Register(r) if r.followup == url => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn an_expired_key_is_told_and_a_logout_done() {
    let expired = RegisterResponse { node_key_expired: true, ..RegisterResponse::default() };
    let server = Server::new(vec![(StatusCode::OK, expired), (StatusCode::OK, accepting())]);
    let (client, mut events) = client(server.start().await);
    client.register(registration());
    next(&mut events, |event| matches!(event, Event::KeyExpired).then_some(())).await;
    client.logout(registration().node_key);
    next(&mut events, |event| matches!(event, Event::LoggedOut).then_some(())).await;
    let past: Time = "1970-01-01T00:02:03Z".parse::<jiff::Timestamp>().unwrap().into();
    server
        .saw(|seen| match seen {
            Seen::Register(r) if r.expiry == past => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn the_servers_questions_are_answered_once() {
    let server = Server::new(vec![(StatusCode::OK, accepting())]);
    let frames = server.stream();
    let (client, mut events) = client(server.start().await);
    client.register(registration());
    let payload = b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi".to_vec().into();
    let c2n = PingRequest {
        url: "https://unused/machine/c2n/1".to_owned(),
        types: "c2n".to_owned(),
        payload,
        ..PingRequest::default()
    };
    let head =
        PingRequest { url: "https://unused/pong".to_owned(), url_is_noise: true, ..PingRequest::default() };
    for question in [c2n.clone(), c2n, head] {
        frames.send(frame(&MapResponse { ping_request: Some(question), ..map_with_node() })).unwrap();
        next(&mut events, map).await;
    }
    server
        .saw(|seen| if let Seen::Other(path, _) = seen { (path == "/pong").then_some(()) } else { None })
        .await;
    let body = server
        .saw(|seen| match seen {
            Seen::Other(path, body) if path == "/machine/c2n/1" => Some(body.clone()),
            _ => None,
        })
        .await;
    assert!(body.ends_with(b"\r\n\r\nhi"));
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|s| matches!(s, Seen::Other(path, _) if path != "/pong")).count(), 1);
}

#[tokio::test]
async fn a_ping_of_a_peer_is_made_and_its_result_posted() {
    let server = Server::new(vec![(StatusCode::OK, accepting())]);
    let frames = server.stream();
    let (client, mut events) = client(server.start().await);
    client.register(registration());
    let question = PingRequest {
        url: "https://unused/machine/ping/7".to_owned(),
        url_is_noise: true,
        types: "disco,unheard-of,TSMP".to_owned(),
        ip: IpAddr::from([100, 64, 0, 9]).into(),
        ..PingRequest::default()
    };
    frames.send(frame(&MapResponse { ping_request: Some(question), ..map_with_node() })).unwrap();
    for expected in [PingType::Disco, PingType::Tsmp] {
        let (ip, kind, reply) = next(&mut events, |event| match event {
            Event::Ping { ip, kind, reply } => Some((ip, kind, reply)),
            _ => None,
        })
        .await;
        assert_eq!((ip.to_string().as_str(), kind), ("100.64.0.9", expected));
        let endpoint = format!("192.0.2.1:{}", if kind == PingType::Disco { 1 } else { 2 });
        reply.send(PingResult { latency_seconds: 0.25, endpoint, ..PingResult::default() }).unwrap();
    }
    for (kind, endpoint) in [("disco", "192.0.2.1:1"), ("TSMP", "192.0.2.1:2")] {
        let body = server
            .saw(|seen| match seen {
                Seen::Other(path, body) if path == "/machine/ping/7" => {
                    let posted: PingResponse = serde_json::from_slice(body).unwrap();
                    (posted.kind == kind).then_some(posted)
                }
                _ => None,
            })
            .await;
        assert_eq!((body.endpoint.as_str(), body.latency_seconds), (endpoint, 0.25));
    }
}

#[tokio::test]
async fn a_busy_server_is_told_with_its_wait() {
    let busy = (StatusCode::TOO_MANY_REQUESTS, RegisterResponse::default());
    let server = Server::new(vec![busy]);
    let (client, mut events) = client(server.start().await);
    client.register(registration());
    let (failure, retry) = next(&mut events, failure).await;
    assert!(matches!(failure, Failure::Busy(_)) && retry, "{failure}");
}

#[tokio::test]
async fn clocks_that_differ_are_told() {
    let server = Server::new(vec![(StatusCode::OK, accepting())]);
    *server.date.lock().unwrap() = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    let (client, mut events) = client(server.start().await);
    client.register(registration());
    let off =
        next(&mut events, |event| if let Event::ClockOff(off) = event { Some(off) } else { None }).await;
    assert!(off < -600, "{off}");
    next(&mut events, registered).await;
}

#[tokio::test]
async fn wrong_servers_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let lost =
                service_fn(async |_| Ok::<_, Infallible>(respond(StatusCode::NOT_FOUND, "a web page")));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), lost),
            );
        }
    });
    for (url, expected) in [
        (format!("http://{addr}"), "is not a control server: a web page"),
        (format!("https://{addr}"), "does not speak TLS on this port"),
        ("http://127.0.0.1:1".to_owned(), "cannot connect to 127.0.0.1 port 1"),
    ] {
        let (client, mut events) = client(url.parse().unwrap());
        client.register(registration());
        let (failure, retry) = next(&mut events, failure).await;
        assert!(failure.to_string().contains(expected) && retry, "{failure}");
    }
}
