//! Our own addresses, as others see the relay's port: by STUN from that port, and what follows for what is announced.
//!
//! Pure but for the shape of a DERP map. Deliberately not here: sockets (`server`), the WireGuard port's own addresses
//! (`node-core`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use types::RegionId;
use wire::control::DerpMap;
use wire::stun::{TxId, decode_response, encode_request};

use super::Surroundings;

/// STUN servers asked: two tell a NAT that maps by destination.
const SERVERS: usize = 4;
/// How long an answer counts.
const LIFETIME: Duration = Duration::from_secs(90);
/// Requests whose answer is still waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const STUN_PORT: u16 = 3478;

/// The STUN servers to ask: the home region's first.
pub(crate) fn stun_servers(map: &DerpMap, home: Option<RegionId>) -> Vec<(String, u16)> {
    let mut regions: Vec<_> = map.present().collect();
    regions.sort_by_key(|(id, _)| (Some(*id) != home, *id));
    let nodes = regions.into_iter().flat_map(|(_, region)| region.nodes.iter());
    let servers = nodes.flat_map(|node| {
        let port = match node.stun_port {
            0 => Some(STUN_PORT),
            port => u16::try_from(port).ok(),
        };
        // Both families, where the map knows them; else the name.
        let known = [&node.ipv4, &node.ipv6].map(|ip| ip.parse::<IpAddr>().ok().map(|ip| ip.to_string()));
        let mut hosts: Vec<String> = known.into_iter().flatten().collect();
        if hosts.is_empty() {
            hosts.push(node.host_name.clone());
        }
        hosts.into_iter().filter_map(move |host| Some((host, port?)))
    });
    servers.take(SERVERS).collect()
}

/// What STUN has told of the relay's port.
#[derive(Debug, Default)]
pub(super) struct Outside {
    asked: BTreeMap<[u8; 12], (SocketAddr, Instant)>,
    /// By server: how we look from there.
    seen: BTreeMap<SocketAddr, (SocketAddr, Instant)>,
}

impl Outside {
    /// A request for a server.
    pub(super) fn ask(&mut self, server: SocketAddr, tx_id: [u8; 12], now: Instant) -> Vec<u8> {
        self.asked.retain(|_, (_, at)| now < *at + PATIENCE);
        self.asked.insert(tx_id, (server, now));
        encode_request(TxId(tx_id)).to_vec()
    }

    /// A packet from `from`; whether it was an answer to a request of ours that tells something new.
    pub(super) fn handle(&mut self, packet: &[u8], now: Instant) -> bool {
        let Ok((tx_id, seen)) = decode_response(packet) else { return false };
        let Some((server, at)) = self.asked.remove(&tx_id.0) else { return false };
        if now >= at + PATIENCE {
            return false;
        }
        self.seen.insert(server, (seen, now)).is_none_or(|(before, _)| before != seen)
    }

    /// Every address at which the relay on `port` may be reached, the user's own first.
    pub(super) fn announce(
        &mut self,
        surroundings: &Surroundings,
        port: u16,
        now: Instant,
    ) -> Vec<SocketAddr> {
        self.seen.retain(|_, (_, at)| now < *at + LIFETIME);
        let mut all = surroundings.fixed.clone();
        let local = surroundings.local.iter().filter(|ip| may_be_reached(**ip));
        all.extend(local.map(|ip| SocketAddr::new(*ip, port)));
        let outside: Vec<SocketAddr> = self.seen.values().map(|(seen, _)| *seen).collect();
        all.extend(&outside);
        let v4: Vec<_> = outside.iter().filter(|addr| addr.is_ipv4()).collect();
        if let [first, rest @ ..] = &v4[..]
            && rest.iter().any(|other| other != first)
        {
            // A NAT that maps by destination: whoever runs a relay behind one has forwarded this very port.
            all.push(SocketAddr::new(first.ip(), port));
        }
        let mut known = Vec::new();
        all.retain(|addr| {
            let new = !known.contains(addr);
            known.push(*addr);
            new
        });
        all
    }
}

/// Whether others may reach an address of ours at all.
fn may_be_reached(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || link_local
        || types::overlay::contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_the_users_then_ours_then_what_stun_saw() {
        let now = Instant::now();
        let surroundings = Surroundings {
            fixed: vec![addr("203.0.113.9:7777")],
            local: ["127.0.0.1", "192.168.1.2", "fe80::1", "100.64.0.1", "2001:db8::2"]
                .map(|ip| ip.parse().unwrap())
                .to_vec(),
            stun: Vec::new(),
        };
        let mut outside = Outside::default();
        let answer = |outside: &mut Outside, server: &str, tag, seen: &str| {
            outside.ask(addr(server), [tag; 12], now);
            let packet = wire::stun::encode_response(TxId([tag; 12]), addr(seen));
            (outside.handle(&packet, now), outside.handle(&packet, now))
        };
        assert_eq!(answer(&mut outside, "198.51.100.1:3478", 1, "203.0.113.1:5000"), (true, false));
        let texts = |outside: &mut Outside, at| {
            let all = outside.announce(&surroundings, 7777, at);
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let ours = "203.0.113.9:7777 192.168.1.2:7777 [2001:db8::2]:7777";
        assert_eq!(texts(&mut outside, now), format!("{ours} 203.0.113.1:5000"));
        assert_eq!(answer(&mut outside, "198.51.100.2:3478", 2, "203.0.113.1:5001"), (true, false));
        let hard = format!("{ours} 203.0.113.1:5000 203.0.113.1:5001 203.0.113.1:7777");
        assert_eq!(texts(&mut outside, now), hard);
        assert_eq!(texts(&mut outside, now + LIFETIME), ours);
    }

    #[test]
    fn forged_and_late_answers_tell_nothing() {
        let now = Instant::now();
        let mut outside = Outside::default();
        let packet = wire::stun::encode_response(TxId([1; 12]), addr("203.0.113.1:5000"));
        assert!(!outside.handle(&packet, now));
        outside.ask(addr("198.51.100.1:3478"), [1; 12], now);
        assert!(!outside.handle(b"nonsense", now));
        assert!(!outside.handle(&packet, now + PATIENCE));
    }

    #[test]
    fn the_home_regions_servers_are_asked_first() {
        let map: DerpMap = serde_json::from_str(
            r#"{"Regions":{
                "1":{"RegionID":1,"Nodes":[{"Name":"1a","HostName":"far","IPv4":"198.51.100.1","IPv6":"none"}]},
                "2":{"RegionID":2,"Nodes":[
                    {"Name":"2a","HostName":"near","IPv4":"198.51.100.2","IPv6":"2001:db8::2","STUNPort":4000},
                    {"Name":"2b","HostName":"named"},{"Name":"2c","HostName":"none","STUNPort":-1}]}}}"#,
        )
        .unwrap();
        let servers = stun_servers(&map, Some(RegionId(2)));
        let wanted = [("198.51.100.2", 4000), ("2001:db8::2", 4000), ("named", 3478), ("198.51.100.1", 3478)];
        assert_eq!(servers, wanted.map(|(host, port)| (host.to_owned(), port)));
    }
}
