//! A pair of clients: one sends at a rate, the other counts. Both on the generator's core.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use wire::derp::Frame;

use super::client::Client;
use crate::rig::{Bed, Meter, Run, on_generator_core};

/// Packets of one write, as a busy tunnel would hand over.
const BURST: u32 = 16;
/// The server may be this late with the last packets.
const QUIET: Duration = Duration::from_millis(50);

/// Two clients of one server.
pub(super) struct Pair {
    sender: TcpStream,
    burst: Vec<u8>,
    received: Arc<AtomicU64>,
}

/// What to send, and whose time to take.
#[derive(Clone, Copy)]
pub(super) struct Load {
    /// Packets a second; without one, as many as the server takes.
    pub(super) rate: Option<f64>,
    pub(super) span: Duration,
    pub(super) process: Pid,
}

impl Pair {
    /// Connects both clients and waits until the first packet has come through.
    pub(super) fn connect(bed: &Bed, port: u16, size: usize) -> anyhow::Result<Self> {
        let mut sender = bed.a.enter(|| Client::connect(Bed::towards_a(port), 1))??;
        let receiver = bed.b.enter(|| Client::connect(Bed::towards_b(port), 2))??;
        let mut packet = Vec::new();
        Frame::SendPacket { destination: receiver.key, packet: &vec![0; size] }.encode(&mut packet);
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        // Both threads end when the server closes the connections.
        std::thread::spawn(move || on_generator_core().and_then(|()| counted(receiver, &count)));
        let drained = sender.stream.try_clone()?;
        std::thread::spawn(move || drain(drained));
        lab::until("the first packet comes through", Duration::from_secs(5), || {
            sender.stream.write_all(&packet).ok()?;
            (received.load(Ordering::Relaxed) > 0).then_some(())
        })?;
        Ok(Self { sender: sender.stream, burst: packet.repeat(BURST as usize), received })
    }

    pub(super) fn load(&mut self, load: Load) -> anyhow::Result<Run> {
        self.settled();
        let before = self.received.load(Ordering::Relaxed);
        let meter = Meter::start(Some(load.process))?;
        let (sent, took) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                on_generator_core()?;
                self.send(load)
            });
            sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
        })?;
        self.settled();
        let spent = meter.stop()?;
        let delivered = self.received.load(Ordering::Relaxed) - before;
        Ok(Run { sent, delivered, took, used: Duration::ZERO, waited: Duration::ZERO, spent })
    }

    fn send(&self, load: Load) -> anyhow::Result<(u64, Duration)> {
        let start = Instant::now();
        let mut sent = 0_u32;
        while start.elapsed() < load.span {
            (&self.sender).write_all(&self.burst)?;
            sent += BURST;
            if let Some(rate) = load.rate {
                let due = start + Duration::from_secs_f64(f64::from(sent) / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        Ok((sent.into(), start.elapsed()))
    }

    /// Waits until nothing more comes.
    fn settled(&self) {
        let mut last = self.received.load(Ordering::Relaxed);
        loop {
            std::thread::sleep(QUIET);
            let now = self.received.load(Ordering::Relaxed);
            if now == last {
                return;
            }
            last = now;
        }
    }
}

/// Counts packets until the server goes.
fn counted(mut client: Client, count: &AtomicU64) -> anyhow::Result<()> {
    loop {
        let mut packets = 0;
        while let Some((frame, _)) = client.decoder.next_frame()? {
            packets += u64::from(matches!(frame, Frame::RecvPacket { .. }));
        }
        count.fetch_add(packets, Ordering::Relaxed);
        match client.stream.read(client.decoder.space())? {
            0 => return Ok(()),
            length => client.decoder.filled(length),
        }
    }
}

/// Reads what the server says to the sender, so that it never waits for us.
fn drain(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
}
