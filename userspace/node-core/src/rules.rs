//! Rules: the wire's packet filter rules resolved to prefixes (tailscale `wgengine/filter/tailcfg.go`).
//!
//! What cannot be understood lets nothing in and is named. Capability sources (`cap:x`) become the addresses of the peers
//! that have it; jailed peers are cut out of every source. Deliberately not here: capability grants, which open nothing.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use types::overlay::EXIT_ROUTES;
use wire::control::{FilterRule, Node};

use crate::filter::{Destination, Rule};

/// TCP, UDP, ICMP, ICMPv6: what a rule without protocols means.
const DEFAULT_PROTOCOLS: [u8; 4] = [6, 17, 1, 58];

/// The filter's rules, and what could not be understood.
pub(crate) fn resolve<'a>(
    rules: impl Iterator<Item = &'a FilterRule>,
    peers: &[&Node],
    lost: &mut Vec<String>,
) -> Vec<Rule> {
    let jailed: Vec<IpNet> =
        peers.iter().filter(|peer| peer.is_jailed).flat_map(|peer| peer.allowed()).copied().collect();
    rules.filter_map(|rule| resolve_one(rule, peers, &jailed, lost)).collect()
}

fn resolve_one(rule: &FilterRule, peers: &[&Node], jailed: &[IpNet], lost: &mut Vec<String>) -> Option<Rule> {
    if !rule.src_bits.is_empty() || rule.dst_ports.iter().any(|dst| dst.bits.is_some()) {
        lost.push("packet filter rule in the form before version 7".into());
        return None;
    }
    let mut keep = |result: Result<Vec<IpNet>, String>| {
        result.unwrap_or_else(|why| {
            lost.push(format!("packet filter: {why}"));
            Vec::new()
        })
    };
    let mut sources: Vec<IpNet> = Vec::new();
    for text in &rule.src_ips {
        sources.extend(match text.strip_prefix("cap:") {
            Some(cap) => with_cap(peers, cap),
            None => keep(parse(text)),
        });
    }
    for hole in jailed {
        sources = sources.into_iter().flat_map(|net| without(net, *hole)).collect();
    }
    let destinations: Vec<Destination> = rule
        .dst_ports
        .iter()
        .flat_map(|dst| {
            let ports = dst.ports.first..=dst.ports.last;
            keep(parse(&dst.ip)).into_iter().map(move |net| Destination { net, ports: ports.clone() })
        })
        .filter(|destination| !destination.ports.is_empty())
        .collect();
    let protocols = if rule.ip_proto.is_empty() {
        DEFAULT_PROTOCOLS.to_vec()
    } else {
        rule.ip_proto.iter().filter_map(|number| u8::try_from(*number).ok()).collect()
    };
    let empty = protocols.is_empty() || sources.is_empty() || destinations.is_empty();
    (!empty).then_some(Rule { protocols, sources, destinations })
}

fn with_cap(peers: &[&Node], cap: &str) -> Vec<IpNet> {
    peers.iter().filter(|peer| peer.has_cap(cap)).flat_map(|peer| peer.addresses.iter().copied()).collect()
}

/// `*`, a prefix, a range `a-b` or an address.
pub(crate) fn parse(text: &str) -> Result<Vec<IpNet>, String> {
    let bad = || format!("{text:?} is no address, prefix or range");
    let addr = |text: &str| text.parse::<IpAddr>().map_err(|_| bad());
    if text == "*" {
        return Ok(EXIT_ROUTES.to_vec());
    }
    if text.contains('/') {
        let net: IpNet = text.parse().map_err(|_| bad())?;
        return if net == net.trunc() { Ok(vec![net]) } else { Err(format!("{text:?} has host bits")) };
    }
    let Some((first, last)) = text.split_once('-') else { return Ok(vec![IpNet::from(addr(text)?)]) };
    match (addr(first)?, addr(last)?) {
        (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => Ok(Ipv4Subnets::new(a, b, 0).map(IpNet::V4).collect()),
        (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => Ok(Ipv6Subnets::new(a, b, 0).map(IpNet::V6).collect()),
        _ => Err(bad()),
    }
}

/// What is left of `net` when `hole` is cut out.
fn without(net: IpNet, hole: IpNet) -> Vec<IpNet> {
    if hole.contains(&net) {
        return Vec::new();
    }
    if !net.contains(&hole) {
        return vec![net];
    }
    let halves: Vec<IpNet> = net.subnets(net.prefix_len() + 1).map(Iterator::collect).unwrap_or_default();
    halves.into_iter().flat_map(|half| without(half, hole)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(rule: &str, peers: &str) -> (Vec<Rule>, usize) {
        let rule: FilterRule = serde_json::from_str(rule).unwrap();
        let peers: Vec<Node> = serde_json::from_str(peers).unwrap();
        let mut lost = Vec::new();
        let rules = resolve([rule].iter(), &peers.iter().collect::<Vec<_>>(), &mut lost);
        (rules, lost.len())
    }

    fn sources(src: &str, peers: &str) -> Vec<String> {
        let rule =
            format!(r#"{{"SrcIPs":[{src}],"DstPorts":[{{"IP":"*","Ports":{{"First":0,"Last":65535}}}}]}}"#);
        let (rules, _) = resolved(&rule, peers);
        rules.first().map(|rule| rule.sources.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn every_form_of_a_source_becomes_prefixes() {
        assert_eq!(sources(r#""*""#, "[]"), ["0.0.0.0/0", "::/0"]);
        assert_eq!(sources(r#""100.64.0.1","fd7a::/64""#, "[]"), ["100.64.0.1/32", "fd7a::/64"]);
        assert_eq!(sources(r#""10.0.0.1-10.0.0.4""#, "[]"), ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"]);
        let peers = r#"[{"ID":1,"Addresses":["100.64.0.1/32"],"CapMap":{"x":[]}},
                        {"ID":2,"Addresses":["100.64.0.2/32"]}]"#;
        assert_eq!(sources(r#""cap:x""#, peers), ["100.64.0.1/32"]);
    }

    #[test]
    fn what_is_not_understood_lets_nothing_in() {
        for src in [r#""10.0.0.1/8""#, r#""10.0.0.2-10.0.0.1""#, r#""10.0.0.1-::1""#, r#""everybody""#, ""] {
            assert!(sources(src, "[]").is_empty(), "{src}");
        }
        let old =
            r#"{"SrcIPs":["10.0.0.0"],"SrcBits":[8],"DstPorts":[{"IP":"*","Ports":{"First":0,"Last":9}}]}"#;
        assert_eq!(resolved(old, "[]"), (Vec::new(), 1));
    }

    #[test]
    fn protocols_default_and_nonsense_is_dropped() {
        let rule = |protocols: &str| {
            let text = format!(
                r#"{{"SrcIPs":["*"],"IPProto":{protocols},"DstPorts":[{{"IP":"100.64.0.1","Ports":{{"First":80,"Last":81}}}}]}}"#
            );
            resolved(&text, "[]").0
        };
        assert_eq!(rule("[]")[0].protocols, [6, 17, 1, 58]);
        assert_eq!(rule("[99,300,-1]")[0].protocols, [99]);
        assert!(rule("[300]").is_empty());
        let destination = Destination { net: "100.64.0.1/32".parse().unwrap(), ports: 80..=81 };
        assert_eq!(rule("[]")[0].destinations, [destination]);
    }

    #[test]
    fn a_jailed_peer_is_no_source() {
        let peers = r#"[{"ID":1,"Addresses":["100.64.0.1/32"],"IsJailed":true}]"#;
        assert_eq!(sources(r#""100.64.0.0/30""#, peers), ["100.64.0.0/32", "100.64.0.2/31"]);
        assert!(sources(r#""100.64.0.1""#, peers).is_empty());
    }

    #[test]
    fn a_grant_alone_opens_nothing() {
        let grant = r#"{"SrcIPs":["*"],"CapGrant":[{"Dsts":["100.64.0.1/32"],"CapMap":{"x":[]}}]}"#;
        assert_eq!(resolved(grant, "[]"), (Vec::new(), 0));
    }
}
