//! `underpass netcheck`: what the node's own port sees of the networks under it.
//!
//! The stock command measures from a socket of its own, which another NAT mapping may serve; this asks the node.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use wire::control::DerpMap;
use wire::local::Netcheck;

use crate::client::Client;
use crate::output;
use crate::progress::noting;

/// `underpass netcheck`
#[derive(Args)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct NetcheckArgs {
    #[command(flatten)]
    output: output::Json,
}

impl NetcheckArgs {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        let report: Netcheck = noting("Measuring", node.post("underpass/netcheck")).await?;
        let map: Option<DerpMap> = node.get("derpmap").await?;
        self.output.print(&report, |report| human(report, map.as_ref()))
    }
}

fn human(report: &Netcheck, map: Option<&DerpMap>) -> String {
    let address = |seen: bool, addr: Option<std::net::SocketAddr>| match (seen, addr) {
        (_, Some(addr)) => format!("yes, {addr}"),
        (true, None) => "yes, address unknown".into(),
        (false, None) => "no".into(),
    };
    let varies = report.mapping_varies_by_dest_ip.map_or("unknown".into(), |varies| varies.to_string());
    let mut text = format!(
        "Report:\n  UDP: {}\n  IPv4: {}\n  IPv6: {}\n  Mapping varies by destination: {varies}\n",
        report.udp,
        address(report.ipv4, report.global_v4),
        address(report.ipv6, report.global_v6),
    );
    let name = |id| {
        let region = map.and_then(|map| map.present().find(|(found, _)| *found == id));
        region.map_or_else(|| format!("region {id}"), |(_, region)| region.region_name.clone())
    };
    if report.preferred_derp.is_zero() {
        text += "  Nearest DERP: unknown (no answer to probes)\n";
    } else {
        let _ = writeln!(text, "  Nearest DERP: {}", name(report.preferred_derp));
    }
    for (&id, &nanos) in &report.region_latency {
        let latency = Duration::from_nanos(nanos.unsigned_abs());
        let _ = writeln!(text, "    {:.1}ms  {}", latency.as_secs_f64() * 1e3, name(id));
    }
    text
}

#[cfg(test)]
mod tests {
    use types::RegionId;

    use super::*;

    #[test]
    fn what_is_unknown_is_said_to_be() {
        let text = human(&Netcheck::default(), None);
        assert!(text.contains("IPv4: no\n") && text.contains("Nearest DERP: unknown"), "{text}");
        let report = Netcheck {
            udp: true,
            ipv4: true,
            global_v4: Some("203.0.113.7:41641".parse().unwrap()),
            preferred_derp: RegionId(900),
            region_latency: [(RegionId(900), 1_500_000)].into(),
            ..Netcheck::default()
        };
        let text = human(&report, None);
        assert!(text.contains("yes, 203.0.113.7:41641") && text.contains("1.5ms  region 900"), "{text}");
    }
}
