//! Answers the administrator's API on its unix socket.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::Uid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};

use super::api::Failure;
use crate::coordinator::{Handle, Input, Refused, Verb};

const MAX_BODY: usize = 1 << 20;
const HEAD_DEADLINE: Duration = Duration::from_secs(15);

/// Makes the socket, readable and writable by its owner only. A socket that nobody answers on any more is replaced.
///
/// # Errors
/// When another server answers there, or the folder is not writable.
pub(crate) async fn bind(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another server answers there; choose another --socket",
        ));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Accepts connections until the task is dropped.
pub(crate) async fn serve(listener: UnixListener, coordinator: Handle) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let peer = stream.peer_cred().map(|peer| Uid::from_raw(peer.uid()));
        if !peer.is_ok_and(|uid| uid.is_root() || uid == Uid::effective()) {
            tracing::warn!("a stranger on the admin socket was turned away");
            continue;
        }
        let coordinator = coordinator.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let coordinator = coordinator.clone();
                async move { Ok::<_, Infallible>(answer(&coordinator, request).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
}

async fn answer(coordinator: &Handle, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let verb = match verb(request).await {
        Ok(verb) => verb,
        Err((status, error)) => return json(status, &Failure { error }),
    };
    match coordinator.ask(|reply| Input::Admin { verb, reply }).await {
        Ok(Ok(answer)) => json(StatusCode::OK, &answer),
        Ok(Err(refused)) => {
            let status = match &refused {
                Refused::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
                Refused::Verb(_) | Refused::Registration(_) => StatusCode::BAD_REQUEST,
            };
            json(status, &Failure { error: refused.to_string() })
        }
        Err(gone) => json(StatusCode::SERVICE_UNAVAILABLE, &Failure { error: gone.to_string() }),
    }
}

type Wrong = (StatusCode, String);

/// The verb a request asks for; see `api` for the table.
async fn verb(request: Request<Incoming>) -> Result<Verb, Wrong> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let segments: Vec<String> = path.trim_start_matches('/').split('/').map(unescape).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let body = request.into_body();
    let verb = match (&method, segments.as_slice()) {
        (&Method::GET, ["v1", "server"]) => Verb::Server,
        (&Method::GET, ["v1", "users"]) => Verb::Users,
        (&Method::POST, ["v1", "users"]) => Verb::CreateUser(read(body).await?),
        (&Method::GET, ["v1", "keys"]) => Verb::Keys,
        (&Method::POST, ["v1", "keys"]) => Verb::CreateKey(read(body).await?),
        (&Method::POST, ["v1", "keys", id, "revoke"]) => {
            let wrong = |_| (StatusCode::BAD_REQUEST, format!("{id:?} is no key number"));
            Verb::RevokeKey(id.parse().map_err(wrong)?)
        }
        (&Method::GET, ["v1", "nodes"]) => Verb::Nodes,
        (&Method::GET, ["v1", "pending"]) => Verb::Pending,
        (&Method::POST, ["v1", "pending", key, "approve"]) => {
            Verb::Approve((*key).to_owned(), read(body).await?)
        }
        (&Method::GET, ["v1", "nodes", node]) => Verb::Node((*node).to_owned()),
        (&Method::DELETE, ["v1", "nodes", node]) => Verb::Delete((*node).to_owned()),
        (&Method::POST, ["v1", "nodes", node, "routes"]) => {
            Verb::ApproveRoutes((*node).to_owned(), read(body).await?)
        }
        (&Method::POST, ["v1", "nodes", node, "rename"]) => {
            Verb::Rename((*node).to_owned(), read(body).await?)
        }
        (&Method::POST, ["v1", "nodes", node, "expire"]) => Verb::Expire((*node).to_owned()),
        _ => return Err((StatusCode::NOT_FOUND, format!("{method} {path} is not in this API"))),
    };
    Ok(verb)
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Wrong> {
    let wrong = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, format!("request: {error}"));
    let bytes = Limited::new(body, MAX_BODY).collect().await.map_err(|error| wrong(&error))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| wrong(&error))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Undoes percent-encoding; what is none stays as it is.
fn unescape(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_nothing_else() {
        assert_eq!(unescape("fd7a%3A%3A1"), "fd7a::1");
        assert_eq!(unescape("100%"), "100%");
        assert_eq!(unescape("%zz%4"), "%zz%4");
    }
}
