//! What a WireGuard packet pays on its way in, by the kernel's own test-run: `underlay` (XDP) and `steer` (TC), which both let
//! it pass. The floor is a program that passes without looking.

use aya::programs::{SchedClassifier, TestRunOptions, Xdp};
use dataplane::Program;
use programs::Loaded;
use programs::namespace::Namespace;

use crate::rig::{Frames, Kernel, Udp};
use crate::row::{Aim, Row};

const REPEAT: u32 = 500_000;
const WIREGUARD: u16 = 41_641;
/// A transport message of the least size, 32 bytes, begins with its type.
const DATA: [u8; 32] = {
    let mut message = [0; 32];
    message[0] = 4;
    message
};

pub(crate) fn run(runs: usize) -> anyhow::Result<Vec<Row>> {
    let from = |port| std::net::SocketAddrV4::new([192, 0, 2, 2].into(), port);
    let packet = Udp { source: from(40_000), target: from(WIREGUARD), payload: DATA.to_vec() };
    let frame = Frames::new(([2; 6], [4; 6]), [packet])?.frame;
    let costs = Namespace::new().run(move || -> anyhow::Result<[Vec<f64>; 4]> {
        let mut programs = Loaded::new("bench2");
        programs.set_ports(WIREGUARD, WIREGUARD + 1)?;
        let mut kernel = Kernel::load()?;
        let mut costs = [const { Vec::new() }; 4];
        for _ in 0..runs {
            costs[0].push(programs.test_run(Program::Underlay, &frame, REPEAT)?.1.as_secs_f64() * 1e9);
            costs[1].push(programs.test_run(Program::Steer, &frame, REPEAT)?.1.as_secs_f64() * 1e9);
            costs[2].push(floor::<Xdp>(&mut kernel, "pass", &frame)?);
            costs[3].push(floor::<SchedClassifier>(&mut kernel, "pass_tc", &frame)?);
        }
        Ok(costs)
    })?;
    let [underlay, steer, pass, pass_tc] = costs;
    let row = |case: &str, ours: &[f64], floor: Vec<f64>| {
        Row::new("steer", case, "ns", ours, ("a program that only passes", Ok(floor)), Aim::Shown)
    };
    Ok(vec![
        row("a WireGuard packet through `underlay` (XDP), test-run", &underlay, pass),
        row("a WireGuard packet through `steer` (TC), test-run", &steer, pass_tc),
    ])
}

/// Nanoseconds that a run of one of the rig's own programs takes.
fn floor<T>(kernel: &mut Kernel, name: &str, frame: &[u8]) -> anyhow::Result<f64>
where
    T: for<'a> aya::programs::TestRun<Opts<'a> = TestRunOptions<'a>, Result = aya::programs::TestRunResult>,
    for<'a> &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program: &mut T = kernel.program(name)?;
    let options = TestRunOptions { data_in: Some(frame), repeat: REPEAT, ..TestRunOptions::new() };
    Ok(program.test_run(options)?.duration.as_secs_f64() * 1e9)
}
