//! A policy file as read: sections, terms and rules, every one checked. What is not understood is an error.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged;
use types::overlay::EXIT_ROUTES;
use wire::control::{CapMap, PortRange};

use super::reader::{Entry, PolicyError, Reader, Text};
use super::term::{Definitions, Term, has_ports, nets, protocols};

/// The sections understood so far; a file may leave out any of them.
pub(super) const SECTIONS: [&str; 6] = ["acls", "grants", "groups", "hosts", "tagOwners", "autoApprovers"];

/// The whole file.
#[derive(Clone, Debug, Default)]
pub(super) struct Document {
    pub(super) definitions: Definitions,
    pub(super) rules: Vec<Rule>,
    /// Who may serve a prefix without asking; a prefix covers what lies in it.
    pub(super) route_approvers: BTreeMap<IpNet, Vec<Term>>,
    pub(super) exit_approvers: Vec<Term>,
}

/// One entry of `acls`, or what an entry of `grants` allows by one protocol, or which capabilities it gives.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) sources: Vec<Term>,
    /// With ports, and without any where capabilities are given.
    pub(super) destinations: Vec<(Term, Vec<PortRange>)>,
    pub(super) protocols: Vec<i32>,
    pub(super) capabilities: Option<CapMap>,
}

impl Document {
    pub(super) fn parse(text: &str) -> Result<Self, PolicyError> {
        let reader = Reader::new(text);
        let root = reader.parse()?;
        let sections = reader.entries(&root, "")?;
        if let Some(entry) = sections.iter().find(|entry| !SECTIONS.contains(&entry.name.value)) {
            let known = SECTIONS.join(", ");
            return Err(
                reader.wrong(&entry.name, format!("this server does not know this section, only {known}"))
            );
        }
        let section = |name| sections.iter().find(|entry| entry.name.value == name).map(|entry| entry.value);
        let mut document = Self::default();
        if let Some(value) = section("groups") {
            document.definitions.groups = groups(reader, value)?;
        }
        if let Some(value) = section("hosts") {
            document.read_hosts(reader, value)?;
        }
        if let Some(value) = section("tagOwners") {
            document.read_tag_owners(reader, value)?;
        }
        if let Some(value) = section("autoApprovers") {
            document.read_approvers(reader, value)?;
        }
        if let Some(value) = section("grants") {
            for (value, field) in reader.elements(value, "grants")? {
                let rules = document.grant(reader, value, &field)?;
                document.rules.extend(rules);
            }
        }
        if let Some(value) = section("acls") {
            for (value, field) in reader.elements(value, "acls")? {
                let rule = document.rule(reader, value, &field)?;
                document.rules.push(rule);
            }
        }
        Ok(document)
    }

    fn read_hosts(&mut self, reader: Reader<'_>, value: &Value<'_>) -> Result<(), PolicyError> {
        for Entry { name, value } in reader.entries(value, "hosts")? {
            if name.value.contains([':', '@', '/']) || name.value == "*" {
                return Err(reader.wrong(&name, "a host name has no ':', '@' or '/' and is not '*'"));
            }
            let text = reader.text(value, &name.field)?;
            let set = nets(text.value).ok_or_else(|| {
                reader.wrong(&text, format!("{:?} is no address and no prefix without host bits", text.value))
            })?;
            self.definitions.hosts.insert(name.value.to_owned(), set);
        }
        Ok(())
    }

    /// Tags may own tags, so all names are known before any owner is read.
    fn read_tag_owners(&mut self, reader: Reader<'_>, value: &Value<'_>) -> Result<(), PolicyError> {
        let entries = reader.entries(value, "tagOwners")?;
        for Entry { name, .. } in &entries {
            if let Err(reason) = check_tag(name.value) {
                return Err(reader.wrong(name, reason));
            }
            self.definitions.tag_owners.insert(name.value.to_owned(), Vec::new());
        }
        for Entry { name, value } in &entries {
            let owners = self.owners(reader, value, &name.field)?;
            self.definitions.tag_owners.insert(name.value.to_owned(), owners);
        }
        Ok(())
    }

    fn read_approvers(&mut self, reader: Reader<'_>, value: &Value<'_>) -> Result<(), PolicyError> {
        for Entry { name, value } in reader.entries(value, "autoApprovers")? {
            match name.value {
                "exitNode" => self.exit_approvers = self.owners(reader, value, &name.field)?,
                "routes" => {
                    for Entry { name, value } in reader.entries(value, &name.field)? {
                        let net = name.value.parse::<IpNet>().ok().filter(|net| net.trunc() == *net);
                        let reason = "not a prefix without host bits";
                        let net = net.ok_or_else(|| reader.wrong(&name, reason))?;
                        let owners = self.owners(reader, value, &name.field)?;
                        self.route_approvers.insert(net, owners);
                    }
                }
                _ => return Err(reader.wrong(&name, "not understood here; known are routes and exitNode")),
            }
        }
        Ok(())
    }

    /// Terms that stand for users or tags: who may own a tag or approve a route.
    fn owners(&self, reader: Reader<'_>, value: &Value<'_>, field: &str) -> Result<Vec<Term>, PolicyError> {
        let owner = |text: Text<'_>| match self.definitions.term(text.value) {
            Ok(term @ (Term::User(_) | Term::Group(_) | Term::Tag(_) | Term::Member)) => Ok(term),
            Ok(_) => Err(reader.wrong(&text, "only a user, a group, a tag or autogroup:member can own")),
            Err(reason) => Err(reader.wrong(&text, reason)),
        };
        reader.texts(value, field)?.into_iter().map(owner).collect()
    }

    fn rule(&self, reader: Reader<'_>, value: &Value<'_>, field: &str) -> Result<Rule, PolicyError> {
        let entries = reader.entries(value, field)?;
        let get = |name: &str| entries.iter().find(|entry| entry.name.value == name);
        let required = |name: &str| {
            get(name).ok_or_else(|| reader.error(value.range(), field, format!("{name:?} is missing")))
        };
        if let Some(entry) =
            entries.iter().find(|entry| !matches!(entry.name.value, "action" | "proto" | "src" | "dst"))
        {
            return Err(
                reader.wrong(&entry.name, "not understood here; known are action, proto, src and dst")
            );
        }
        let action = reader.text(required("action")?.value, &format!("{field}.action"))?;
        if action.value != "accept" {
            return Err(
                reader.wrong(&action, format!("action={:?} is not supported, only accept", action.value))
            );
        }
        let protocols = match get("proto") {
            Some(entry) => {
                let text = reader.text(entry.value, &entry.name.field)?;
                protocols(text.value).map_err(|reason| reader.wrong(&text, reason))?
            }
            None => Vec::new(),
        };
        let sources = self.sources(reader, required("src")?)?;
        let destinations = self.destinations(reader, required("dst")?, &sources, &protocols)?;
        Ok(Rule { sources, destinations, protocols, capabilities: None })
    }

    pub(super) fn sources(
        &self,
        reader: Reader<'_>,
        entry: &Entry<'_, '_>,
    ) -> Result<Vec<Term>, PolicyError> {
        let source = |text: Text<'_>| match self.definitions.term(text.value) {
            Ok(Term::Own | Term::Internet) => {
                Err(reader.wrong(&text, format!("{:?} not valid on the src side of a rule", text.value)))
            }
            Ok(term) => Ok(term),
            Err(reason) => Err(reader.wrong(&text, format!("src={reason}"))),
        };
        reader.texts(entry.value, &entry.name.field)?.into_iter().map(source).collect()
    }

    fn destinations(
        &self,
        reader: Reader<'_>,
        entry: &Entry<'_, '_>,
        sources: &[Term],
        protocols: &[i32],
    ) -> Result<Vec<(Term, Vec<PortRange>)>, PolicyError> {
        let whole = protocols.iter().any(|protocol| !has_ports(*protocol));
        let destination = |text: Text<'_>| {
            let (term, ports) = self
                .definitions
                .destination(text.value)
                .map_err(|reason| reader.wrong(&text, format!("dst={:?}: {reason}", text.value)))?;
            let people =
                |term: &Term| matches!(term, Term::Any | Term::User(_) | Term::Group(_) | Term::Member);
            if term == Term::Own && !sources.iter().all(people) {
                let reason = "autogroup:self can only be used with users, groups, or supported autogroups";
                return Err(reader.wrong(&text, reason));
            }
            if whole && ports.iter().any(|range| *range != PortRange::ANY) {
                return Err(reader.wrong(&text, "a protocol without ports needs the ports *"));
            }
            Ok((term, ports))
        };
        reader.texts(entry.value, &entry.name.field)?.into_iter().map(destination).collect()
    }

    /// Who may serve `route` unasked. An exit node is approved by `exitNode` alone, whatever `routes` says of 0.0.0.0/0.
    pub(super) fn approvers(&self, route: IpNet) -> impl Iterator<Item = &Term> {
        let exit = EXIT_ROUTES.contains(&route);
        let routes = self.route_approvers.iter().filter(move |(net, _)| !exit && net.contains(&route));
        self.exit_approvers.iter().filter(move |_| exit).chain(routes.flat_map(|(_, terms)| terms))
    }
}

fn groups(reader: Reader<'_>, value: &Value<'_>) -> Result<BTreeMap<String, Vec<String>>, PolicyError> {
    let mut groups = BTreeMap::new();
    for Entry { name, value } in reader.entries(value, "groups")? {
        if !name.value.starts_with("group:") {
            return Err(reader.wrong(&name, "a group's name starts with group:"));
        }
        let members = reader.texts(value, &name.field)?;
        if let Some(member) = members.iter().find(|member| !member.value.contains('@')) {
            return Err(reader.wrong(member, format!("{:?} is no user (users have an @)", member.value)));
        }
        let members = members.into_iter().map(|member| member.value.to_owned()).collect();
        groups.insert(name.value.to_owned(), members);
    }
    Ok(groups)
}

/// Whether `tag` is a well-formed tag (tailscale `tailcfg.CheckTag`): `tag:`, a letter, then letters, digits and dashes.
///
/// # Errors
/// In words, what is wrong.
pub fn check_tag(tag: &str) -> Result<(), String> {
    let name = tag.strip_prefix("tag:").ok_or_else(|| format!("{tag:?}: a tag starts with tag:"))?;
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(letters) {
        return Ok(());
    }
    Err(format!("{tag:?}: a tag's name is a letter, then letters, digits and dashes"))
}
