//! The client against a server written out frame by frame.

use tokio::io::DuplexStream;

use super::*;

/// A server's end of a stream, its private key and what it has read.
struct Peer {
    stream: DuplexStream,
    key: NodePrivate,
    decoder: Decoder,
}

impl Peer {
    async fn send(&mut self, frame: Frame<'_>) {
        let mut out = Vec::new();
        frame.encode(&mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    /// The next frame, as text.
    async fn read(&mut self) -> String {
        loop {
            if let Some((frame, _)) = self.decoder.next_frame().unwrap() {
                return format!("{frame:?}");
            }
            let count = self.stream.read(self.decoder.space()).await.unwrap();
            assert_ne!(count, 0, "the client hung up");
            self.decoder.filled(count);
        }
    }
}

async fn pair() -> (Sender, Receiver, Peer) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut peer =
        Peer { stream: far, key: NodePrivate::from_random([2; 32]), decoder: Decoder::new(MAX_BODY_CLIENT) };
    peer.send(Frame::ServerKey(peer.key.public())).await;
    let (sender, receiver) = start(near, &NodePrivate::from_random([1; 32]), "test").await.unwrap();
    assert!(peer.read().await.starts_with("ClientInfo"));
    (sender, receiver, peer)
}

#[tokio::test]
async fn frames_become_events_and_calls_become_frames() {
    let (sender, mut receiver, mut server) = pair().await;
    assert_eq!(receiver.server(), server.key.public());
    let client = NodePrivate::from_random([1; 32]).public();
    let info = ServerInfo { version: 2, ..ServerInfo::default() };
    let sealed = info.seal(&SharedBox::node(&server.key, &client), [3; 24]);
    server.send(Frame::ServerInfo { sealed: &sealed }).await;
    assert_eq!(receiver.recv().await.unwrap(), Event::LoggedIn(info));

    server.send(Frame::KeepAlive).await;
    server.send(Frame::RecvPacket { source: client, packet: b"hi" }).await;
    assert_eq!(receiver.recv().await.unwrap(), Event::Packet { source: client, packet: b"hi".to_vec() });
    server.send(Frame::Health("".into())).await;
    assert_eq!(receiver.recv().await.unwrap(), Event::Health(None));

    sender.send(client, b"yo").unwrap();
    assert_eq!(server.read().await, format!("SendPacket {{ destination: {client:?}, packet: [121, 111] }}"));
    sender.note_preferred(true).unwrap();
    assert_eq!(server.read().await, "NotePreferred(true)");
}

#[tokio::test]
async fn pings_are_answered_without_the_caller() {
    let (_sender, mut receiver, mut server) = pair().await;
    server.send(Frame::Ping([7; 8])).await;
    server.send(Frame::Pong([8; 8])).await;
    assert_eq!(receiver.recv().await.unwrap(), Event::Pong([8; 8]));
    assert_eq!(server.read().await, "Pong([7, 7, 7, 7, 7, 7, 7, 7])");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_gone() {
    let (_sender, mut receiver, _server) = pair().await;
    let before = Instant::now();
    assert!(matches!(receiver.recv().await, Err(DerpError::Timeout(_))));
    assert_eq!(before.elapsed().as_secs(), SILENCE.as_secs());
}

#[tokio::test]
async fn the_end_is_seen_by_both_halves() {
    let (sender, mut receiver, server) = pair().await;
    drop(server);
    assert!(matches!(receiver.recv().await, Err(DerpError::Closed | DerpError::Io(_))));
    drop(receiver);
    // The writing task is gone with the receiver, as soon as it is scheduled.
    sender.queue.closed().await;
    assert_eq!(sender.ping([0; 8]), Err(SendError::Closed));
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let (sender, _receiver, _server) = pair().await;
    // Nothing is awaited, so the writing task does not run.
    let sent = (0..QUEUE + 10).filter(|_| sender.ping([0; 8]).is_ok()).count();
    assert_eq!((sent, sender.dropped()), (QUEUE, 10));
}

#[tokio::test]
async fn what_is_no_derp_server_is_refused() {
    let (near, mut far) = tokio::io::duplex(1000);
    far.write_all(&[1, 0, 0, 0, 40]).await.unwrap();
    far.write_all(&[0; 40]).await.unwrap();
    let ended = start(near, &NodePrivate::from_random([1; 32]), "test").await;
    assert!(matches!(ended.err(), Some(DerpError::Wire(Error::Magic))));
}
