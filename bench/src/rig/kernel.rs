//! The rig's kernel programs, loaded: attached where they are needed, counted, and gone with this value.

use anyhow::Context as _;
use aya::maps::{Array, PerCpuArray};
use aya::programs::tc::SchedClassifierLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use lab::Namespace;
use nix::net::if_::if_nametoindex;

#[path = "../../programs/src/layout.rs"]
pub(super) mod layout;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rig.o"));

/// The loaded object.
pub(crate) struct Kernel {
    pub(super) ebpf: Ebpf,
}

/// A program on a device; detached when dropped.
pub(crate) enum Point {
    #[expect(dead_code, reason = "held for its end")]
    Xdp(XdpLink),
    #[expect(dead_code, reason = "held for its end")]
    Tc(SchedClassifierLink),
}

/// Where the floors send to.
pub(crate) struct Hop {
    pub(crate) device: u32,
    pub(crate) source: [u8; 6],
    pub(crate) target: [u8; 6],
}

impl Kernel {
    pub(crate) fn load() -> anyhow::Result<Self> {
        let mut ebpf = EbpfLoader::new().load(OBJECT).context("load the rig's programs")?;
        for name in ["generate", "sink", "pass", "redirect", "reflect"] {
            let program: &mut Xdp = program(&mut ebpf, name)?;
            program.load().with_context(|| format!("load {name}"))?;
        }
        for name in ["sink_tc", "redirect_tc", "pass_tc"] {
            let program: &mut SchedClassifier = program(&mut ebpf, name)?;
            program.load().with_context(|| format!("load {name}"))?;
        }
        Ok(Self { ebpf })
    }

    /// Attaches an XDP program natively to `device` of `machine`.
    pub(crate) fn xdp(&mut self, name: &str, machine: &Namespace, device: &str) -> anyhow::Result<Point> {
        let program: &mut Xdp = program(&mut self.ebpf, name)?;
        let index = index(machine, device)?;
        let link = machine.enter(|| {
            let id = program.attach_to_if_index(index, XdpMode::Driver)?;
            program.take_link(id)
        })?;
        Ok(Point::Xdp(link.with_context(|| format!("attach {name} to {device}"))?))
    }

    /// Attaches a TC program to the ingress of `device` of `machine`.
    pub(crate) fn tc(&mut self, name: &str, machine: &Namespace, device: &str) -> anyhow::Result<Point> {
        let program: &mut SchedClassifier = program(&mut self.ebpf, name)?;
        let link = machine.enter(|| {
            let id = program.attach(device, TcAttachType::Ingress)?;
            program.take_link(id)
        })?;
        Ok(Point::Tc(link.with_context(|| format!("attach {name} to {device}"))?))
    }

    /// A program of the object.
    pub(crate) fn program<'a, T>(&'a mut self, name: &str) -> anyhow::Result<&'a mut T>
    where
        &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
    {
        program(&mut self.ebpf, name)
    }

    pub(crate) fn set_hop(&mut self, hop: &Hop) -> anyhow::Result<()> {
        let mut halves = [0; 8];
        for (half, bytes) in halves.iter_mut().zip([hop.target, hop.source].concat().chunks(2)) {
            *half = u16::from_ne_bytes([bytes[0], bytes[1]]);
        }
        [halves[6], halves[7]] = [hop.device as u16, (hop.device >> 16) as u16];
        let mut map: Array<_, layout::Hop> = Array::try_from(self.ebpf.map_mut("HOP").context("HOP")?)?;
        Ok(map.set(0, halves, 0)?)
    }

    /// What the sinks have counted so far.
    pub(crate) fn counted(&self) -> anyhow::Result<Counter> {
        let map: PerCpuArray<_, layout::Count> =
            PerCpuArray::try_from(self.ebpf.map("COUNT").context("COUNT")?)?;
        let values = map.get(&0, 0)?;
        let [packets, bytes] = [0, 1].map(|field| values.iter().map(|count| count[field]).sum());
        Ok(Counter { packets, bytes })
    }
}

/// What arrived at the sinks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counter {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// The index of a device of `machine`.
pub(crate) fn index(machine: &Namespace, device: &str) -> anyhow::Result<u32> {
    machine.enter(|| if_nametoindex(device))?.with_context(|| format!("{device} in {}", machine.name()))
}

pub(super) fn program<'ebpf, T>(ebpf: &'ebpf mut Ebpf, name: &str) -> anyhow::Result<&'ebpf mut T>
where
    &'ebpf mut T: TryFrom<&'ebpf mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let found = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    Ok(found.try_into()?)
}
