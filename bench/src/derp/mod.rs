//! DERP, one pair of clients: our relay beside derper, both on plain TCP, as behind a proxy.
//!
//! The server has the relay's core for itself, both clients share the other one: the figure is the server process's own time
//! a packet, exact, whatever the clients cost.

mod client;
mod load;

use lab::Process;

use crate::peers;
use crate::rig::{Bed, Effort, Figures, Found, Outcome, guarded, on_relay_core, search};
use crate::row::{Aim, Row};
use load::{Load, Pair};

const SIZES: [(usize, &str); 2] = [(64, "64 B"), (1280, "1,280 B")];

/// A server to measure, and where it listens.
type Server = fn(&Bed) -> anyhow::Result<(Process, u16)>;

pub(crate) fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::build()?;
    let servers: [(&str, Server); 2] =
        [("underpass relay", ours), ("derper 1.102.5", |bed| Ok((peers::derper(bed)?, peers::DERP_PORT)))];
    let mut rows = Vec::new();
    for (size, text) in SIZES {
        let mut known = [None; 2];
        let mut figures = [const { Ok(Figures::EMPTY) }; 2];
        for _ in 0..effort.runs {
            for (index, (name, start)) in servers.iter().enumerate() {
                let Ok(samples) = &mut figures[index] else { continue };
                if let Err(error) = sample(&bed, *start, size, effort, &mut known[index], samples) {
                    figures[index] = Err(format!("{error:#}"));
                }
                let last = figures[index].as_ref().map_or_else(Clone::clone, Figures::last);
                eprintln!("    {name}, {text}: {last}");
            }
        }
        let [ours, derper] = figures.map(Outcome::new);
        let peer = (servers[1].0, &derper);
        rows.push(ours.process("derp", &format!("{text}: process CPU a packet"), peer, Aim::TimesPeer(0.5)));
        rows.push(ours.rate(
            "derp",
            &format!("{text}: packets/s without loss"),
            peer,
            Aim::AtLeastTimesPeer(2.0),
        ));
        rows.push(ours.most("derp", &format!("{text}: packets/s at most"), peer, Aim::Shown));
    }
    Ok(rows)
}

fn ours(bed: &Bed) -> anyhow::Result<(Process, u16)> {
    let state = bed.folder().join("relay");
    let mut command = on_relay_core(&bed.relay, lab::underpass()?)?;
    // As derper by default: whoever comes is let in.
    command.args(["relay", "--tls", "off", "--stun", "off", "--verify-clients=false", "--listen"]);
    command.arg(format!("0.0.0.0:{}", peers::DERP_PORT)).arg("--state").arg(state);
    let mut process = bed.relay.start("underpass", &mut command)?;
    peers::serving("the relay listens", &mut process, |_| peers::listens(bed, 't', peers::DERP_PORT))?;
    Ok((process, peers::DERP_PORT))
}

/// One round of one server; the first one searches.
fn sample(
    bed: &Bed,
    start: Server,
    size: usize,
    effort: Effort,
    known: &mut Option<Found>,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (process, port) = start(bed)?;
    let mut pair = Pair::connect(bed, port, size)?;
    let mut load = |rate, span| guarded(effort, || pair.load(Load { rate, span, process: process.id() }));
    let first = load(None, effort.step)?;
    let found = match *known {
        Some(found) => found,
        None => *known.insert(search(first.rate(), |rate| load(Some(rate), effort.step))?),
    };
    figures.most.push(found.most);
    let mut rate = found.rate.unwrap_or(found.most / 2.0);
    let run = loop {
        let run = load(Some(rate), effort.span)?;
        if !run.loses() || rate < found.most / 10.0 {
            break run;
        }
        rate *= 0.95;
    };
    if !run.loses() {
        figures.rate.push(run.rate());
    }
    figures.process.push(run.process());
    figures.foreign = figures.foreign.max(run.spent.foreign);
    Ok(())
}
