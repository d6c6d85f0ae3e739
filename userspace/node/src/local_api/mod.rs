//! Tailscale's LocalAPI over a unix socket: how the command line, ours and the stock one, drives the node.
//!
//! [`listen`] makes the socket, [`serve`] answers on it until the event loop goes away. Whoever connects is known by the
//! socket's peer credentials: everybody may read, root and the configured operator may write. Each request becomes one
//! [`Request`] to the event loop. Deliberately not here: what a request does (`event_loop`), its JSON (`wire::local`).

mod request;

pub use request::{BUS_CAPACITY, Refusal, Reply, Request, Watch, Whom};
