//! Tailscale's peer relay, `tailscale.com/net/udprelay` (`bench/peers/udprelay`), and the clients' side of its handshake.

use std::fmt::Write as _;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, bail};
use types::{DiscoPrivate, DiscoPublic};
use wire::disco::{Bind, Message, open, seal};
use wire::geneve::{HEADER_LEN, Header, Protocol, Vni};
use wire::nacl::{NONCE_LEN, SharedBox};

use super::{serving, start};
use crate::rig::{Bed, Cell, Frames, Kernel, Running, Sink, Udp};

const PORT: u16 = 41_000;
/// How long an answer to one step of the handshake may take, and how often a step is tried.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: usize = 5;

/// The relay with `pairs` bound pairs of clients, whose packets take turns.
pub(crate) fn peer_relay(bed: &Bed, pairs: u16, payload: usize, sink: Sink, napi: bool) -> Cell<'_> {
    let run = move |_: &mut Kernel| relay(bed, pairs, payload);
    Cell { name: "Tailscale's peer relay 1.102.5", sink, napi, start: Box::new(run) }
}

fn relay(bed: &Bed, pairs: u16, payload: usize) -> anyhow::Result<Running<'_>> {
    let clients: Vec<[DiscoPrivate; 2]> = (0..pairs).map(|pair| [1, 2].map(|side| key(pair, side))).collect();
    let list = clients.iter().fold(String::new(), |mut list, [one, other]| {
        let _ = writeln!(list, "{} {}", one.public(), other.public());
        list
    });
    let file = bed.folder().join("pairs");
    std::fs::write(&file, list)?;
    let addresses = format!("{},{}", Bed::RELAY_TO_A, Bed::RELAY_TO_B);
    let file = file.to_str().context("a readable path")?;
    let mut process =
        start(bed, "udprelay", &["-port", &PORT.to_string(), "-addresses", &addresses, "-pairs", file])?;
    let places = serving("the relay allocates", &mut process, |process| {
        let places: Vec<(Vni, DiscoPublic)> = process.log().lines().filter_map(place).collect();
        (places.len() == usize::from(pairs)).then_some(places)
    })?;
    for (machine, side) in [(&bed.a, 0), (&bed.b, 1)] {
        let bound = machine.enter(|| {
            clients
                .iter()
                .zip(&places)
                .zip(0..)
                .try_for_each(|((keys, (vni, server)), pair)| bind(pair, side, keys, *vni, server))
        })?;
        bound.with_context(|| process.log())?;
    }
    let packets = places.iter().zip(0..).map(|((vni, _), pair)| {
        let header = Header { control: false, protocol: Protocol::WireGuard, vni: *vni }.encode();
        let payload = [&header[..], &vec![0; payload]].concat();
        Udp { source: client(pair, 0), target: Bed::towards_a(PORT), payload }
    });
    let frames = Frames::new((Bed::MAC_A, Bed::MAC_RELAY_A), packets)?;
    Ok(Running { frames, process: Some(process.id()), hold: vec![Box::new(process)] })
}

/// Keys of the bench's own clients; they guard nothing.
fn key(pair: u16, side: u8) -> DiscoPrivate {
    let mut bytes = [side; 32];
    bytes[..2].copy_from_slice(&pair.to_be_bytes());
    DiscoPrivate::from_random(bytes)
}

fn place(line: &str) -> Option<(Vni, DiscoPublic)> {
    let (vni, server) = line.split_once(' ')?;
    Some((Vni::new(vni.parse().ok()?)?, server.parse().ok()?))
}

/// Where a client of a pair sends from.
fn client(pair: u16, side: u16) -> SocketAddrV4 {
    let address = if side == 0 { Bed::A } else { Bed::B };
    SocketAddrV4::new(address, 20_000 + 2 * pair + side)
}

/// One client's handshake, on the calling thread's machine. Its socket closes afterwards: packets are the generator's.
fn bind(
    pair: u16,
    side: u16,
    keys: &[DiscoPrivate; 2],
    vni: Vni,
    server: &DiscoPublic,
) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(client(pair, side))?;
    socket.connect(if side == 0 { Bed::towards_a(PORT) } else { Bed::towards_b(PORT) })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (own, other) = (&keys[usize::from(side)], &keys[1 - usize::from(side)]);
    let shared = SharedBox::disco(own, server);
    let step = |message: &Message, number: u8| {
        let header = Header { control: true, protocol: Protocol::Disco, vni }.encode();
        let sealed = seal(&own.public(), &shared, [number; NONCE_LEN], message);
        socket.send(&[&header[..], &sealed].concat())
    };
    let mut bind = Bind { vni: vni.get(), generation: 1, remote: other.public(), challenge: [0; 32] };
    for _ in 0..TRIES {
        step(&Message::Bind(bind.clone()), 1)?;
        let mut buffer = [0; 1500];
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let sealed = buffer.get(HEADER_LEN..length).context("an answer with a Geneve header")?;
        let Message::BindChallenge(answer) = open(&shared, sealed)? else { bail!("no challenge") };
        bind.challenge = answer.challenge;
        step(&Message::BindAnswer(bind), 2)?;
        return Ok(());
    }
    bail!("the relay does not answer client {side} of pair {pair}")
}
