//! `up` to Running: a fresh daemon's first join, the whole command as a person waits for it.

use std::time::Instant;

use crate::row::{Aim, Row};
use crate::stage::Stage;

pub(crate) fn run(runs: usize) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::build()?;
    let server = stage.server()?;
    let key = server.auth_key("bench", &["--reusable"])?;
    let (mut ours, mut stock) = (Vec::new(), Ok(Vec::new()));
    for run in 0..runs {
        let octet = u8::try_from(30 + 2 * run)?;
        let machine = stage.machine(&format!("o{run}"), octet)?;
        let node = stage.ours(&machine, server.certificate())?;
        let start = Instant::now();
        node.up(&key, &[])?;
        ours.push(start.elapsed().as_secs_f64() * 1e3);

        let machine = stage.machine(&format!("s{run}"), octet + 1)?;
        let timed = stage.stock(&machine, server.certificate()).and_then(|node| {
            let start = Instant::now();
            node.up(&key, &[]).map_err(|error| format!("{error:#}"))?;
            Ok(start.elapsed().as_secs_f64() * 1e3)
        });
        stock = stock.and_then(|mut samples: Vec<f64>| {
            samples.push(timed?);
            Ok(samples)
        });
    }
    let peer = ("tailscale 1.102.5 on our server", stock);
    Ok(vec![Row::new(
        "join",
        "`up` to Running, first join, local server",
        "ms",
        &ours,
        peer,
        Aim::AtMost(100.0),
    )])
}
