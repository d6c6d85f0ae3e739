//! The policy: who may reach whom.
//!
//! `reader` and `document` turn the file into checked `term`s; `compile` resolves them against the network into an
//! [`ip_set`] of sources and a filter for each node. Without a file every connection is allowed and no capability is
//! granted, as with Tailscale. Deliberately not here yet: tests, posture, SSH, `via`; they are refused by name, never
//! ignored.

mod capability;
mod compile;
mod document;
mod grant;
pub mod ip_set;
mod reader;
mod term;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use types::NodeId;

pub use compile::Compiled;
pub use document::check_tag;
use document::{Document, Rule};
use ip_set::IpSet;
pub use reader::PolicyError;
use term::Term;
use wire::control::PortRange;

/// A node as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Which node.
    pub id: NodeId,
    /// Its user's name; a tagged node acts as its tags instead.
    pub user: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Subnet routes it may serve, standing by or not; no exit routes.
    pub routes: Vec<IpNet>,
    /// Whether it may serve as an exit node.
    pub exit: bool,
}

impl Subject {
    /// Whether it is a device of the user whom the file calls `name`: a user's name, or that and an `@`.
    fn is_of(&self, name: &str) -> bool {
        self.tags.is_empty() && is_user(&self.user, name)
    }

    /// Whether one of its addresses or routes has an address of `set`.
    fn is_in(&self, set: &IpSet) -> bool {
        self.addresses.iter().any(|addr| set.contains(*addr))
            || self.routes.iter().any(|net| set.overlaps(*net))
    }
}

/// A user without a mail address, `alice`, is `alice@` in a policy file.
fn is_user(user: &str, name: &str) -> bool {
    user == name || name.strip_suffix('@') == Some(user)
}

/// A policy, read and checked.
#[derive(Clone, Debug)]
pub struct Policy {
    document: Document,
}

impl Policy {
    /// What holds without a policy file: everybody may reach everything.
    pub fn allow_all() -> Self {
        let rule = Rule {
            sources: vec![Term::Any],
            destinations: vec![(Term::Any, vec![PortRange::ANY])],
            protocols: Vec::new(),
            capabilities: None,
        };
        Self { document: Document { rules: vec![rule], ..Document::default() } }
    }

    /// Reads a policy file (HuJSON).
    ///
    /// # Errors
    /// When anything in it is malformed or not understood; the error names line, column and field.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        Document::parse(text).map(|document| Self { document })
    }

    /// Resolves the rules against the network's nodes.
    pub fn compile(&self, subjects: &[Subject]) -> Compiled {
        Compiled::new(&self.document, subjects)
    }

    /// Whether a device of `user` may take `tag` on itself.
    pub fn may_tag(&self, user: &str, tag: &str) -> bool {
        self.document.definitions.tag_owners.get(tag).is_some_and(|owners| self.is_one_of(user, &[], owners))
    }

    /// Whether a node of `user`, or with `tags`, may serve `route` without an administrator's word.
    pub fn approves(&self, user: &str, tags: &[String], route: IpNet) -> bool {
        self.document.approvers(route).any(|term| self.is_one_of(user, tags, std::slice::from_ref(term)))
    }

    fn is_one_of(&self, user: &str, tags: &[String], owners: &[Term]) -> bool {
        owners.iter().any(|owner| match owner {
            Term::User(name) => tags.is_empty() && is_user(user, name),
            Term::Group(group) => {
                let members = self.document.definitions.groups.get(group);
                tags.is_empty() && members.is_some_and(|names| names.iter().any(|name| is_user(user, name)))
            }
            Term::Tag(tag) => tags.contains(tag),
            Term::Member => tags.is_empty(),
            Term::Any | Term::Everyone | Term::Tagged | Term::Own | Term::Internet | Term::Nets(_) => false,
        })
    }
}
