//! Questions about the network: status, whois, ping, the netmap's parts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Router, response::IntoResponse};
use serde::Deserialize;
use types::{NodeId, UserId};
use wire::local::{NetworkMap, PingResult, PingType};

use super::answer::{Json, Problem};
use super::backend::Backend;
use super::request::{Request, Whom};

/// The longest disco ping that fits a UDP datagram on a network of Ethernet's MTU (`magicsock.MaxDiscoPingSize`).
const MAX_PING_SIZE: usize = 1500 - 20 - 8;

type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn routes() -> Router<Backend> {
    Router::new()
        .route("/status", get(status))
        .route("/whois", get(who_is))
        .route("/ping", post(ping))
        .route("/derpmap", get(derp_map))
        .route("/dns-config", get(dns_config))
        .route("/cert-domains", get(cert_domains))
        .route("/peer-by-id", get(peer_by_id))
        .route("/user-profile", get(user_profile))
}

#[derive(Deserialize)]
struct StatusQuery {
    peers: Option<String>,
}

async fn status(State(backend): State<Backend>, Query(query): Query<StatusQuery>) -> impl IntoResponse {
    let peers = !matches!(query.peers.as_deref(), Some("false" | "0" | "f" | "F" | "FALSE" | "False"));
    backend.ask(|reply| Request::Status { peers, reply }).await.map(Json)
}

#[derive(Deserialize)]
struct WhoIsQuery {
    addr: Option<String>,
}

async fn who_is(State(backend): State<Backend>, Query(query): Query<WhoIsQuery>) -> impl IntoResponse {
    let text = query.addr.ok_or_else(|| Problem::bad_request("missing 'addr' parameter"))?;
    let whom = parse_whom(&text).ok_or_else(|| Problem::bad_request("invalid 'addr' parameter"))?;
    let found = backend.ask(|reply| Request::WhoIs { whom, reply }).await?;
    found.map(Json).ok_or_else(|| Problem::text(StatusCode::NOT_FOUND, "no match for IP:port"))
}

/// `nodekey:...`, an address, or an address and port.
fn parse_whom(text: &str) -> Option<Whom> {
    if text.starts_with(types::NodePublic::PREFIX) {
        return text.parse().ok().map(Whom::Key);
    }
    let addr = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|addr| addr.ip()));
    addr.ok().map(|addr| Whom::Addr(addr.to_canonical()))
}

#[derive(Deserialize)]
struct PingQuery {
    ip: Option<String>,
    r#type: Option<String>,
    size: Option<String>,
}

async fn ping(State(backend): State<Backend>, Query(query): Query<PingQuery>) -> Answer<PingResult> {
    let ip = query.ip.filter(|ip| !ip.is_empty()).ok_or_else(|| missing("ip"))?;
    let ip = ip.parse().map_err(|_| Problem::bad_request("invalid IP"))?;
    let kind = query.r#type.filter(|kind| !kind.is_empty()).ok_or_else(|| missing("type"))?;
    let kind: PingType = kind.parse().map_err(|error| Problem::bad_request(format!("{error}")))?;
    let size = match query.size.as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse().map_err(|_| Problem::bad_request("invalid 'size' parameter"))?,
    };
    if size != 0 && kind != PingType::Disco {
        return Err(Problem::bad_request("'size' parameter is only supported with disco pings"));
    }
    if size > MAX_PING_SIZE {
        return Err(Problem::bad_request(format!("maximum value for 'size' is {MAX_PING_SIZE}")));
    }
    backend.ask(|reply| Request::Ping { ip, kind, size, reply }).await.map(Json)
}

fn missing(parameter: &str) -> Problem {
    Problem::bad_request(format!("missing '{parameter}' parameter"))
}

async fn derp_map(State(backend): State<Backend>) -> impl IntoResponse {
    backend.ask(|reply| Request::DerpMap { reply }).await.map(Json)
}

/// The netmap, or 503 before the first one.
pub(super) async fn net_map(backend: &Backend) -> Result<Box<NetworkMap>, Problem> {
    backend.ask(|reply| Request::NetMap { reply }).await?.ok_or_else(Problem::no_netmap)
}

async fn dns_config(State(backend): State<Backend>) -> impl IntoResponse {
    Ok::<_, Problem>(Json(net_map(&backend).await?.dns))
}

async fn cert_domains(State(backend): State<Backend>) -> impl IntoResponse {
    let map = backend.ask(|reply| Request::NetMap { reply }).await?;
    let mut domains = map.map(|map| map.dns.cert_domains).unwrap_or_default();
    domains.sort();
    Ok::<_, Problem>(Json(domains))
}

#[derive(Deserialize)]
struct IdQuery {
    #[serde(default)]
    id: i64,
}

impl IdQuery {
    fn checked(self) -> Result<i64, Problem> {
        if self.id > 0 { Ok(self.id) } else { Err(Problem::bad_request("invalid 'id' parameter")) }
    }
}

async fn peer_by_id(State(backend): State<Backend>, Query(query): Query<IdQuery>) -> impl IntoResponse {
    let id = NodeId(query.checked()?);
    let peers = net_map(&backend).await?.peers;
    let peer = peers.into_iter().find(|peer| peer.id == id);
    peer.map(Json).ok_or_else(|| Problem::text(StatusCode::NOT_FOUND, "no peer with that NodeID"))
}

async fn user_profile(State(backend): State<Backend>, Query(query): Query<IdQuery>) -> impl IntoResponse {
    let id = UserId(query.checked()?);
    let mut profiles: BTreeMap<_, _> = net_map(&backend).await?.user_profiles;
    profiles
        .remove(&id)
        .map(Json)
        .ok_or_else(|| Problem::text(StatusCode::NOT_FOUND, "no user with that UserID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_is_a_key_an_address_or_an_address_with_a_port() {
        let key = types::NodePublic::from_bytes([7; 32]);
        let addr = |text: &str| Some(Whom::Addr(text.parse().unwrap()));
        assert_eq!(parse_whom(&key.to_string()), Some(Whom::Key(key)));
        assert_eq!(parse_whom("100.64.0.1"), addr("100.64.0.1"));
        assert_eq!(parse_whom("100.64.0.1:22"), addr("100.64.0.1"));
        assert_eq!(parse_whom("[fd7a:115c:a1e0::1]:22"), addr("fd7a:115c:a1e0::1"));
        assert_eq!(parse_whom("::ffff:100.64.0.1"), addr("100.64.0.1"));
        assert_eq!(parse_whom("gw"), None);
        assert_eq!(parse_whom("nodekey:12"), None);
    }
}
