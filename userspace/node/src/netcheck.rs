//! `netcheck` on request: measures anew, asks for a captive portal beside it, and answers when both are done.
//!
//! Deliberately not here: STUN and its timing (`node-core`), the router (`portmap`), how it is printed (`cli`).

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, header};
use jiff::Timestamp;
use tokio::time::timeout;
use transport::dial::Dialer;
use transport::upgrade;
use wire::control::{DerpMap, DerpNode, Time};
use wire::local::Netcheck as Answer;

use crate::daemon::Daemon;
use crate::event_loop::Input;
use crate::local_api::{Refusal, Reply};
use crate::random;
use crate::sockets::BYPASS_MARK;

/// For the question about a portal, as Tailscale's.
const PORTAL_TIMEOUT: Duration = Duration::from_secs(2);
const CHALLENGE: &str = "x-tailscale-challenge";
const CHALLENGE_RESPONSE: &str = "x-tailscale-response";
const MAX_ANSWER: usize = 16 << 10;

/// Who waits for a netcheck, and what is known so far.
#[derive(Default)]
pub(crate) struct Netcheck {
    waiting: Vec<Reply<Result<Answer, Refusal>>>,
    measured: bool,
    /// Outer `None`: still asked.
    portal: Option<Option<bool>>,
}

impl Daemon {
    /// Somebody wants to know.
    pub(crate) fn begin_netcheck(&mut self, reply: Reply<Result<Answer, Refusal>>, now: Instant) {
        if self.node.self_node().is_none() {
            let why = "no DERP map yet: join a network with `underpass up` first".to_owned();
            _ = reply.send(Err(Refusal::NotNow(why)));
            return;
        }
        self.netcheck.waiting.push(reply);
        if self.netcheck.waiting.len() > 1 {
            return;
        }
        self.netcheck.measured = !self.node.measure(now);
        self.netcheck.portal = None;
        let (map, inputs) = (self.node.derp_map().clone(), self.inputs.clone());
        tokio::spawn(async move {
            let found = timeout(PORTAL_TIMEOUT, captive_portal(&map)).await.unwrap_or_default();
            // A loop that has ended needs no answer.
            _ = inputs.send(Input::Portal(found)).await;
        });
    }

    /// STUN is done.
    pub(crate) fn netcheck_ended(&mut self) {
        self.netcheck.measured = true;
        self.answer_netcheck();
    }

    /// A portal was looked for.
    pub(crate) fn on_portal(&mut self, found: Option<bool>) {
        self.netcheck.portal = Some(found);
        self.answer_netcheck();
    }

    fn answer_netcheck(&mut self) {
        let (true, Some(portal)) = (self.netcheck.measured, self.netcheck.portal) else { return };
        let answer = self.netcheck_answer(portal);
        for reply in self.netcheck.waiting.drain(..) {
            // Who asked may be gone.
            _ = reply.send(Ok(answer.clone()));
        }
    }

    fn netcheck_answer(&self, captive_portal: Option<bool>) -> Answer {
        let info = self.node.net_info();
        let report = self.node.report();
        let nanos = |wait: &Duration| i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX);
        let latency = |of: &std::collections::BTreeMap<_, Duration>| {
            of.iter().map(|(region, latency)| (*region, nanos(latency))).collect()
        };
        let seen = |is_v4: bool| {
            let of_family = report.seen.iter().filter(|(addr, _)| addr.is_ipv4() == is_v4);
            of_family.map(|(addr, count)| (*addr, *count)).collect()
        };
        Answer {
            now: Time::from(Timestamp::now()),
            udp: info.working_udp == Some(true),
            ipv4: !report.latency_v4.is_empty(),
            ipv6: !report.latency_v6.is_empty(),
            ipv4_can_send: self.has_address(SocketAddr::is_ipv4),
            ipv6_can_send: self.has_address(SocketAddr::is_ipv6),
            os_has_ipv6: Path::new("/proc/net/if_inet6").exists(),
            mapping_varies_by_dest_ip: info.mapping_varies_by_dest_ip,
            upnp: info.upnp,
            pmp: info.pmp,
            pcp: info.pcp,
            port_mapped: self.node.port_mapping().external,
            preferred_derp: info.preferred_derp,
            region_latency: latency(&self.node.region_latencies()),
            region_v4_latency: latency(&report.latency_v4),
            region_v6_latency: latency(&report.latency_v6),
            global_v4_counters: seen(true),
            global_v6_counters: seen(false),
            global_v4: report.global_v4,
            global_v6: report.global_v6,
            captive_portal,
            firewall_mode: info.firewall_mode.clone(),
            ..Answer::default()
        }
    }

    fn has_address(&self, of_family: fn(&SocketAddr) -> bool) -> bool {
        self.node.endpoints().iter().any(|endpoint| of_family(&endpoint.addr))
    }
}

/// Asks relay servers by HTTP for nothing at all: whoever answers with something else stands between (tailscale
/// `net/captivedetection`). `None` when no server could be asked.
async fn captive_portal(map: &DerpMap) -> Option<bool> {
    let nodes = map.present().flat_map(|(_, region)| &region.nodes);
    for node in nodes.filter(|node| node.can_port_80 && !node.stun_only) {
        if let Some(found) = is_captive(node).await {
            return Some(found);
        }
    }
    None
}

/// Whether the way to this server's port 80 is a portal's.
async fn is_captive(node: &DerpNode) -> Option<bool> {
    let dialer = Dialer { mark: Some(BYPASS_MARK), deadline: PORTAL_TIMEOUT };
    let host = if node.ipv4.parse::<std::net::IpAddr>().is_ok() { &node.ipv4 } else { &node.host_name };
    let stream = dialer.tcp(host, 80).await.ok()?;
    // A portal cannot know the answer to a question it has never seen.
    let challenge = format!("ts_{:02x}{:02x}", random()[0], random()[1]);
    let request = Request::builder()
        .method(Method::GET)
        .uri("/generate_204")
        .header(header::HOST, &node.host_name)
        .header(CHALLENGE, &challenge)
        .body(Full::<Bytes>::default())
        .ok()?;
    let answer = upgrade::send(stream, request, MAX_ANSWER).await.ok()?;
    Some(!is_honest(&answer, &challenge))
}

fn is_honest(answer: &Response<Bytes>, challenge: &str) -> bool {
    let expected = format!("response {challenge}");
    answer.status() == StatusCode::NO_CONTENT
        && answer.headers().get(CHALLENGE_RESPONSE).is_some_and(|value| value == expected.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_answer_is_honest() {
        let answer = |status: StatusCode, response: &str| {
            Response::builder()
                .status(status)
                .header(CHALLENGE_RESPONSE, response)
                .body(Bytes::new())
                .unwrap()
        };
        assert!(is_honest(&answer(StatusCode::NO_CONTENT, "response ts_00"), "ts_00"));
        assert!(!is_honest(&answer(StatusCode::NO_CONTENT, "response ts_01"), "ts_00"));
        assert!(!is_honest(&answer(StatusCode::OK, "response ts_00"), "ts_00"));
    }
}
