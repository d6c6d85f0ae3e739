//! One case: something that forwards or answers, its frames, and where they are counted. Cells take turns.

use std::time::{Duration, Instant};

use lab::Namespace;
use nix::unistd::Pid;

use crate::row::{Aim, Row, median};

use super::bed::Threaded;
use super::generator::{Generator, Pace, Sent};
use super::kernel::{Counter, Point};
use super::meter::Meter;
use super::run::{Effort, Run, guarded};
use super::search::{Found, search};
use super::{Bed, Frames, Kernel};

/// Anything that lives as long as a cell runs: processes, rules, programs on devices.
pub(crate) trait Hold {}
impl<T> Hold for T {}

/// What is measured, running.
pub(crate) struct Running<'bed> {
    pub(crate) frames: Frames,
    pub(crate) process: Option<Pid>,
    #[expect(dead_code, reason = "held for its end")]
    pub(crate) hold: Vec<Box<dyn Hold + 'bed>>,
}

/// Where delivered packets are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// By XDP in `b`: a GSO packet is cut up before.
    Xdp,
    /// By TC in `b`: a GSO packet crosses whole, as through a NIC that segments UDP.
    Tc,
    /// By XDP in `a`: answers.
    Back,
}

/// Starts what is measured.
type Start<'bed> = Box<dyn Fn(&mut Kernel) -> anyhow::Result<Running<'bed>> + 'bed>;

/// A case to measure.
pub(crate) struct Cell<'bed> {
    pub(crate) name: &'static str,
    pub(crate) sink: Sink,
    /// Whether all of its work is on the relay's core.
    pub(crate) napi: bool,
    pub(crate) start: Start<'bed>,
}

/// Samples of a cell, one a round.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Packets a second without loss; empty where every rate loses.
    pub(crate) rate: Vec<f64>,
    /// The most packets a second that got through.
    pub(crate) most: Vec<f64>,
    /// Microseconds of the machine for a packet, the generator's taken off.
    pub(crate) cpu: Vec<f64>,
    /// Microseconds of the process for a packet.
    pub(crate) process: Vec<f64>,
    /// The largest share of the machine that others took meanwhile.
    pub(crate) foreign: f64,
}

/// A cell's samples, or why it cannot run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome(Result<Figures, String>);

/// Measures every cell `effort.runs` times, in turns.
pub(crate) fn take_turns<'bed, const N: usize>(
    bed: &'bed Bed,
    cells: &[Cell<'bed>; N],
    effort: Effort,
) -> anyhow::Result<[Outcome; N]> {
    let mut kernel = Kernel::load()?;
    let mut found = [None; N];
    let mut figures = [const { Ok(Figures::EMPTY) }; N];
    for round in 0..effort.runs {
        for (index, cell) in cells.iter().enumerate() {
            let Ok(samples) = &mut figures[index] else { continue };
            let start = Instant::now();
            if let Err(error) = sample(bed, cell, &mut kernel, effort, &mut found[index], samples) {
                figures[index] = Err(format!("{error:#}"));
            }
            eprintln!(
                "    {} ({} of {}): {}, {:.1} s",
                cell.name,
                round + 1,
                effort.runs,
                figures[index].as_ref().map_or_else(Clone::clone, Figures::last),
                start.elapsed().as_secs_f64()
            );
        }
    }
    Ok(figures.map(Outcome::new))
}

/// Rows that set an outcome (ours) against another's.
impl Outcome {
    /// Of samples taken, or the reason why they could not be.
    pub(crate) fn new(samples: Result<Figures, String>) -> Self {
        Self(samples)
    }

    /// Of what is not there.
    pub(crate) fn absent(why: &str) -> Self {
        Self(Err(why.to_owned()))
    }

    /// The median of processor time a packet, in microseconds.
    pub(crate) fn median_cpu(&self) -> Option<f64> {
        median(&self.0.as_ref().ok()?.cpu)
    }

    /// Processor time a packet.
    pub(crate) fn cpu(&self, bench: &'static str, case: &str, peer: (&str, &Self), aim: Aim) -> Row {
        self.row(bench, case, "us", peer, aim, |figures| &figures.cpu)
    }

    /// Packets a second without loss.
    pub(crate) fn rate(&self, bench: &'static str, case: &str, peer: (&str, &Self), aim: Aim) -> Row {
        self.row(bench, case, "packets/s", peer, aim, |figures| &figures.rate)
    }

    /// The most packets a second that got through.
    pub(crate) fn most(&self, bench: &'static str, case: &str, peer: (&str, &Self), aim: Aim) -> Row {
        self.row(bench, case, "packets/s", peer, aim, |figures| &figures.most)
    }

    /// Processor time of the process a packet.
    pub(crate) fn process(&self, bench: &'static str, case: &str, peer: (&str, &Self), aim: Aim) -> Row {
        self.row(bench, case, "us", peer, aim, |figures| &figures.process)
    }

    fn row(
        &self,
        bench: &'static str,
        case: &str,
        unit: &'static str,
        (name, peer): (&str, &Self),
        aim: Aim,
        pick: fn(&Figures) -> &Vec<f64>,
    ) -> Row {
        let samples = |outcome: &Self| {
            let picked = pick(outcome.0.as_ref().map_err(Clone::clone)?).clone();
            if picked.is_empty() { Err("it loses packets at every rate".to_owned()) } else { Ok(picked) }
        };
        let foreign = [self, peer].into_iter().filter_map(|outcome| outcome.0.as_ref().ok());
        let foreign = foreign.map(|figures| figures.foreign).fold(0.0, f64::max);
        Row::compare(bench, case, unit, samples(self), (name, samples(peer)), aim).beside(foreign)
    }
}

impl Figures {
    pub(crate) const EMPTY: Self =
        Self { rate: Vec::new(), most: Vec::new(), cpu: Vec::new(), process: Vec::new(), foreign: 0.0 };

    /// The newest samples, for whoever watches.
    pub(crate) fn last(&self) -> String {
        let last = |samples: &[f64]| samples.last().copied().unwrap_or(f64::NAN);
        format!(
            "{:.0} kpps without loss, {:.0} at most, {:.3} us a packet, {:.3} of the process, {:.0} % foreign load",
            last(&self.rate) / 1e3,
            last(&self.most) / 1e3,
            last(&self.cpu),
            last(&self.process),
            self.foreign * 100.0
        )
    }
}

/// One round of one cell; the first one searches.
fn sample<'bed>(
    bed: &'bed Bed,
    cell: &Cell<'bed>,
    kernel: &mut Kernel,
    effort: Effort,
    found: &mut Option<Found>,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let running = (cell.start)(kernel)?;
    let _sink = counting(bed, kernel, cell.sink)?;
    let _threaded = cell.napi.then(|| Threaded::new(bed)).transpose()?;
    let generator = Generator::new(&bed.a, "a0")?;
    let mut load = |pace, span| {
        guarded(effort, || one(&generator, kernel, &running.frames, running.process, pace, span))
    };
    let first = load(Pace::FlatOut, effort.step)?;
    anyhow::ensure!(first.delivered > 0, "nothing of {} packets arrived", first.sent);
    let within =
        |rate: f64, span: Duration| (Pace::Rate(rate), span.mul_f64(f64::min(1.0, first.offered() / rate)));
    let known = match *found {
        Some(known) => known,
        None => *found.insert(search(first.rate(), |rate| {
            let (pace, span) = within(rate, effort.step);
            load(pace, span)
        })?),
    };
    figures.most.push(known.most);
    let mut rate = known.rate.unwrap_or(known.most / 2.0);
    let run = loop {
        let (pace, span) = within(rate, effort.span);
        let run = load(pace, span)?;
        if known.rate.is_none() || !run.loses() || rate < known.most / 10.0 {
            break run;
        }
        // The search's short runs were too kind.
        rate *= 0.95;
    };
    figures.foreign = figures.foreign.max(run.spent.foreign);
    if !run.loses() {
        figures.rate.push(run.rate());
    }
    if running.process.is_some() {
        figures.process.push(run.process());
    }
    let frames = running.frames.clone();
    drop(running);
    let base = baseline(bed, kernel, &frames, effort, rate)?;
    figures.cpu.push(run.busy_beyond(base.busy_of_sent()));
    Ok(())
}

/// What arrives (packets a second) of each rate that is offered.
pub(crate) fn sweep<'bed>(
    bed: &'bed Bed,
    cell: &Cell<'bed>,
    rates: &[f64],
    effort: Effort,
) -> anyhow::Result<Vec<(f64, f64)>> {
    let mut kernel = Kernel::load()?;
    let running = (cell.start)(&mut kernel)?;
    let _sink = counting(bed, &mut kernel, cell.sink)?;
    let generator = Generator::new(&bed.a, "a0")?;
    let mut points = Vec::new();
    for rate in rates {
        let run = guarded(effort, || {
            one(&generator, &mut kernel, &running.frames, running.process, Pace::Rate(*rate), effort.step)
        })?;
        points.push((run.offered(), run.rate()));
    }
    Ok(points)
}

/// The sink, attached after the start, whose handshakes need the machines' ordinary stack.
fn counting(bed: &Bed, kernel: &mut Kernel, sink: Sink) -> anyhow::Result<Point> {
    match sink {
        Sink::Xdp => kernel.xdp("sink", &bed.b, "b0"),
        Sink::Tc => kernel.tc("sink_tc", &bed.b, "b0"),
        Sink::Back => kernel.xdp("sink", &bed.a, "a0"),
    }
}

/// The same frames at the same rate into an XDP drop where the relay would receive them.
fn baseline(
    bed: &Bed,
    kernel: &mut Kernel,
    frames: &Frames,
    effort: Effort,
    rate: f64,
) -> anyhow::Result<Run> {
    let _drop = kernel.xdp("sink", &bed.relay, "rig0")?;
    let generator = Generator::new(&bed.a, "a0")?;
    guarded(effort, || one(&generator, kernel, frames, None, Pace::Rate(rate), effort.span))
}

/// One load, until what is under way has arrived.
fn one(
    generator: &Generator<'_>,
    kernel: &mut Kernel,
    frames: &Frames,
    process: Option<Pid>,
    pace: Pace,
    span: Duration,
) -> anyhow::Result<Run> {
    let before = kernel.counted()?;
    let meter = Meter::start(process)?;
    let sent = generator.send(kernel, frames, pace, span)?;
    let after = settled(kernel)?;
    let spent = meter.stop()?;
    let delivered = after.packets - before.packets;
    let Sent { packets, took, used, waited } = sent;
    Ok(Run { sent: packets, delivered, took, used, waited, spent })
}

/// The counter once it stands still: what queues hold is late, not lost.
fn settled(kernel: &Kernel) -> anyhow::Result<Counter> {
    let mut last = kernel.counted()?;
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let now = kernel.counted()?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

/// Runs `program` in the relay's machine on the relay's core.
pub(crate) fn on_relay_core(
    relay: &Namespace,
    program: impl AsRef<std::ffi::OsStr>,
) -> anyhow::Result<std::process::Command> {
    let mut command = relay.command("taskset")?;
    command.args(["-c", &super::RELAY_CORE.to_string()]).arg(program);
    Ok(command)
}
