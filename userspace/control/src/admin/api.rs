//! Requests and answers of the administrator's API, one struct each, as JSON with snake_case names.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /v1/server` | - | [`ServerInfo`] |
//! | `GET /v1/users` | - | list of [`UserInfo`] |
//! | `POST /v1/users` | [`CreateUser`] | [`UserInfo`] |
//! | `GET /v1/keys` | - | list of [`KeyInfo`] |
//! | `POST /v1/keys` | [`CreateKey`] | [`CreatedKey`] |
//! | `POST /v1/keys/{id}/revoke` | - | [`KeyInfo`] |
//! | `GET /v1/nodes` | - | list of [`NodeInfo`], sorted by id |
//! | `GET /v1/nodes/{node}` | - | [`NodeInfo`] |
//! | `GET /v1/pending` | - | list of [`PendingInfo`]: who waits for an approval |
//! | `POST /v1/pending/{key}/approve` | [`ApproveNode`] | [`NodeInfo`] |
//! | `POST /v1/nodes/{node}/routes` | [`ApproveRoutes`] | [`NodeInfo`] |
//! | `POST /v1/nodes/{node}/rename` | [`RenameNode`] | [`NodeInfo`] |
//! | `POST /v1/nodes/{node}/expire` | - | [`NodeInfo`] |
//! | `DELETE /v1/nodes/{node}` | - | [`NodeInfo`] as it was |
//!
//! `{node}` is a number, a name or an overlay address. A refusal is a 4xx or 5xx with a [`Failure`].

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::{NodeId, RegionId, UserId};

/// Why a request was refused, in words for the administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened and what to do.
    pub error: String,
}

/// The running server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// The server's version.
    pub version: String,
    /// What nodes pass to `--login-server`.
    pub url: String,
    /// SHA-256 of the TLS certificate in hex, when the server is its own authority.
    pub fingerprint: Option<String>,
    /// Registered nodes.
    pub nodes: usize,
    /// Nodes that are connected now.
    pub online: usize,
}

/// A user: who owns nodes and is named in the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// Its number, never reused.
    pub id: UserId,
    /// Its name, unique.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
}

/// Asks for a new user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateUser {
    /// Lower-case letters, digits, `.`, `-`, `_` and `@`; unique.
    pub name: String,
}

/// What an auth key is good for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It admits nodes.
    Valid,
    /// Every use it had is spent.
    Used,
    /// Its time is over.
    Expired,
    /// An administrator withdrew it.
    Revoked,
}

/// An auth key without its secret, which nobody can show again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its number: what `keys revoke` takes, and part of the key's text.
    pub id: i64,
    /// Whose nodes it admits.
    pub user: String,
    /// Tags its nodes get; empty for nodes of the user.
    pub tags: Vec<String>,
    /// Its nodes are deleted some time after they disconnect.
    pub ephemeral: bool,
    /// How many registrations it admits; none for any number.
    pub uses_limit: Option<u32>,
    /// How many it has admitted.
    pub uses: u32,
    /// When it was created.
    pub created: Timestamp,
    /// When it stops working; none for never.
    pub expires: Option<Timestamp>,
    /// Whether it would admit a node now, and if not, why.
    pub state: KeyState,
}

/// Asks for a new auth key. Without `reusable` and `uses` it admits one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateKey {
    /// Whose nodes it admits: a user's name.
    pub user: String,
    /// Admits any number of nodes.
    #[serde(default)]
    pub reusable: bool,
    /// Admits this many nodes.
    #[serde(default)]
    pub uses: Option<u32>,
    /// Its nodes are deleted some time after they disconnect.
    #[serde(default)]
    pub ephemeral: bool,
    /// Tags its nodes get, each as `tag:name`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Seconds until it stops working; none for never.
    #[serde(default)]
    pub expires_in: Option<u64>,
}

/// A new auth key. No `Debug`: it carries the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedKey {
    /// What `--auth-key` takes. Shown this one time; only its hash is stored.
    pub key: String,
    /// All the rest.
    pub info: KeyInfo,
}

/// A node as the administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its number, never reused.
    pub id: NodeId,
    /// Its name in the network, unique.
    pub name: String,
    /// What it calls itself.
    pub hostname: String,
    /// Who owns it; for a tagged node, who created its key.
    pub user: String,
    /// Its tags; a tagged node acts as its tags, not as its user.
    pub tags: Vec<String>,
    /// Its overlay addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// `nodekey:` text.
    pub node_key: String,
    /// `mkey:` text.
    pub machine_key: String,
    /// Operating system, as it reports it.
    pub os: String,
    /// Client version, as it reports it.
    pub client_version: String,
    /// Whether it is connected now.
    pub online: bool,
    /// When it was last connected; none while it is, or when it never was.
    pub last_seen: Option<Timestamp>,
    /// When it registered first.
    pub created: Timestamp,
    /// When its key expires; none for never.
    pub expires: Option<Timestamp>,
    /// Whether that time is over.
    pub expired: bool,
    /// It is deleted some time after it disconnects.
    pub ephemeral: bool,
    /// Routes it offers.
    pub announced_routes: Vec<IpNet>,
    /// Routes an administrator or the policy allows.
    pub approved_routes: Vec<IpNet>,
    /// Routes the network sends to it now.
    pub primary_routes: Vec<IpNet>,
    /// Where it can be reached outside the overlay.
    pub endpoints: Vec<SocketAddr>,
    /// Its home DERP region; 0 for none yet.
    pub home_region: RegionId,
}

/// A machine that waits for an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingInfo {
    /// What `nodes approve` takes; the last part of the URL the machine shows.
    pub key: String,
    /// What the machine calls itself.
    pub hostname: String,
    /// `nodekey:` text.
    pub node_key: String,
    /// When it asked.
    pub since: Timestamp,
}

/// Admits a waiting machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveNode {
    /// Whose node it becomes: a user's name.
    pub user: String,
}

/// Sets which routes a node may serve, in place of those approved before. An empty list withdraws all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveRoutes {
    /// Prefixes; 0.0.0.0/0 or ::/0 stands for both, an exit node.
    pub routes: Vec<IpNet>,
}

/// Gives a node another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameNode {
    /// A DNS label that no other node has.
    pub name: String,
}
