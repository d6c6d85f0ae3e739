//! What an administrator may do: each verb checked against the state and turned into records.

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::auth_key;
use crate::model::{AuthKey, KeyId, Node, User};
use crate::names;
use crate::policy::check_tag;
use crate::record::Record;
use crate::register::normal_routes;
use crate::registry::Registry;

/// Why a verb is refused, in words for the administrator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such thing.
    #[error("no {what} {name:?}; `underpass admin {what}s list` shows them")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// What it was called.
        name: String,
    },
    /// The name is another's.
    #[error("the {what} name {name:?} is taken")]
    Taken {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A value is not what it should be.
    #[error("{0}")]
    Malformed(String),
}

/// What a new auth key shall be.
#[derive(Clone, Debug, Default)]
pub struct KeyWish {
    /// Name of the user whose nodes it admits.
    pub user: String,
    /// Tags its nodes get.
    pub tags: Vec<String>,
    /// Its nodes are deleted some time after they disconnect.
    pub ephemeral: bool,
    /// How many nodes it admits; none for any number.
    pub uses_limit: Option<u32>,
    /// How long it works; none for ever.
    pub lifetime: Option<Duration>,
}

/// A new user.
///
/// # Errors
/// When the name is malformed or taken.
pub fn create_user(registry: &Registry, name: &str, now: Timestamp) -> Result<User, Refusal> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_@+".contains(c);
    if name.is_empty() || name.len() > 128 || name.ends_with('@') || !name.chars().all(allowed) {
        return Err(Refusal::Malformed(format!(
            "{name:?} is no user name: lower-case letters, digits and . - _ @ + only, as in alice or alice@example.com"
        )));
    }
    if registry.user_named(name).is_some() {
        return Err(Refusal::Taken { what: "user", name: name.to_owned() });
    }
    Ok(User { id: registry.next_user(), name: name.to_owned(), created: now })
}

/// A user by name.
///
/// # Errors
/// When there is none.
pub fn find_user<'a>(registry: &'a Registry, name: &str) -> Result<&'a User, Refusal> {
    registry.user_named(name).ok_or_else(|| Refusal::Unknown { what: "user", name: name.to_owned() })
}

/// A new auth key with its text, which is shown once. `secret` is random.
///
/// # Errors
/// When the user is unknown or a tag is malformed.
pub fn create_key(
    registry: &Registry,
    wish: &KeyWish,
    secret: &[u8; 24],
    now: Timestamp,
) -> Result<(AuthKey, String), Refusal> {
    let user = find_user(registry, &wish.user)?;
    for tag in &wish.tags {
        check_tag(tag).map_err(Refusal::Malformed)?;
    }
    if wish.uses_limit == Some(0) {
        return Err(Refusal::Malformed("a key of 0 uses admits nobody".to_owned()));
    }
    let lifetime = wish.lifetime.map(|lifetime| now.checked_add(lifetime)).transpose();
    let expires =
        lifetime.map_err(|error| Refusal::Malformed(format!("the expiry is out of range: {error}")))?;
    let id = registry.next_key();
    let tags: std::collections::BTreeSet<_> = wish.tags.iter().cloned().collect();
    let key = AuthKey {
        id,
        hash: auth_key::hash(secret),
        user: user.id,
        tags: tags.into_iter().collect(),
        ephemeral: wish.ephemeral,
        uses_limit: wish.uses_limit,
        uses: 0,
        created: now,
        expires,
        revoked: false,
    };
    Ok((key, auth_key::text(id, secret)))
}

/// A key withdrawn.
///
/// # Errors
/// When there is no such key.
pub fn revoke_key(registry: &Registry, id: KeyId) -> Result<AuthKey, Refusal> {
    let key = registry.key(id).ok_or_else(|| Refusal::Unknown { what: "key", name: id.to_string() })?;
    Ok(AuthKey { revoked: true, ..key.clone() })
}

/// A node by number, name or overlay address.
///
/// # Errors
/// When there is none.
pub fn find_node<'a>(registry: &'a Registry, text: &str) -> Result<&'a Node, Refusal> {
    registry.find_node(text).ok_or_else(|| Refusal::Unknown { what: "node", name: text.to_owned() })
}

/// A node with other approved routes.
///
/// # Errors
/// When a prefix has host bits set.
pub fn approve_routes(node: &Node, routes: &[IpNet]) -> Result<Record, Refusal> {
    if let Some(net) = routes.iter().find(|net| net.trunc() != **net) {
        return Err(Refusal::Malformed(format!("{net} has host bits set; did you mean {}?", net.trunc())));
    }
    let approved_routes = normal_routes(routes.iter().copied());
    Ok(Record::Node(Box::new(Node { approved_routes, ..node.clone() })))
}

/// A node with another name.
///
/// # Errors
/// When the name is no DNS label or taken.
pub fn rename(registry: &Registry, node: &Node, name: &str) -> Result<Record, Refusal> {
    if !names::is_label(name) {
        let reason =
            format!("{name:?} is no node name: up to 63 lower-case letters, digits and inner dashes");
        return Err(Refusal::Malformed(reason));
    }
    if registry.nodes().any(|other| other.id != node.id && other.name == name) {
        return Err(Refusal::Taken { what: "node", name: name.to_owned() });
    }
    Ok(Record::Node(Box::new(Node { name: name.to_owned(), named_by_admin: true, ..node.clone() })))
}

/// A node whose key has expired; an ephemeral one stays until it is gone for long enough.
pub fn expire(node: &Node, now: Timestamp) -> Record {
    Record::Node(Box::new(Node { expires: Some(now), ..node.clone() }))
}
