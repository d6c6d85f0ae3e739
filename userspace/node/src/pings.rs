//! Pings that somebody asked for: of the path (DISCO), of the peer's system (ICMP), of its node software (TSMP).
//!
//! Deliberately not here: the pings that keep paths alive (`node-core`), raw sockets (`sockets::tunnel`).

use std::net::IpAddr;
use std::time::Instant;

use node_core::{PingError, PingId, Pong, Via};
use wire::control::Node as WireNode;
use wire::local::{PingResult, PingType};

use crate::daemon::Daemon;
use crate::local_api::Reply;
use crate::sockets::tunnel;
use crate::{answers, random};

impl Daemon {
    /// Pings whoever has `ip`, or serves the subnet it lies in.
    pub(crate) fn ping(
        &mut self,
        ip: IpAddr,
        kind: PingType,
        size: usize,
        reply: Reply<PingResult>,
        now: Instant,
    ) {
        let mut result = PingResult { ip: ip.to_string(), ..PingResult::default() };
        let own = self.node.self_node().is_some_and(|own| has_address(own, ip));
        let peer = self.node.whois(ip).map(|whois| whois.node).filter(|_| !own);
        let Some(peer) = peer else {
            result.is_local_ip = own;
            result.err = if own { format!("{ip} is local Tailscale IP") } else { "no matching peer".into() };
            _ = reply.send(result);
            return;
        };
        let node_ip =
            if has_address(peer, ip) { Some(ip) } else { peer.addresses.first().map(ipnet::IpNet::addr) };
        result.node_ip = node_ip.map(|ip| ip.to_string()).unwrap_or_default();
        result.node_name = peer.name.split('.').next().unwrap_or_default().to_owned();
        let key = peer.key;
        match kind {
            PingType::Disco => {
                let id = self.node.ping(key, size, now);
                self.pings.insert(id, (result, reply));
            }
            PingType::Icmp | PingType::Tsmp => self.ping_in_tunnel(kind, ip, result, reply),
            PingType::PeerApi => {
                result.err = "this node does not use peers' PeerAPI; try --icmp or a plain ping".into();
                _ = reply.send(result);
            }
        }
    }

    fn ping_in_tunnel(&self, kind: PingType, ip: IpAddr, mut result: PingResult, reply: Reply<PingResult>) {
        let device = self.config.device.clone();
        let [a, b, c, d, e, f, g, h, ..] = random();
        let token = [a, b, c, d, e, f, g, h];
        tokio::spawn(async move {
            let answer = match kind {
                PingType::Tsmp => tunnel::tsmp_ping(&device, ip, token).await,
                _ => tunnel::icmp_ping(&device, ip, token).await,
            };
            match answer {
                Ok(latency) => result.latency_seconds = latency.as_secs_f64(),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => result.err = "no reply".into(),
                Err(error) => result.err = error.to_string(),
            }
            _ = reply.send(result);
        });
    }

    /// A DISCO ping has ended.
    pub(crate) fn finish_ping(&mut self, id: PingId, result: Result<Pong, PingError>) {
        let Some((mut answer, reply)) = self.pings.remove(&id) else { return };
        match result {
            Ok(Pong { latency, via }) => {
                answer.latency_seconds = latency.as_secs_f64();
                match via {
                    Via::Udp(path) if path.is_direct() => answer.endpoint = path.to_string(),
                    Via::Udp(path) => answer.peer_relay = path.to_string(),
                    Via::Derp(region) => {
                        answer.derp_region_id = region;
                        answer.derp_region_code = answers::region_code(self.node.derp_map(), region);
                    }
                }
            }
            Err(error) => answer.err = error.to_string(),
        }
        _ = reply.send(answer);
    }
}

fn has_address(node: &WireNode, ip: IpAddr) -> bool {
    node.addresses.iter().any(|net| net.addr() == ip)
}
