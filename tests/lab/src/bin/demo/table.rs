//! The live table: who is who, which path each pair uses, handshakes, bytes, and what the eBPF programs counted.

use std::io::{IsTerminal, Write};

use lab::Node;
use serde_json::Value;

/// Repaints itself on a terminal; prints only changes elsewhere.
#[derive(Default)]
pub(crate) struct Table {
    lines: usize,
    last: String,
}

impl Table {
    /// Shows the present state of `nodes`.
    pub(crate) fn show(&mut self, nodes: &[&Node<'_>]) {
        let text = render(nodes);
        let paths = strip_numbers(&text);
        let terminal = std::io::stdout().is_terminal();
        if !terminal && paths == self.last {
            return;
        }
        if terminal && self.lines > 0 {
            print!("\x1b[{}A\x1b[J", self.lines);
        }
        print!("{text}");
        let _ = std::io::stdout().flush();
        self.lines = text.lines().count();
        self.last = paths;
    }

    /// What follows is printed below the present table.
    pub(crate) fn leave(&mut self) {
        self.lines = 0;
    }
}

/// Counters change with each look; off a terminal only a change of a path is worth a table.
fn strip_numbers(text: &str) -> String {
    let rows = text.lines().filter(|line| !line.contains("eBPF on"));
    rows.map(|line| line.get(..52).unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn render(nodes: &[&Node<'_>]) -> String {
    let mut text = format!(
        "  {:<8} {:<8} {:<32} {:>10} {:>10} {:>10}\n",
        "from", "to", "path", "sent", "received", "handshake"
    );
    for node in nodes {
        let Ok(status) = node.status() else {
            text.push_str(&format!("  {:<8} (controller not running)\n", node.host().name()));
            continue;
        };
        let mut peers: Vec<Value> =
            status["Peer"].as_object().map(|peers| peers.values().cloned().collect()).unwrap_or_default();
        peers.sort_by_key(|peer| peer["HostName"].to_string());
        for peer in peers {
            text.push_str(&row(node.host().name(), &peer));
        }
    }
    for node in nodes {
        text.push_str(&format!("  eBPF on {:<8} {}\n", node.host().name(), counters(node)));
    }
    text
}

fn row(from: &str, peer: &Value) -> String {
    let direct = peer["CurAddr"].as_str().unwrap_or_default();
    let relay = peer["Relay"].as_str().unwrap_or_default();
    let path = if !direct.is_empty() { format!("direct {direct}") } else { format!("DERP {relay}") };
    let handshake = peer["LastHandshake"].as_str().unwrap_or_default();
    let handshake = if handshake.starts_with("0001") { "-" } else { handshake.get(11..19).unwrap_or("-") };
    format!(
        "  {from:<8} {:<8} {path:<32} {:>10} {:>10} {handshake:>10}\n",
        peer["HostName"].as_str().unwrap_or("?"),
        bytes(&peer["TxBytes"]),
        bytes(&peer["RxBytes"]),
    )
}

fn bytes(value: &Value) -> String {
    let count = value.as_u64().unwrap_or_default();
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

/// The counters that are not zero, as `program/reason packets`.
fn counters(node: &Node<'_>) -> String {
    let Ok(metrics) = node.run(&["metrics"]) else { return "(controller not running)".to_owned() };
    let label = |line: &str, name: &str| {
        let value = line.split(&format!("{name}=\"")).nth(1)?.split('"').next()?;
        Some(value.to_owned())
    };
    let shown =
        metrics.lines().filter(|line| line.starts_with("underpass_ebpf_packets_total")).filter_map(|line| {
            let count = line.rsplit(' ').next()?;
            (count != "0")
                .then(|| Some(format!("{}/{} {count}", label(line, "program")?, label(line, "reason")?)))?
        });
    shown.collect::<Vec<_>>().join("  ")
}
