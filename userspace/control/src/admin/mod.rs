//! The administrator's API: HTTP and JSON over a unix socket that only root and the server's own user may open.
//!
//! `api` is what travels, `client` is what `underpass admin` calls, `server` answers. Who may call is decided by the
//! kernel's peer credentials, never by something in the request. Deliberately not here: what the verbs do
//! (`coordinator` and `control_core`).

mod api;
mod client;
mod server;

pub use api::{
    ApproveNode, ApproveRoutes, CreateKey, CreateUser, CreatedKey, Failure, KeyInfo, KeyState, NodeInfo,
    PendingInfo, RenameNode, ServerInfo, UserInfo,
};
pub use client::{Client, ClientError};
pub(crate) use server::{bind, serve};
