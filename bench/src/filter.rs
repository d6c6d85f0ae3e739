//! What `from_tunnel` costs a packet with 1, 1,000 and 10,000 rules, by the kernel's own test-run: without a device, without
//! a network, so the processor is all that is measured.

use programs::Loaded;
use programs::cost::{Shape, from_tunnel};
use programs::namespace::Namespace;

use crate::row::{Aim, Row};

/// Packets a test-run.
const REPEAT: u32 = 200_000;

pub(crate) fn run(runs: usize) -> anyhow::Result<Vec<Row>> {
    let runs = u32::try_from(runs)?;
    let costs = Namespace::new().run(move || {
        let mut programs = Loaded::new("bench0");
        let mut cost = |shape, rules| {
            from_tunnel(&mut programs, shape, rules, runs, REPEAT).map(|time| time.as_secs_f64() * 1e9)
        };
        let all = Shape::ALL
            .into_iter()
            .map(|shape| Ok((shape.name(), [cost(shape, 1)?, cost(shape, 1_000)?, cost(shape, 10_000)?])));
        all.collect::<Result<Vec<_>, dataplane::Error>>()
    })?;
    let mut rows = Vec::new();
    for (shape, [one, thousand, ten_thousand]) in costs {
        for (rules, cost) in [("1,000", thousand), ("10,000", ten_thousand)] {
            let case = format!("from_tunnel a packet, {rules} rules by {shape}");
            rows.push(Row::new(
                "filter",
                case,
                "ns",
                &[cost],
                ("1 rule", Ok(vec![one])),
                Aim::TimesPeer(1.5),
            ));
        }
    }
    Ok(rows)
}
