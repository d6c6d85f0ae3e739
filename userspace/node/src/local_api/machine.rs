//! Questions about the machine the node runs on, and features the stock command asks for that are the same for every
//! node of ours.

use std::fs;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;
use wire::control::ClientVersion;
use wire::local::{ExitNodeSuggestion, WarningResponse};

use super::answer::{Json, Problem};
use super::backend::Backend;
use super::request::Request;

pub(super) fn routes() -> Router<Backend> {
    Router::new()
        .route("/check-ip-forwarding", get(check_ip_forwarding))
        .route("/check-udp-gro-forwarding", get(check_udp_gro_forwarding))
        .route("/check-so-mark-in-use", get(|| async { Json(json!({ "UseSOMark": true })) }))
        .route("/update/check", get(update_check))
        .route("/suggest-exit-node", get(suggest_exit_node).post(suggest_exit_node))
        .route("/services", get(|| async { Json(json!({})) }))
        .route("/serve-config", get(|| async { Json(json!(null)) }))
}

/// What only root and the operator may ask: which names the machine looks for.
pub(super) fn private_routes() -> Router<Backend> {
    Router::new().route("/dns-osconfig", get(dns_os_config))
}

/// The machine's own resolver, which we leave alone.
async fn dns_os_config() -> Json<serde_json::Value> {
    Json(resolver(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()))
}

/// `resolv.conf(5)` as `apitype.DNSOSConfig`. The last `search` line wins, as in the C library.
fn resolver(text: &str) -> serde_json::Value {
    let (mut nameservers, mut search): (Vec<&str>, Vec<&str>) = Default::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => nameservers.extend(words.next()),
            Some("search") => search = words.collect(),
            _ => {}
        }
    }
    json!({ "Nameservers": nameservers, "SearchDomains": search, "MatchDomains": [] })
}

/// Whether the kernel would forward what the advertised routes promise.
async fn check_ip_forwarding(State(backend): State<Backend>) -> impl IntoResponse {
    let prefs = backend.ask(|reply| Request::Prefs { reply }).await?;
    let v6 = prefs.advertise_routes.iter().any(|route| route.addr().is_ipv6());
    let read = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    let warning = forwarding_warning(
        read("/proc/sys/net/ipv4/ip_forward"),
        read("/proc/sys/net/ipv6/conf/all/forwarding"),
        v6,
    );
    Ok::<_, Problem>(Json(WarningResponse { warning }))
}

fn forwarding_warning(v4_on: bool, v6_on: bool, wants_v6: bool) -> String {
    let off = match (v4_on, v6_on || !wants_v6) {
        (true, true) => return String::new(),
        (false, true) => "IPv4 forwarding is disabled; run: sysctl -w net.ipv4.ip_forward=1",
        (true, false) => "IPv6 forwarding is disabled; run: sysctl -w net.ipv6.conf.all.forwarding=1",
        (false, false) => {
            "IP forwarding is disabled; run: sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
        }
    };
    format!("{off} (subnet routes and exit nodes do not work without it)")
}

/// Nothing to warn of: our packets never pass through a userspace UDP socket.
async fn check_udp_gro_forwarding() -> Json<WarningResponse> {
    Json(WarningResponse::default())
}

/// We have no source of newer versions, so the newest we know is our own.
async fn update_check() -> Json<ClientVersion> {
    Json(ClientVersion { running_latest: true, ..ClientVersion::default() })
}

/// None: exit nodes are not measured here.
async fn suggest_exit_node() -> Json<ExitNodeSuggestion> {
    Json(ExitNodeSuggestion::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_is_what_the_c_library_reads() {
        let text = "# a comment\nsearch old.test\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch a.test b.test\n";
        let found = resolver(text);
        assert_eq!(found["Nameservers"], json!(["192.0.2.53", "2001:db8::53"]));
        assert_eq!(found["SearchDomains"], json!(["a.test", "b.test"]));
    }

    #[test]
    fn only_the_families_that_are_advertised_are_warned_of() {
        assert_eq!(forwarding_warning(true, false, false), "");
        assert_eq!(forwarding_warning(true, true, true), "");
        assert!(forwarding_warning(true, false, true).starts_with("IPv6 forwarding is disabled"));
        assert!(forwarding_warning(false, true, true).starts_with("IPv4 forwarding is disabled"));
        assert!(forwarding_warning(false, false, true).contains("all.forwarding=1"));
    }
}
