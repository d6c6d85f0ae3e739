//! Answers to registrations.

use control_core::network::Network;
use jiff::Timestamp;
use types::NodeId;
use wire::control::{Login, RegisterResponse, User};

/// The node is in; or its logout is done, which is an expired key.
pub(super) fn registered(network: &Network, id: NodeId, now: Timestamp) -> RegisterResponse {
    let Some(node) = network.registry().node(id) else { return logged_out() };
    if node.expired(now) {
        return expired(network, id);
    }
    RegisterResponse { machine_authorized: true, ..owned(network, id) }
}

/// The node must make a new key.
pub(super) fn expired(network: &Network, id: NodeId) -> RegisterResponse {
    RegisterResponse { node_key_expired: true, ..owned(network, id) }
}

/// There is no such node any more.
pub(super) fn logged_out() -> RegisterResponse {
    RegisterResponse { node_key_expired: true, ..RegisterResponse::default() }
}

/// The user must open `url`.
pub(super) fn ask(url: &str) -> RegisterResponse {
    RegisterResponse { auth_url: url.to_owned(), ..RegisterResponse::default() }
}

/// Not admitted, in words for the user.
pub(super) fn refused(reason: &str) -> RegisterResponse {
    RegisterResponse { error: reason.to_owned(), ..RegisterResponse::default() }
}

fn owned(network: &Network, id: NodeId) -> RegisterResponse {
    let registry = network.registry();
    let user = registry.node(id).and_then(|node| registry.user(node.user));
    let Some(user) = user else { return RegisterResponse::default() };
    RegisterResponse {
        user: User {
            id: user.id,
            display_name: user.name.clone(),
            created: user.created.into(),
            ..User::default()
        },
        login: Login {
            id: user.id.0,
            login_name: user.name.clone(),
            display_name: user.name.clone(),
            ..Login::default()
        },
        ..RegisterResponse::default()
    }
}
