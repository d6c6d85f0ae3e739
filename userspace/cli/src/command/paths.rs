//! `underpass debug paths`: every path to a peer, and why it is used or not.

use wire::local::{PathReport, PeerPaths};

use super::{peer, whois::query_value};
use crate::client::Client;
use crate::{output, table};

pub(super) async fn show(node: &Client, whom: Option<&str>, output: output::Json) -> anyhow::Result<()> {
    let mut route = "underpass/paths".to_owned();
    if let Some(text) = whom {
        route += &format!("?peer={}", query_value(&peer::key(node, text).await?.to_string()));
    }
    let paths: Vec<PeerPaths> = node.get(&route).await?;
    output.print(&paths, |paths| paths.iter().map(text_of).collect::<Vec<_>>().join("\n"))
}

fn text_of(peer: &PeerPaths) -> String {
    let name = peer.name.split('.').next().unwrap_or_default();
    let state = if peer.active { "active" } else { "idle, so its paths are not kept up" };
    let kernel = match peer.kernel.as_str() {
        "" => "the kernel does not have it",
        "lo" => "the kernel sends to DERP",
        kernel => &format!("the kernel sends to {kernel}"),
    };
    let head = ["", "ENDPOINT", "UPLINK", "LATENCY", "ANSWERED", "PINGED", "FROM", "WHY"];
    let rows = peer.paths.iter().map(row).collect();
    format!("{name}: {state}; {kernel}\n{}", table::with_head(head, rows))
}

fn row(path: &PathReport) -> [String; 8] {
    let ago = |seconds: Option<f64>| seconds.map_or("-".into(), |seconds| format!("{seconds:.1}s ago"));
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    [
        if path.used { "*" } else { "" }.to_owned(),
        path.endpoint.clone(),
        or_dash(&path.uplink),
        path.latency_seconds.map_or("-".into(), |seconds| format!("{:.1}ms", seconds * 1e3)),
        ago(path.answered_seconds_ago),
        ago(path.pinged_seconds_ago),
        or_dash(&path.sources.join(", ")),
        path.why.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_in_use_is_marked_and_every_other_says_why_not() {
        let path = |endpoint: &str, used: bool, why: &str| PathReport {
            endpoint: endpoint.into(),
            sources: vec!["netmap".into(), "ping".into()],
            latency_seconds: Some(0.002),
            answered_seconds_ago: Some(1.26),
            used,
            why: why.into(),
            ..PathReport::default()
        };
        let peer = PeerPaths {
            name: "gw.net.test.".into(),
            kernel: "192.0.2.1:1".into(),
            active: true,
            paths: vec![path("192.0.2.1:1", true, "used"), path("192.0.2.2:2", false, "lost: slower")],
            ..PeerPaths::default()
        };
        let text = text_of(&peer);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "gw: active; the kernel sends to 192.0.2.1:1");
        assert_eq!(lines[2], "*  192.0.2.1:1  -       2.0ms    1.3s ago  -       netmap, ping  used");
        assert!(lines[3].starts_with("192.0.2.2:2") && lines[3].ends_with("lost: slower"), "{text}");
    }
}
