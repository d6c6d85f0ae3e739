//! Tailscale's LocalAPI over a unix socket: how the command line, ours and the stock one, drives the node.
//!
//! [`listen`] makes the socket, [`serve`] answers on it until the event loop goes away. Whoever connects is known by the
//! socket's peer credentials: everybody may read, root and the configured operator may write. Each HTTP request becomes one
//! [`Request`] to the event loop; the bus is a stream of JSON lines. Deliberately not here: what a request does
//! (`event_loop`), its JSON (`wire::local`), its client (`cli`).

mod access;
mod answer;
mod backend;
mod bus;
mod debug;
mod machine;
mod request;
mod settings;
mod socket;
mod status;

use std::io;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use access::Caller;
use answer::not_found;
use backend::Backend;

pub use request::{BUS_CAPACITY, Refusal, Reply, Request, Watch, Whom};
pub use socket::listen;

/// What the daemon and the command line call their version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bodies are prefs and options: some kilobytes, whatever a client says.
const MAX_BODY: usize = 256 << 10;

/// Answers on `listener` until the receiving end of `requests` is dropped, and then until what was begun is answered.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) -> io::Result<()> {
    let gone = requests.clone();
    let service = router(requests).into_make_service_with_connect_info::<Caller>();
    axum::serve(listener, service).with_graceful_shutdown(async move { gone.closed().await }).await
}

fn router(requests: mpsc::Sender<Request>) -> Router {
    let backend = Backend::new(requests);
    let readers = Router::new()
        .merge(status::routes())
        .merge(machine::routes())
        .merge(bus::routes())
        .merge(settings::reading())
        .merge(debug::reading());
    let writers = Router::new()
        .merge(settings::routes())
        .merge(debug::routes())
        .merge(machine::private_routes())
        .route_layer(from_fn_with_state(backend.clone(), access::only_root_or_operator));
    let api = readers.merge(writers).with_state(backend);
    Router::new()
        .route("/", get(|| async { "underpass\n" }))
        .nest("/localapi/v0", api)
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(access::only_local))
}
