//! What nodes ask inside of Noise: registration and map. The connection's machine key is the caller's identity; a node
//! key in a request counts only where that machine registered it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use types::MachinePublic;
use wire::control::{MapRequest, RegisterRequest, encode_frame};

use super::stream::MapStream;
use super::{AnyBody, MAX_BODY, MAX_REGISTRATION, Site, json, read_json, text, typed};
use crate::coordinator::{Input, MapError, MapReply};

/// Endpoints of Tailscale's service that this server does not have yet. Clients take 501 for "not here" and go on.
const NOT_HERE: [&str; 8] = [
    "/machine/whoami",
    "/machine/set-dns",
    "/machine/set-device-attr",
    "/machine/audit-log",
    "/machine/id-token",
    "/machine/feature/query",
    "/machine/update-health",
    "/machine/c2n",
];

pub(super) async fn answer(
    site: &Arc<Site>,
    machine: MachinePublic,
    request: Request<Incoming>,
) -> Response<AnyBody> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/machine/register") => register(site, machine, request).await,
        (&Method::POST, "/machine/map") => map(site, machine, request).await,
        (_, path) if NOT_HERE.contains(&path) => text(StatusCode::NOT_IMPLEMENTED, "not implemented\n"),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

async fn register(site: &Site, machine: MachinePublic, request: Request<Incoming>) -> Response<AnyBody> {
    let request: Box<RegisterRequest> = match read_json(request.into_body(), MAX_REGISTRATION).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    match site.coordinator.ask(|reply| Input::Register { machine, request, reply }).await {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(gone) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n")),
    }
}

async fn map(site: &Site, machine: MachinePublic, request: Request<Incoming>) -> Response<AnyBody> {
    let request: Box<MapRequest> = match read_json(request.into_body(), MAX_BODY).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let (compress, keep_alive) = (request.compress == "zstd", request.keep_alive);
    let asked = site.coordinator.ask(|reply| Input::Map { machine, request, reply }).await;
    match asked {
        Ok(Ok(MapReply::Noted)) => typed(StatusCode::OK, "application/json", Bytes::new()),
        Ok(Ok(MapReply::Once(map))) => {
            match serde_json::to_vec(&map).map(|body| encode_frame(&body, compress)) {
                Ok(Ok(frame)) => typed(StatusCode::OK, "application/json", frame.into()),
                _ => text(StatusCode::INTERNAL_SERVER_ERROR, "the map cannot be written\n"),
            }
        }
        Ok(Ok(MapReply::Stream { session, first, deltas })) => {
            let stream =
                MapStream::new(site.coordinator.clone(), session, first, deltas, compress, keep_alive);
            Response::new(stream.boxed_unsync())
        }
        Ok(Err(error @ MapError::Refused(_))) => text(StatusCode::NOT_FOUND, format!("{error}\n")),
        Ok(Err(error @ MapError::Store)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        Err(gone) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n")),
    }
}
