//! Tailscale's STUN servers: derper's, in userspace, and `xdpderper`, an XDP program loaded as it ships.

use lab::Process;
use wire::stun::{TxId, encode_request};

use super::{listens, serving, start};
use crate::rig::{Bed, Cell, Frames, Kernel, Running, Sink, Udp};

pub(crate) const PORT: u16 = 3478;
/// Where `derper -dev` accepts DERP.
pub(crate) const DERP_PORT: u16 = 3340;

/// What Tailscale's clients ask, 40 bytes.
pub(crate) fn request() -> anyhow::Result<Frames> {
    let payload = encode_request(TxId(*b"bench-rig-id")).to_vec();
    let source = std::net::SocketAddrV4::new(Bed::A, 20_000);
    Frames::new((Bed::MAC_A, Bed::MAC_RELAY_A), [Udp { source, target: Bed::towards_a(PORT), payload }])
}

/// derper as it runs for development: plain HTTP, no client is refused.
pub(crate) fn derper(bed: &Bed) -> anyhow::Result<Process> {
    let config = bed.folder().join("derper.json");
    let config = config.to_string_lossy();
    let mut process = start(bed, "derper", &["-dev", "-c", &config])?;
    serving("derper listens", &mut process, |_| {
        listens(bed, 't', DERP_PORT).and_then(|()| listens(bed, 'u', PORT))
    })?;
    Ok(process)
}

/// derper's STUN.
pub(crate) fn derper_stun(bed: &Bed) -> Cell<'_> {
    let run = move |_: &mut Kernel| {
        let process = derper(bed)?;
        Ok(Running { frames: request()?, process: Some(process.id()), hold: vec![Box::new(process)] })
    };
    Cell { name: "derper 1.102.5", sink: Sink::Back, napi: false, start: Box::new(run) }
}

/// Tailscale's XDP STUN. Its process only loads the program.
pub(crate) fn xdp_stun(bed: &Bed) -> Cell<'_> {
    let run = move |_: &mut Kernel| {
        let port = PORT.to_string();
        let flags = ["-device", "rig0", "-dst-port", &port, "-mode", "xdpdrv", "-http", "127.0.0.1:8230"];
        let mut process = start(bed, "xdpderper", &flags)?;
        serving("xdpderper attaches", &mut process, |_| {
            bed.relay.sh("ip -d link show rig0").ok().filter(|text| text.contains("prog/xdp")).map(drop)
        })?;
        Ok(Running { frames: request()?, process: None, hold: vec![Box::new(process)] })
    };
    Cell { name: "xdpderper 1.102.5", sink: Sink::Back, napi: false, start: Box::new(run) }
}
