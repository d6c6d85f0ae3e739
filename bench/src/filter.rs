//! What `from_tunnel` costs a packet with 1, 1,000 and 10,000 rules, by the kernel's own test-run: without a device, without
//! a network, so the processor is all that is measured.

use programs::Loaded;
use programs::cost::{Shape, from_tunnel};
use programs::namespace::Namespace;

use crate::row::{Aim, Row};

/// Packets a test-run.
const REPEAT: u32 = 200_000;

pub(crate) fn run(runs: usize) -> anyhow::Result<Vec<Row>> {
    let costs = Namespace::new().run(move || {
        let mut programs = Loaded::new("bench0");
        Shape::ALL.map(|shape| (shape, costs(&mut programs, shape, runs)))
    });
    let mut rows = Vec::new();
    for (shape, costs) in costs {
        let [one, more @ ..] = costs?;
        for (rules, cost) in ["1,000", "10,000"].into_iter().zip(more) {
            let case = format!("from_tunnel a packet, {rules} rules by {}", shape.name());
            let peer = ("1 rule", Ok(one.clone()));
            rows.push(Row::new("filter", case, "ns", &cost, peer, Aim::TimesPeer(1.5)));
        }
    }
    Ok(rows)
}

/// Nanoseconds a packet with 1, 1,000 and 10,000 rules; the three take turns.
fn costs(programs: &mut Loaded, shape: Shape, runs: usize) -> Result<[Vec<f64>; 3], dataplane::Error> {
    let mut costs = [const { Vec::new() }; 3];
    for _ in 0..runs {
        for (samples, rules) in costs.iter_mut().zip([1, 1_000, 10_000]) {
            samples.push(from_tunnel(programs, shape, rules, 1, REPEAT)?.as_secs_f64() * 1e9);
        }
    }
    Ok(costs)
}
