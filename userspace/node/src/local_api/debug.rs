//! Looking inside: metrics, the netmap as it is, paths, the packet trace, a report for a bug.
//!
//! `underpass/...` are paths of our own, which no Tailscale client asks for.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde::Deserialize;
use types::NodePublic;
use wire::local::Status;

use super::VERSION;
use super::answer::{Json, Problem, TEXT};
use super::backend::Backend;
use super::bus::stream;
use super::request::Request;
use super::status::net_map;

/// What everybody may ask.
pub(super) fn reading() -> Router<Backend> {
    Router::new()
        .route("/usermetrics", get(metrics))
        .route("/bugreport", post(bug_report))
        .route("/debug-peer-relay-sessions", get(relay_sessions))
        .route("/underpass/netcheck", post(netcheck))
        .route("/underpass/paths", get(paths))
}

/// What only root and the operator may: it shows other people's traffic or the whole netmap.
pub(super) fn routes() -> Router<Backend> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/debug", post(debug_action))
        .route("/debug-packet-filter-rules", post(packet_filter_rules))
        .route("/underpass/trace", get(trace))
}

async fn metrics(State(backend): State<Backend>) -> impl IntoResponse {
    backend.ask(|reply| Request::Metrics { reply }).await.map(|text| ([TEXT], text))
}

async fn bug_report(State(backend): State<Backend>) -> impl IntoResponse {
    let status = backend.ask(|reply| Request::Status { peers: true, reply }).await?;
    Ok::<_, Problem>(([TEXT], report(&status)))
}

/// What helps whoever reads a bug report; no log leaves the machine.
fn report(status: &Status) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!("underpass {VERSION}, Linux {}\n", kernel.trim());
    let active = status.peer.values().filter(|peer| peer.active).count();
    let _ = writeln!(text, "state {}, {} peers, {active} active", status.backend_state, status.peer.len());
    if let Some(plane) = &status.data_plane {
        let _ = writeln!(text, "{} WireGuard on {} port {}", plane.wireguard, plane.device, plane.port);
        for drop in &plane.drops {
            let _ = writeln!(text, "dropped {} {}", drop.packets, drop.reason);
        }
    }
    for problem in &status.health {
        let _ = writeln!(text, "health: {problem}");
    }
    text
}

#[derive(Deserialize)]
struct ActionQuery {
    #[serde(default)]
    action: String,
}

async fn debug_action(State(backend): State<Backend>, Query(query): Query<ActionQuery>) -> impl IntoResponse {
    match query.action.as_str() {
        "current-netmap" => net_map(&backend).await.map(|map| Json(map).into_response()),
        "peer-relay-servers" => {
            let servers = backend.ask(|reply| Request::RelayServers { reply }).await;
            servers.map(|servers| Json(servers).into_response())
        }
        other => Err(Problem::bad_request(format!(
            "unknown debug action {other:?}; known: current-netmap, peer-relay-servers"
        ))),
    }
}

async fn relay_sessions(State(backend): State<Backend>) -> impl IntoResponse {
    backend.ask(|reply| Request::RelaySessions { reply }).await.map(Json)
}

async fn packet_filter_rules(State(backend): State<Backend>) -> impl IntoResponse {
    Ok::<_, Problem>(Json(net_map(&backend).await?.packet_filter_rules))
}

async fn netcheck(State(backend): State<Backend>) -> impl IntoResponse {
    backend.try_ask(|reply| Request::Netcheck { reply }).await.map(Json)
}

#[derive(Deserialize)]
struct PathsQuery {
    peer: Option<NodePublic>,
}

async fn paths(State(backend): State<Backend>, Query(query): Query<PathsQuery>) -> impl IntoResponse {
    backend.ask(|reply| Request::Paths { peer: query.peer, reply }).await.map(Json)
}

#[derive(Deserialize)]
struct TraceQuery {
    peer: Option<NodePublic>,
    #[serde(default)]
    drops: bool,
}

async fn trace(
    State(backend): State<Backend>,
    Query(query): Query<TraceQuery>,
) -> Result<impl IntoResponse, Problem> {
    let TraceQuery { peer, drops } = query;
    let mut trace = backend.try_ask(|reply| Request::Trace { peer, drops, reply }).await?;
    let (lines, response) = stream();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = lines.closed() => return,
                line = trace.recv() => match line {
                    Some(line) => lines.send(&line).await,
                    None => return,
                },
            }
        }
    });
    Ok(response)
}
