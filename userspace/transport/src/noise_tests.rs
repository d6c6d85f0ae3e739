//! Both roles against each other over an in-memory pipe.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;
use types::ChallengePublic;

use super::*;

const VERSION: CapabilityVersion = CapabilityVersion(130);

fn early() -> EarlyNoise {
    EarlyNoise { node_key_challenge: ChallengePublic::from_bytes([7; 32]) }
}

/// A client and a server that have shaken hands, over a pipe that holds `capacity` bytes.
async fn pair(
    capacity: usize,
    early: Option<EarlyNoise>,
) -> (NoiseStream<DuplexStream>, NoiseStream<DuplexStream>) {
    let (machine, server) = (MachinePrivate::from_random([1; 32]), MachinePrivate::from_random([2; 32]));
    let (near, far) = tokio::io::duplex(capacity);
    let (handshake, initiation) = ClientHandshake::start(&machine, &server.public(), VERSION).unwrap();
    let (client, accepted) = tokio::join!(
        NoiseStream::connect(near, handshake, server.public(), VERSION),
        NoiseStream::accept(far, &initiation, &server, early.as_ref()),
    );
    let (client, accepted) = (client.ok().unwrap(), accepted.ok().unwrap());
    assert_eq!((accepted.peer(), accepted.version()), (machine.public(), VERSION));
    (client, accepted)
}

#[tokio::test]
async fn much_data_through_a_narrow_pipe() {
    let (mut client, mut server) = pair(1000, None).await;
    let data: Vec<u8> = (0..200_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    });
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    writer.await.unwrap();
    assert!(heard == data);
}

#[tokio::test]
async fn early_payload_is_taken_off() {
    let (mut client, mut server) = pair(10_000, Some(early())).await;
    server.write_all(b"not http/2").await.unwrap();
    let mut heard = [0; 10];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"not http/2");
    assert_eq!(client.early(), Some(&early()));
}

#[tokio::test]
async fn http2_with_and_without_an_early_payload() {
    for payload in [None, Some(early())] {
        let (client, server) = pair(5000, payload).await;
        let answer = service_fn(async |request: http::Request<hyper::body::Incoming>| {
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(http::Response::new(Full::new(body)))
        });
        let serving = tokio::spawn(async move {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(server), answer)
                .await
        });
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
        let connection = tokio::spawn(connection);
        let body = Bytes::from(vec![b'x'; 100_000]);
        let request =
            http::Request::post("https://control/machine/map").body(Full::new(body.clone())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert!(response.into_body().collect().await.unwrap().to_bytes() == body);
        drop(sender);
        connection.await.unwrap().unwrap();
        serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_bad_initiation_is_answered() {
    let (machine, server) = (MachinePrivate::from_random([1; 32]), MachinePrivate::from_random([2; 32]));
    let (near, far) = tokio::io::duplex(1000);
    let (handshake, mut initiation) = ClientHandshake::start(&machine, &server.public(), VERSION).unwrap();
    initiation[50] ^= 1;
    let (client, accepted) = tokio::join!(
        NoiseStream::connect(near, handshake, server.public(), VERSION),
        NoiseStream::accept(far, &initiation, &server, None),
    );
    assert!(matches!(accepted.err(), Some(NoiseError::Handshake(HandshakeError::Decrypt))));
    assert!(matches!(client.err(), Some(NoiseError::Handshake(HandshakeError::Refused(_)))));
}

#[tokio::test]
async fn a_stream_cut_inside_a_record_is_an_error() {
    let (client, mut server) = pair(1000, None).await;
    let NoiseStream { inner: mut raw, .. } = client;
    raw.write_all(&[4, 0, 100, 1, 2, 3]).await.unwrap();
    drop(raw);
    let error = server.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
