//! What anybody may ask, outside of Noise.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::net::lookup_host;
use wire::control::{DerpAdmitClientRequest, DerpAdmitClientResponse, OverTlsPublicKeyResponse};
use wire::ts2021::PATH as TS2021;

use super::{AnyBody, MAX_BODY, Site, read_json, text, ts2021, typed, whole};
use crate::coordinator::Input;

pub(super) async fn answer(
    site: &std::sync::Arc<Site>,
    request: Request<Incoming>,
    source: SocketAddr,
) -> Response<AnyBody> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/key") => super::json(StatusCode::OK, &server_key(site)),
        (_, TS2021) => ts2021::upgrade(site, request),
        (&Method::GET | &Method::HEAD, "/health") => health(site).await,
        (&Method::POST, "/verify") => verify(site, request).await,
        (&Method::GET, "/bootstrap-dns") => {
            super::json(StatusCode::OK, &bootstrap_dns(site, request.uri().query()).await)
        }
        (&Method::GET | &Method::HEAD, "/") => text(StatusCode::OK, front(site)),
        (&Method::GET, path) if path.starts_with("/register/") => register_page(path),
        _ => match site.relay.handle_http(request, source) {
            Some(response) => response.map(whole),
            None => text(StatusCode::NOT_FOUND, "not found\n"),
        },
    }
}

fn front(site: &Site) -> String {
    format!("Underpass coordination server. To join: underpass up --login-server {}\n", site.url.text())
}

/// The key that clients open Noise with; there is no protocol before Noise here, so no legacy key.
fn server_key(site: &Site) -> OverTlsPublicKeyResponse {
    OverTlsPublicKeyResponse { public_key: site.noise_key.public(), ..OverTlsPublicKeyResponse::default() }
}

async fn health(site: &Site) -> Response<AnyBody> {
    let nobody = types::NodePublic::default();
    match site.coordinator.ask(|reply| Input::Admits { key: nobody, reply }).await {
        Ok(_) => super::json(StatusCode::OK, &json!({"status": "pass"})),
        Err(gone) => super::json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"status": "fail", "output": gone.to_string()}),
        ),
    }
}

/// Whether a relay may admit a node (tailscale `derp/derpserver`, `--verify-client-url`).
async fn verify(site: &Site, request: Request<Incoming>) -> Response<AnyBody> {
    let asked: DerpAdmitClientRequest = match read_json(request.into_body(), MAX_BODY).await {
        Ok(asked) => asked,
        Err(response) => return response,
    };
    match site.coordinator.ask(|reply| Input::Admits { key: asked.node_public, reply }).await {
        Ok(allow) => super::json(StatusCode::OK, &DerpAdmitClientResponse { allow }),
        Err(gone) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n")),
    }
}

/// Addresses of this server for clients whose DNS is broken; of nobody else, so that this is no open resolver.
async fn bootstrap_dns(site: &Site, query: Option<&str>) -> BTreeMap<String, Vec<IpAddr>> {
    let asked = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("q="));
    let host = site.url.host.as_str();
    if asked.is_some_and(|asked| asked != host) {
        return BTreeMap::new();
    }
    let addrs = lookup_host((host, site.url.port)).await.map(|addrs| addrs.map(|addr| addr.ip()).collect());
    BTreeMap::from([(host.to_owned(), addrs.unwrap_or_default())])
}

/// What the user of a node sees who is asked to have it approved.
fn register_page(path: &str) -> Response<AnyBody> {
    let key = path.trim_start_matches("/register/");
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return text(StatusCode::NOT_FOUND, "not found\n");
    }
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Join the network</title>\n\
         <body style=\"font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:4rem auto;padding:0 1rem\">\n\
         <h1>One more step</h1>\n<p>This machine waits for an administrator. On the server, run</p>\n\
         <pre style=\"background:#eee;padding:1rem;overflow:auto\">underpass admin nodes approve {key} --user alice</pre>\n\
         <p>with the user it shall belong to. It then connects by itself.</p>\n</body></html>\n"
    );
    typed(StatusCode::OK, "text/html; charset=utf-8", page.into())
}
