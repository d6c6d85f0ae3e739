//! Our own programs in the rig's middle machine, as the data plane loads them for a relay.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddrV4};

use anyhow::Context as _;
use dataplane::{Programs, RelayLeg, StunService};
use lab::Namespace;
use wire::geneve::{Header, Protocol, Vni};

use crate::peers::{STUN_PORT, request};
use crate::rig::{Bed, Cell, Frames, Kernel, Running, Sink, Udp, index};

const NAME: &str = "ours";
/// By which the pins are named; no device of this name exists.
const DEVICE: &str = "bench-rig";
const PORT: u16 = 41_000;

/// Our relay with `sessions` bound, of which `flows` take turns.
pub(crate) fn relay(bed: &Bed, sessions: u16, flows: u16, payload: usize, napi: bool) -> Cell<'_> {
    let run = move |_: &mut Kernel| {
        let loaded = Loaded::start(bed, |programs| {
            programs.set_relay_port(PORT)?;
            (0..sessions)
                .try_for_each(|session| programs.add_relay_session(vni(session).get(), legs(session)))
        })?;
        let packets = (0..flows).map(|session| {
            let header = Header { control: false, protocol: Protocol::WireGuard, vni: vni(session) }.encode();
            let payload = [&header[..], &vec![0; payload]].concat();
            Udp { source: client(Bed::A, session), target: Bed::towards_a(PORT), payload }
        });
        let frames = Frames::new((Bed::MAC_A, Bed::MAC_RELAY_A), packets)?;
        Ok(Running { frames, process: None, hold: vec![Box::new(loaded)] })
    };
    Cell { name: NAME, sink: Sink::Xdp, napi, start: Box::new(run) }
}

/// Our STUN program, its rate not limited.
pub(crate) fn stun(bed: &Bed) -> Cell<'_> {
    let run = move |_: &mut Kernel| {
        let service = StunService { port: STUN_PORT, ..StunService::default() };
        let loaded = Loaded::start(bed, |programs| programs.set_stun(&service))?;
        Ok(Running { frames: request()?, process: None, hold: vec![Box::new(loaded)] })
    };
    Cell { name: NAME, sink: Sink::Back, napi: false, start: Box::new(run) }
}

fn vni(session: u16) -> Vni {
    Vni::new(u32::from(session) + 1).expect("16 bits fit 24")
}

fn client(address: std::net::Ipv4Addr, session: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, 20_000 + session)
}

fn legs(session: u16) -> [RelayLeg; 2] {
    [(Bed::A, Bed::RELAY_TO_A), (Bed::B, Bed::RELAY_TO_B)]
        .map(|(remote, local)| RelayLeg { remote: client(remote, session).into(), local: local.into() })
}

/// The programs in the relay's machine, attached to what comes from `a`; gone with this value.
struct Loaded<'bed>(&'bed Namespace);

impl<'bed> Loaded<'bed> {
    fn start(
        bed: &'bed Bed,
        set: impl FnOnce(&mut Programs) -> Result<(), dataplane::Error> + Send,
    ) -> anyhow::Result<Self> {
        let [towards_a, towards_b] = [index(&bed.relay, "rig0")?, index(&bed.relay, "rig1")?];
        let own: [(u32, IpAddr); 2] =
            [(towards_a, Bed::RELAY_TO_A.into()), (towards_b, Bed::RELAY_TO_B.into())];
        let loaded = Self(&bed.relay);
        bed.relay.enter(|| {
            let mut programs = Programs::load_or_adopt(DEVICE)?;
            programs.set_own_addresses(&own.into())?;
            programs.set_outlets(&BTreeSet::from([towards_a, towards_b]))?;
            set(&mut programs)?;
            programs.attach_xdp(towards_a)?.context("rig0 takes no XDP program")
        })??;
        Ok(loaded)
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        let removed = self.0.enter(|| Programs::remove_all(DEVICE));
        if !matches!(removed, Ok(Ok(()))) {
            eprintln!("bench: the programs in {} are still there: {removed:?}", self.0.name());
        }
    }
}
