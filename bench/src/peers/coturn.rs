//! coturn: a TURN allocation and a channel (RFC 8656), and its STUN server.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Process;

use super::{listens, request, serving, start};
use crate::rig::{Bed, Cell, Frames, Kernel, Running, Sink, Udp};

const PORT: u16 = 3478;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
/// Of a method's successful answer.
const SUCCESS: u16 = 0x0100;
const CHANNEL_NUMBER: u16 = 0x000c;
const LIFETIME: u16 = 0x000d;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const CHANNEL: u16 = 0x4000;

/// The server with `flows` clients, each with one channel; ChannelData takes turns.
pub(crate) fn turn(bed: &Bed, flows: u16, payload: usize) -> Cell<'_> {
    let run = move |_: &mut Kernel| {
        let process = server(bed)?;
        let bound = bed.a.enter(|| (0..flows).try_for_each(allocate))?;
        bound.with_context(|| process.log())?;
        let length = u16::try_from(payload)?.to_be_bytes();
        let payload = [&CHANNEL.to_be_bytes()[..], &length, &vec![0; payload]].concat();
        let packets = (0..flows).map(|flow| Udp {
            source: client(flow),
            target: Bed::towards_a(PORT),
            payload: payload.clone(),
        });
        running(process, Frames::new((Bed::MAC_A, Bed::MAC_RELAY_A), packets)?)
    };
    Cell { name: "coturn", sink: Sink::Xdp, napi: false, start: Box::new(run) }
}

/// The same server asked by STUN.
pub(crate) fn turn_stun(bed: &Bed) -> Cell<'_> {
    let run = move |_: &mut Kernel| running(server(bed)?, request()?);
    Cell { name: "coturn", sink: Sink::Back, napi: false, start: Box::new(run) }
}

fn server(bed: &Bed) -> anyhow::Result<Process> {
    let folder = bed.folder().to_str().context("a readable path")?;
    let (towards_a, towards_b) = (Bed::RELAY_TO_A.to_string(), Bed::RELAY_TO_B.to_string());
    let (id, base) = (format!("--pidfile={folder}/turn.pid"), format!("--userdb={folder}/turn.db"));
    let fixed = ["-n", "--no-auth", "--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout", "-m", "1"];
    let own = ["-L", &towards_a, "-E", &towards_b, &id, &base];
    let mut process = start(bed, "turnserver", &[&fixed[..], &own].concat())?;
    serving("coturn listens", &mut process, |_| listens(bed, 'u', PORT))?;
    Ok(process)
}

fn running<'bed>(process: Process, frames: Frames) -> anyhow::Result<Running<'bed>> {
    Ok(Running { frames, process: Some(process.id()), hold: vec![Box::new(process)] })
}

fn client(flow: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Bed::A, 20_000 + 2 * flow)
}

/// One client's allocation and channel to an address in `b`, on the calling thread's machine.
fn allocate(flow: u16) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(client(flow))?;
    socket.connect(Bed::towards_a(PORT))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let udp = attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let hour = attribute(LIFETIME, &3600_u32.to_be_bytes());
    ask(&socket, ALLOCATE, &[udp, hour].concat())?;
    let [high, low] = CHANNEL.to_be_bytes();
    let channel = attribute(CHANNEL_NUMBER, &[high, low, 0, 0]);
    let peer = attribute(XOR_PEER_ADDRESS, &hidden(Bed::B, 20_001 + 2 * flow));
    ask(&socket, CHANNEL_BIND, &[channel, peer].concat())
}

fn ask(socket: &UdpSocket, method: u16, attributes: &[u8]) -> anyhow::Result<()> {
    let length = u16::try_from(attributes.len())?.to_be_bytes();
    socket.send(&[&method.to_be_bytes()[..], &length, &COOKIE, &[method as u8; 12], attributes].concat())?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).with_context(|| format!("no answer to method {method:#06x}"))?;
    let got = u16::from_be_bytes([answer[0], answer[1]]);
    ensure!(length >= 20 && got == method | SUCCESS, "method {method:#06x} was answered with {got:#06x}");
    Ok(())
}

/// Type, length and value; every value here is a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

/// An IPv4 address and port as XOR attributes hold them.
fn hidden(address: Ipv4Addr, port: u16) -> Vec<u8> {
    let port = (port ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]])).to_be_bytes();
    let address = (u32::from(address) ^ u32::from_be_bytes(COOKIE)).to_be_bytes();
    [&[0, 1][..], &port, &address].concat()
}
