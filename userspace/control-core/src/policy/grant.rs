//! The section `grants`: who may connect to whom by what (`ip`), and who may ask whom for what (`app`).
//!
//! An entry becomes one rule for each protocol in `ip`, and one for all of `app`. Deliberately not here: `via`, which
//! needs routes chosen by reader; an entry with it is refused.

use std::collections::BTreeMap;

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged;
use wire::control::{CapMap, PortRange};

use super::capability;
use super::document::{Document, Rule};
use super::reader::{Entry, PolicyError, Reader, Text};
use super::term::{Term, has_ports, ports, protocols};

const FIELDS: [&str; 5] = ["src", "dst", "ip", "app", "via"];

impl Document {
    /// The rules of one entry.
    pub(super) fn grant(
        &self,
        reader: Reader<'_>,
        value: &Value<'_>,
        field: &str,
    ) -> Result<Vec<Rule>, PolicyError> {
        let entries = reader.entries(value, field)?;
        let get = |name: &str| entries.iter().find(|entry| entry.name.value == name);
        let required = |name: &str| {
            get(name).ok_or_else(|| reader.error(value.range(), field, format!("{name:?} is missing")))
        };
        if let Some(entry) = entries.iter().find(|entry| !FIELDS.contains(&entry.name.value)) {
            return Err(reader.wrong(&entry.name, "not understood here; known are src, dst, ip and app"));
        }
        if let Some(via) = get("via") {
            return Err(reader.wrong(
                &via.name,
                "this server cannot steer by via yet; leave it out, and routes are chosen for all alike",
            ));
        }
        let sources = self.sources(reader, required("src")?)?;
        let connections = match get("ip") {
            Some(entry) => connections(reader, entry)?,
            None => BTreeMap::new(),
        };
        let capabilities = match get("app") {
            Some(entry) => capabilities(reader, entry)?,
            None => CapMap::default(),
        };
        if connections.is_empty() && capabilities.is_empty() {
            return Err(reader.error(value.range(), field, "ip and app can not both be empty"));
        }
        let destinations =
            self.grant_destinations(reader, required("dst")?, &sources, !capabilities.is_empty())?;
        let rule = |ports: &[PortRange], protocols, capabilities| Rule {
            sources: sources.clone(),
            destinations: destinations.iter().map(|term| (term.clone(), ports.to_vec())).collect(),
            protocols,
            capabilities,
        };
        let mut rules: Vec<_> =
            connections.into_iter().map(|(protocols, ports)| rule(&ports, protocols, None)).collect();
        if !capabilities.is_empty() {
            rules.push(rule(&[], Vec::new(), Some(capabilities)));
        }
        Ok(rules)
    }

    fn grant_destinations(
        &self,
        reader: Reader<'_>,
        entry: &Entry<'_, '_>,
        sources: &[Term],
        capabilities: bool,
    ) -> Result<Vec<Term>, PolicyError> {
        let people = |term: &Term| matches!(term, Term::User(_) | Term::Group(_) | Term::Member);
        let destination = |text: Text<'_>| {
            let wrong = |reason: &str| Err(reader.wrong(&text, format!("dst={:?}: {reason}", text.value)));
            if matches!(text.value, "0.0.0.0/0" | "::/0") {
                return wrong("to allow all IP addresses, use \"*\" or \"autogroup:internet\"");
            }
            match self.definitions.term(text.value) {
                Ok(Term::Everyone) => wrong("cannot use autogroup:danger-all as a dst"),
                Ok(Term::Internet) if capabilities => wrong("cannot use app grants with autogroup:internet"),
                Ok(Term::Own) if !sources.iter().all(people) => {
                    wrong("autogroup:self can only be used with users, groups, or supported autogroups")
                }
                Ok(term) => Ok(term),
                Err(reason) => wrong(&reason),
            }
        };
        reader.texts(entry.value, &entry.name.field)?.into_iter().map(destination).collect()
    }
}

/// `ip`: `*`, `22`, `80-90`, or `tcp:22`; ports by protocols.
fn connections(
    reader: Reader<'_>,
    entry: &Entry<'_, '_>,
) -> Result<BTreeMap<Vec<i32>, Vec<PortRange>>, PolicyError> {
    let mut connections = BTreeMap::<_, Vec<_>>::new();
    for text in reader.texts(entry.value, &entry.name.field)? {
        let (name, list) = text.value.split_once(':').unwrap_or(("", text.value));
        let wrong = |reason: String| reader.wrong(&text, format!("ip={:?}: {reason}", text.value));
        let protocols = protocols(name).map_err(wrong)?;
        let range = ports(list).map_err(wrong)?;
        if range != PortRange::ANY && protocols.iter().any(|protocol| !has_ports(*protocol)) {
            return Err(wrong("a protocol without ports needs the ports *".to_owned()));
        }
        connections.entry(protocols).or_default().push(range);
    }
    Ok(connections)
}

/// `app`: capabilities, each with a list of objects that its application understands.
fn capabilities(reader: Reader<'_>, entry: &Entry<'_, '_>) -> Result<CapMap, PolicyError> {
    let mut capabilities = CapMap::default();
    for Entry { name, value } in reader.entries(entry.value, &entry.name.field)? {
        capability::check_name(name.value).map_err(|reason| reader.wrong(&name, reason))?;
        capabilities.0.insert(name.value.to_owned(), reader.objects(value, &name.field)?);
    }
    Ok(capabilities)
}
