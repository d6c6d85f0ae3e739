//! Who may do what: the peer's credentials, as the kernel vouches for them, against root and the configured operator.
//!
//! A browser can be made to send requests to local services, by a page or by DNS that changes its mind; it cannot leave
//! out its `Origin`, or write our `Host`. Such requests are refused before anything else.

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{HOST, HeaderValue, ORIGIN, REFERER};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use nix::unistd::{Uid, User};
use tokio::net::UnixListener;
use types::CapabilityVersion;

use super::answer::Problem;
use super::backend::Backend;
use super::request::Request as Ask;

/// The process at the other end of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Its user; none when the kernel did not say, which is nobody.
    uid: Option<Uid>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred();
        Self { uid: credentials.ok().map(|cred| Uid::from_raw(cred.uid())) }
    }
}

impl Caller {
    /// Root, and whoever runs the daemon.
    fn owns_the_node(self) -> bool {
        self.uid.is_some_and(|uid| uid.is_root() || uid == Uid::effective())
    }

    /// Whether it is the user that `--operator` named.
    fn is_operator(self, name: &str) -> bool {
        let operator = if name.is_empty() { None } else { User::from_name(name).ok().flatten() };
        self.uid.is_some() && self.uid == operator.map(|user| user.uid)
    }
}

/// Lets a request through when its caller may change the node.
pub(super) async fn only_root_or_operator(
    State(backend): State<Backend>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match may_write(&backend, caller).await {
        Ok(true) => next.run(request).await,
        Ok(false) => denied(request.uri().path()).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn may_write(backend: &Backend, caller: Caller) -> Result<bool, Problem> {
    if caller.owns_the_node() {
        return Ok(true);
    }
    let prefs = backend.ask(|reply| Ask::Prefs { reply }).await?;
    Ok(caller.is_operator(&prefs.operator_user))
}

fn denied(path: &str) -> Problem {
    let what = path.trim_start_matches("/localapi/v0/").trim_start_matches('/');
    Problem::text(
        StatusCode::FORBIDDEN,
        format!(
            "{what} access denied: only root and the operator may; use sudo, or as root run once: underpass set --operator=$USER"
        ),
    )
}

/// Refuses whatever a browser could send, and sets the headers that keep one from using the answer.
pub(super) async fn only_local(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let local = host.is_empty() || host == wire::local::HOST.as_bytes();
    if !local || headers.contains_key(ORIGIN) || headers.contains_key(REFERER) {
        return Problem::text(StatusCode::FORBIDDEN, "invalid localapi request").into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // `Tailscale-Version` is left out on purpose: the stock command compares it with its own and would warn of a
    // mismatch, although the two were never meant to be equal.
    headers.insert("tailscale-cap", HeaderValue::from(CapabilityVersion::CURRENT.0));
    headers.insert("underpass-version", HeaderValue::from_static(super::VERSION));
    headers.insert(
        "content-security-policy",
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32) -> Caller {
        Caller { uid: Some(Uid::from_raw(uid)) }
    }

    #[test]
    fn root_and_the_daemons_user_own_the_node() {
        assert!(caller(0).owns_the_node());
        assert!(caller(Uid::effective().as_raw()).owns_the_node());
        assert!(!caller(65_534).owns_the_node());
        assert!(!Caller { uid: None }.owns_the_node());
    }

    #[test]
    fn the_operator_is_a_user_by_name() {
        assert!(caller(0).is_operator("root"));
        assert!(!caller(65_534).is_operator("root"));
        assert!(!caller(65_534).is_operator(""));
        assert!(!caller(65_534).is_operator("no-such-user"));
        assert!(!Caller { uid: None }.is_operator(""));
    }
}
