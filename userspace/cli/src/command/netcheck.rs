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

/// The lines of the stock command, so that scripts and eyes find what they know.
fn human(report: &Netcheck, map: Option<&DerpMap>) -> String {
    let mut text = String::from("\nReport:\n");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "\t* {name}: {value}");
    };
    line("Time", &report.now.to_string());
    line("UDP", &report.udp.to_string());
    let seen = |addr: std::net::SocketAddr| format!("yes, {addr}");
    line("IPv4", &report.global_v4.map_or("(no addr found)".into(), seen));
    let no_v6 = match (report.ipv6, report.os_has_ipv6) {
        (true, _) => "(no addr found)",
        (false, true) => "no, but OS has support",
        (false, false) => "no, unavailable in OS",
    };
    line("IPv6", &report.global_v6.map_or(no_v6.into(), seen));
    let known = |value: Option<bool>| value.map_or("unknown".into(), |value| value.to_string());
    line("MappingVariesByDestIP", &known(report.mapping_varies_by_dest_ip));
    line("PortMapping", &port_mapping(report));
    if report.captive_portal.is_some() {
        line("CaptivePortal", &known(report.captive_portal));
    }
    if !report.firewall_mode.is_empty() {
        line("Firewall", &report.firewall_mode);
    }
    let region = |id| map.and_then(|map| map.present().find(|(found, _)| *found == id));
    let name = |id| region(id).map_or(format!("region {id}"), |(_, region)| region.region_name.clone());
    if report.region_latency.is_empty() {
        line("Nearest DERP", "unknown (no response to latency probes)");
        return text;
    }
    let nearest = if report.preferred_derp.is_zero() { "[none]".into() } else { name(report.preferred_derp) };
    line("Nearest DERP", &nearest);
    line("DERP latency", "");
    let mut by_latency: Vec<_> = report.region_latency.iter().collect();
    by_latency.sort_by_key(|(id, latency)| (**latency, **id));
    for (&id, &nanos) in by_latency {
        let latency = Duration::from_nanos(nanos.unsigned_abs());
        let latency = format!("{:.1}ms", latency.as_secs_f64() * 1e3);
        let code = region(id).map(|(_, region)| region.region_code.clone()).unwrap_or_default();
        let _ = writeln!(text, "\t\t- {code:>3}: {latency:<7} ({})", name(id));
    }
    for (id, region) in map.into_iter().flat_map(DerpMap::present) {
        if !report.region_latency.contains_key(&id) {
            let _ = writeln!(text, "\t\t- {:>3}: {:<7} ({})", region.region_code, "", region.region_name);
        }
    }
    text
}

/// What the router speaks, and what it granted.
fn port_mapping(report: &Netcheck) -> String {
    let Netcheck { upnp, pmp, pcp, .. } = report;
    if [upnp, pmp, pcp].iter().all(|offered| offered.is_none()) {
        return "not checked".into();
    }
    let offered = [("UPnP", upnp), ("NAT-PMP", pmp), ("PCP", pcp)];
    let names: Vec<_> =
        offered.iter().filter(|(_, offered)| **offered == Some(true)).map(|(name, _)| *name).collect();
    match report.port_mapped {
        Some(external) => format!("{} ({external})", names.join(", ")),
        None => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use types::RegionId;

    use super::*;

    #[test]
    fn the_lines_are_the_stock_commands() {
        let text = human(&Netcheck::default(), None);
        for line in [
            "* UDP: false\n",
            "* IPv4: (no addr found)\n",
            "* IPv6: no, unavailable in OS\n",
            "* MappingVariesByDestIP: unknown\n",
            "* PortMapping: not checked\n",
            "* Nearest DERP: unknown (no response to latency probes)\n",
        ] {
            assert!(text.contains(&format!("\t{line}")), "{line} in {text}");
        }
        let report = Netcheck {
            udp: true,
            ipv4: true,
            global_v4: Some("203.0.113.7:41641".parse().unwrap()),
            upnp: Some(true),
            pmp: Some(false),
            pcp: Some(true),
            port_mapped: Some("203.0.113.7:41641".parse().unwrap()),
            preferred_derp: RegionId(900),
            region_latency: [(RegionId(900), 1_540_000)].into(),
            ..Netcheck::default()
        };
        let text = human(&report, None);
        for line in [
            "\t* IPv4: yes, 203.0.113.7:41641\n",
            "\t* PortMapping: UPnP, PCP (203.0.113.7:41641)\n",
            "\t* Nearest DERP: region 900\n",
            "\t\t-    : 1.5ms   (region 900)\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
