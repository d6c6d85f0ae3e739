//! The terms of a policy: who a rule is about, and which ports.
//!
//! A term is parsed once, when the file is read, and checked against the file's own definitions then; it is resolved to
//! addresses whenever the network changes (`compile`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use wire::control::PortRange;

use super::ip_set::IpSet;

/// Somebody a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// `*`: as a source the whole overlay and the routes behind it, as a destination everything.
    Any,
    /// A user's own devices.
    User(String),
    /// The devices of a group's users.
    Group(String),
    /// Devices with a tag.
    Tag(String),
    /// `autogroup:member`: every device that a user owns.
    Member,
    /// `autogroup:tagged`: every device with a tag.
    Tagged,
    /// `autogroup:self`: the devices of the very user who is the source.
    Own,
    /// `autogroup:danger-all`, as a source only: whoever it is, also from outside the overlay.
    Everyone,
    /// `autogroup:internet`: what exit nodes lead to.
    Internet,
    /// A host, address, prefix or range.
    Nets(IpSet),
}

/// What the file defines itself, for checking terms against.
#[derive(Clone, Debug, Default)]
pub(super) struct Definitions {
    pub(super) groups: BTreeMap<String, Vec<String>>,
    pub(super) hosts: BTreeMap<String, IpSet>,
    pub(super) tag_owners: BTreeMap<String, Vec<Term>>,
}

impl Definitions {
    /// Reads a term; the error says what is wrong with it.
    pub(super) fn term(&self, text: &str) -> Result<Term, String> {
        if text == "*" {
            return Ok(Term::Any);
        }
        if let Some(name) = text.strip_prefix("autogroup:") {
            return match name {
                "member" | "members" => Ok(Term::Member),
                "tagged" => Ok(Term::Tagged),
                "self" => Ok(Term::Own),
                "internet" => Ok(Term::Internet),
                "danger-all" => Ok(Term::Everyone),
                _ => Err(format!(
                    "autogroup {text:?} is not understood; known are member, tagged, self, internet, danger-all"
                )),
            };
        }
        if text.starts_with("group:") {
            let known = self.groups.contains_key(text);
            return known
                .then(|| Term::Group(text.to_owned()))
                .ok_or_else(|| format!("group not found: {text:?}"));
        }
        if text.starts_with("tag:") {
            let known = self.tag_owners.contains_key(text);
            let reason = || format!("tag not found: {text:?}; define it in tagOwners");
            return known.then(|| Term::Tag(text.to_owned())).ok_or_else(reason);
        }
        if let Some(nets) = self.hosts.get(text) {
            return Ok(Term::Nets(nets.clone()));
        }
        if text.contains('@') {
            return Ok(Term::User(text.to_owned()));
        }
        nets(text).map(Term::Nets).ok_or_else(|| {
            format!("{text:?} is no user (they have an @), group, tag, autogroup, address, prefix or host of this file")
        })
    }

    /// Reads `term:ports`, the form of a destination.
    pub(super) fn destination(&self, text: &str) -> Result<(Term, Vec<PortRange>), String> {
        let (target, list) =
            text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no ports; write {text}:* for all"))?;
        let ports = list.split(',').map(ports).collect::<Result<_, _>>()?;
        let target = target.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(target);
        Ok((self.term(target)?, ports))
    }
}

/// An address, a prefix without host bits, or `first-last`.
pub(super) fn nets(text: &str) -> Option<IpSet> {
    let mut set = IpSet::default();
    if let Some((first, last)) = text.split_once('-') {
        set.insert_range(first.parse().ok()?, last.parse().ok()?);
    } else if let Ok(addr) = text.parse::<IpAddr>() {
        set.insert(addr.into());
    } else {
        let net = text.parse::<IpNet>().ok().filter(|net| net.trunc() == *net)?;
        set.insert(net);
    }
    Some(set).filter(|set| !set.is_empty())
}

/// `*`, `N` or `N-M`.
pub(super) fn ports(text: &str) -> Result<PortRange, String> {
    if text == "*" {
        return Ok(PortRange::ANY);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(PortRange { first, last }),
        _ => Err(format!("port range {text:?}: expected *, N or N-M with numbers up to 65535")),
    }
}

/// The IP protocol numbers of a rule's `proto`; empty for the default, TCP, UDP and ICMP.
pub(super) fn protocols(text: &str) -> Result<Vec<i32>, String> {
    /// IANA's numbers under the names Tailscale's policy files use.
    const NAMES: [(&str, i32); 12] = [
        ("icmp", 1),
        ("igmp", 2),
        ("ipv4", 4),
        ("ip-in-ip", 4),
        ("tcp", 6),
        ("egp", 8),
        ("igp", 9),
        ("udp", 17),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("sctp", 132),
    ];
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Ok(vec![*number]);
    }
    match text.parse::<u8>() {
        Ok(number) if number > 0 => Ok(vec![number.into()]),
        _ => Err(format!("protocol {text:?} is neither a known name nor a number from 1 to 255")),
    }
}

/// Whether a protocol has ports; the others can only be allowed as a whole.
pub(super) fn has_ports(protocol: i32) -> bool {
    matches!(protocol, 6 | 17 | 132)
}
