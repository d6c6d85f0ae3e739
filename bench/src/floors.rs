//! The floors: the least that forwarding and answering cost on this machine, measured in the same run as everything else.

use lab::Namespace;

use crate::rig::{Bed, Cell, Effort, Frames, Hop, Kernel, Outcome, Running, Sink, Udp, take_turns};
use crate::row::{Aim, Row};

/// Bytes that a relay's own framing adds to the payload; the floors carry as much.
pub(crate) const FRAMING: usize = 8;

/// The floors of a gateway, with nothing of ours on them.
pub(crate) fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::build()?;
    let cells = [
        redirect_tc(&bed, 64),
        forward(1, 64),
        forward(8, 64),
        masquerade(&bed, 1, 64),
        masquerade(&bed, 8, 64),
        masquerade(&bed, 4096, 64),
    ];
    let names = cells.each_ref().map(|cell| cell.name);
    let flows = [1, 1, 8, 1, 8, 4096];
    let outcomes = take_turns(&bed, &cells, effort)?;
    let none = Outcome::absent("not in this build");
    let rows = outcomes.iter().zip(names).zip(flows).flat_map(|((outcome, name), flows)| {
        let case = |what| format!("64 B, flows in turns: {flows}; {what}");
        [
            none.cpu("floors", &case("CPU a packet"), (name, outcome), Aim::Shown),
            none.rate("floors", &case("packets/s without loss"), (name, outcome), Aim::Shown),
        ]
    });
    Ok(rows.collect())
}

/// Frames that pass through the relay's machine as they are: `flows` of them, by source port.
pub(crate) fn through(flows: u16, payload: usize) -> anyhow::Result<Frames> {
    let packets = (0..flows).map(|flow| Udp {
        source: std::net::SocketAddrV4::new(Bed::A, 20_000 + flow),
        target: std::net::SocketAddrV4::new(Bed::B, 40_001),
        payload: vec![0; payload + FRAMING],
    });
    Frames::new((Bed::MAC_A, Bed::MAC_RELAY_A), packets)
}

/// XDP redirect without any lookup: the floor of a relay.
pub(crate) fn redirect(bed: &Bed, payload: usize, napi: bool) -> Cell<'_> {
    let start = move |kernel: &mut Kernel| {
        kernel.set_hop(&to_b(bed)?)?;
        let program = kernel.xdp("redirect", &bed.relay, "rig0")?;
        running(through(1, payload)?, program)
    };
    Cell { name: "XDP redirect without lookup", sink: Sink::Xdp, napi, start: Box::new(start) }
}

/// TC redirect without any lookup: the floor of a gateway, for a WireGuard device has no XDP.
pub(crate) fn redirect_tc(bed: &Bed, payload: usize) -> Cell<'_> {
    let start = move |kernel: &mut Kernel| {
        kernel.set_hop(&to_b(bed)?)?;
        let program = kernel.tc("redirect_tc", &bed.relay, "rig0")?;
        running(through(1, payload)?, program)
    };
    Cell { name: "TC redirect without lookup", sink: Sink::Tc, napi: false, start: Box::new(start) }
}

/// The kernel's own forwarding.
pub(crate) fn forward<'bed>(flows: u16, payload: usize) -> Cell<'bed> {
    let start = move |_: &mut Kernel| running(through(flows, payload)?, ());
    Cell { name: "kernel forwarding", sink: Sink::Tc, napi: false, start: Box::new(start) }
}

/// The kernel's own forwarding with nftables' source NAT.
pub(crate) fn masquerade(bed: &Bed, flows: u16, payload: usize) -> Cell<'_> {
    let start = move |_: &mut Kernel| running(through(flows, payload)?, Rules::load(&bed.relay)?);
    Cell { name: "kernel forwarding, nft masquerade", sink: Sink::Tc, napi: false, start: Box::new(start) }
}

/// A STUN request sent back with its addresses swapped, nothing parsed: the floor of answering.
pub(crate) fn reflect(bed: &Bed, frames: Frames) -> Cell<'_> {
    let start = move |kernel: &mut Kernel| {
        let program = kernel.xdp("reflect", &bed.relay, "rig0")?;
        running(frames.clone(), program)
    };
    Cell { name: "XDP_TX, nothing parsed", sink: Sink::Back, napi: false, start: Box::new(start) }
}

fn running<'bed>(frames: Frames, hold: impl Sized + 'bed) -> anyhow::Result<Running<'bed>> {
    Ok(Running { frames, process: None, hold: vec![Box::new(hold)] })
}

fn to_b(bed: &Bed) -> anyhow::Result<Hop> {
    let device = crate::rig::index(&bed.relay, "rig1")?;
    Ok(Hop { device, source: Bed::MAC_RELAY_B, target: Bed::MAC_B })
}

/// A table that is gone with this value.
struct Rules<'bed>(&'bed Namespace);

impl<'bed> Rules<'bed> {
    fn load(machine: &'bed Namespace) -> anyhow::Result<Self> {
        machine.sh("nft 'table ip rig { chain post { type nat hook postrouting priority srcnat; \
             oifname rig1 masquerade; }; }'")?;
        Ok(Self(machine))
    }
}

impl Drop for Rules<'_> {
    fn drop(&mut self) {
        // The table goes with the machine, whatever nft says here.
        let _ = self.0.sh("nft delete table ip rig");
    }
}
