//! A ruleset of nftables, walked as the kernel would walk it for one packet that is known in part.
//!
//! What a rule asks of the packet is true, false or unknown. An unknown condition before a drop does not drop, before an accept
//! it makes the end uncertain; only a certain end is a verdict.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// Jumps are followed this deep, as the kernel does (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

/// The packet asked about: the first UDP datagram of somebody new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Where it comes in.
    pub(crate) device: String,
    /// IPv6 rather than IPv4.
    pub(crate) ipv6: bool,
    /// Its destination port.
    pub(crate) port: u16,
}

/// What drops it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    family: String,
    table: String,
    /// Where the walk began: the base chain.
    base: String,
    chain: String,
    /// The rule; `None` is the base chain's policy.
    handle: Option<u64>,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, .. } = self;
        match self.handle {
            Some(handle) => {
                write!(f, "rule handle {handle} of chain '{chain}' in table '{family} {table}' of nftables")
            }
            None => {
                write!(f, "the policy 'drop' of chain '{chain}' in table '{family} {table}' of nftables")
            }
        }
    }
}

impl Blocked {
    /// The command that lets `port` in, of the program these rules are from.
    pub(crate) fn advice(&self, port: u16) -> String {
        let Self { family, table, base, chain, .. } = self;
        if table == "firewalld" {
            return format!("firewall-cmd --permanent --add-port={port}/udp && firewall-cmd --reload");
        }
        if chain.starts_with("ufw") || base.starts_with("ufw") {
            return format!("ufw allow {port}/udp");
        }
        if table == "filter" && base == "INPUT" && (family == "ip" || family == "ip6") {
            let program = if family == "ip" { "iptables" } else { "ip6tables" };
            return format!("{program} -I INPUT -p udp --dport {port} -j ACCEPT");
        }
        format!("nft insert rule {family} {table} {base} udp dport {port} accept")
    }
}

/// What drops `packet`, if anything certainly does.
pub(crate) fn blocked(ruleset: &Value, packet: &Packet) -> Option<Blocked> {
    let ruleset = Ruleset::read(ruleset);
    let family = if packet.ipv6 { "ip6" } else { "ip" };
    let mut bases: Vec<_> = ruleset
        .chains
        .iter()
        .filter(|chain| chain.family == family || chain.family == "inet")
        .filter_map(|chain| {
            let order = ["prerouting", "input"].iter().position(|hook| *hook == chain.hook)?;
            (chain.kind == "filter").then_some(((order, chain.prio), chain))
        })
        .collect();
    bases.sort_by_key(|(order, _)| *order);
    for (_, base) in bases {
        let mut walk = Walk { ruleset: &ruleset, packet, base, may_be_accepted: false };
        let blocked = match walk.chain(&base.name, 0) {
            End::Dropped(blocked) => Some(blocked),
            End::Accepted => None,
            End::Through => (base.policy == "drop").then(|| walk.blocked(&base.name, None)),
        };
        if let Some(blocked) = blocked.filter(|_| !walk.may_be_accepted) {
            return Some(blocked.below_ufw(&ruleset));
        }
    }
    None
}

impl Blocked {
    /// ufw's rules hang below the base chains of iptables; the policy is theirs, too.
    fn below_ufw(self, ruleset: &Ruleset) -> Self {
        let has_ufw = ruleset.chains.iter().any(|chain| {
            chain.table == self.table && chain.family == self.family && chain.name.starts_with("ufw")
        });
        Self { base: if has_ufw { "ufw".into() } else { self.base }, ..self }
    }
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    hook: String,
    #[serde(default)]
    prio: i64,
    #[serde(default)]
    policy: String,
}

#[derive(Deserialize)]
struct Rule {
    family: String,
    table: String,
    chain: String,
    handle: u64,
    #[serde(default)]
    expr: Vec<Value>,
}

/// Family, table and name of a chain or set.
type Name = (String, String, String);

#[derive(Default)]
struct Ruleset {
    chains: Vec<Chain>,
    rules: BTreeMap<Name, Vec<Rule>>,
    sets: BTreeMap<Name, Value>,
}

impl Ruleset {
    fn read(listing: &Value) -> Self {
        let mut ruleset = Self::default();
        for entry in listing["nftables"].as_array().into_iter().flatten() {
            if let Ok(chain) = Chain::deserialize(&entry["chain"]) {
                ruleset.chains.push(chain);
            } else if let Ok(rule) = Rule::deserialize(&entry["rule"]) {
                let name = (rule.family.clone(), rule.table.clone(), rule.chain.clone());
                ruleset.rules.entry(name).or_default().push(rule);
            }
            for kind in ["set", "map"] {
                let text = |field: &str| entry[kind][field].as_str().map(str::to_owned);
                if let (Some(family), Some(table), Some(name)) = (text("family"), text("table"), text("name"))
                {
                    ruleset.sets.insert((family, table, name), entry[kind]["elem"].clone());
                }
            }
        }
        ruleset
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Unknown,
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

/// How a chain ends.
enum End {
    Accepted,
    Dropped(Blocked),
    /// Its last rule was passed, or one returned.
    Through,
}

/// What is known of one property of the packet.
enum Known {
    Text(String),
    Number(u64),
    /// The packet has no such field: no comparison holds.
    Absent,
    Nothing,
}

struct Walk<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet,
    base: &'a Chain,
    may_be_accepted: bool,
}

impl Walk<'_> {
    fn blocked(&self, chain: &str, handle: Option<u64>) -> Blocked {
        Blocked {
            family: self.base.family.clone(),
            table: self.base.table.clone(),
            base: self.base.name.clone(),
            chain: chain.to_owned(),
            handle,
        }
    }

    fn name(&self, name: &str) -> Name {
        (self.base.family.clone(), self.base.table.clone(), name.to_owned())
    }

    fn chain(&mut self, chain: &str, depth: usize) -> End {
        if depth > DEEPEST {
            return End::Through;
        }
        let ruleset = self.ruleset;
        for rule in ruleset.rules.get(&self.name(chain)).into_iter().flatten() {
            match self.rule(rule, depth) {
                None => {}
                Some(End::Through) => return End::Through,
                Some(end) => return end,
            }
        }
        End::Through
    }

    /// `None`: the next rule.
    fn rule(&mut self, rule: &Rule, depth: usize) -> Option<End> {
        let mut truth = Truth::Yes;
        for expression in &rule.expr {
            let (kind, body) = expression.as_object()?.iter().next()?;
            match kind.as_str() {
                "match" => match self.holds(body) {
                    Truth::No => return None,
                    Truth::Unknown => truth = Truth::Unknown,
                    Truth::Yes => {}
                },
                "counter" | "log" | "comment" | "notrack" | "mangle" => {}
                "vmap" => match self.verdict_of_map(body) {
                    Ok(Some(verdict)) => {
                        let verdict = verdict.clone();
                        let (kind, body) = verdict.as_object()?.iter().next()?;
                        return self.verdict(kind, body, truth, rule, depth).flatten();
                    }
                    Ok(None) => return None,
                    Err(_) => truth = Truth::Unknown,
                },
                kind => match self.verdict(kind, body, truth, rule, depth) {
                    Some(end) => return end,
                    // A limit, an extension of iptables, or what a newer kernel has.
                    None => truth = Truth::Unknown,
                },
            }
        }
        None
    }

    /// Outer `None`: that is no verdict. Inner `None`: the next rule.
    fn verdict(
        &mut self,
        kind: &str,
        body: &Value,
        truth: Truth,
        rule: &Rule,
        depth: usize,
    ) -> Option<Option<End>> {
        let certain = truth == Truth::Yes;
        Some(match kind {
            "accept" if certain => Some(End::Accepted),
            "accept" => {
                self.may_be_accepted = true;
                None
            }
            "drop" | "reject" => certain.then(|| End::Dropped(self.blocked(&rule.chain, Some(rule.handle)))),
            "return" => certain.then_some(End::Through),
            "continue" => None,
            "jump" | "goto" => {
                let end = self.chain(body["target"].as_str()?, depth + 1);
                match end {
                    End::Accepted if !certain => {
                        self.may_be_accepted = true;
                        None
                    }
                    _ if !certain => None,
                    End::Through if kind == "jump" => None,
                    end => Some(end),
                }
            }
            _ => return None,
        })
    }

    /// The verdict a map has for this packet; an error where that is unknown.
    fn verdict_of_map<'v>(&'v self, body: &'v Value) -> Result<Option<&'v Value>, ()> {
        let known = self.known(&body["key"]);
        let elements = match &body["data"] {
            Value::String(name) => {
                self.ruleset.sets.get(&self.name(name.trim_start_matches('@'))).ok_or(())?
            }
            data => &data["set"],
        };
        for element in elements.as_array().into_iter().flatten() {
            match self.equals(&known, &element[0]) {
                Truth::Yes => return Ok(Some(&element[1])),
                Truth::No => {}
                Truth::Unknown => return Err(()),
            }
        }
        Ok(None)
    }

    fn holds(&self, body: &Value) -> Truth {
        let equal = self.equals(&self.known(&body["left"]), &body["right"]);
        match (body["op"].as_str(), equal) {
            (Some("==" | "in"), equal) => equal,
            (Some("!="), Truth::Yes) => Truth::No,
            (Some("!="), Truth::No) => Truth::Yes,
            _ => Truth::Unknown,
        }
    }

    fn known(&self, of: &Value) -> Known {
        let text = |text: &str| Known::Text(text.to_owned());
        let ipv6 = self.packet.ipv6;
        if let Some(key) = of["meta"]["key"].as_str() {
            return match key {
                "iifname" => text(&self.packet.device),
                "l4proto" => text("udp"),
                "nfproto" => text(if ipv6 { "ipv6" } else { "ipv4" }),
                "protocol" => text(if ipv6 { "ip6" } else { "ip" }),
                "pkttype" => text("host"),
                _ => Known::Nothing,
            };
        }
        let payload = &of["payload"];
        match (payload["protocol"].as_str(), payload["field"].as_str()) {
            (Some("udp" | "th"), Some("dport")) => return Known::Number(self.packet.port.into()),
            (Some("ip"), Some("protocol")) if !ipv6 => return text("udp"),
            (Some("ip6"), Some("nexthdr")) if ipv6 => return text("udp"),
            (Some("ip"), _) if ipv6 => return Known::Absent,
            (Some("ip6"), _) if !ipv6 => return Known::Absent,
            (Some("tcp" | "icmp" | "icmpv6" | "sctp" | "dccp" | "esp" | "ah" | "igmp" | "arp"), _) => {
                return Known::Absent;
            }
            _ => {}
        }
        if of["ct"]["key"] == "state" {
            return text("new");
        }
        if of["ct"]["key"] == "status" {
            // Nobody has answered it, nor led it elsewhere.
            return Known::Absent;
        }
        let fib = &of["fib"];
        if fib["result"] == "type" && fib["flags"].as_array().is_some_and(|flags| flags == &["daddr"]) {
            return text("local");
        }
        Known::Nothing
    }

    fn equals(&self, known: &Known, right: &Value) -> Truth {
        match right {
            Value::Array(any) => return self.any(known, any),
            Value::Object(object) => {
                if let Some(Value::Array(any)) = object.get("set") {
                    return self.any(known, any);
                }
                if let Some(element) = object.get("elem") {
                    return self.equals(known, &element["val"]);
                }
            }
            Value::String(name) if name.starts_with('@') => {
                let set = self.ruleset.sets.get(&self.name(&name[1..]));
                return match set.and_then(Value::as_array) {
                    Some(any) => self.any(known, any),
                    None => Truth::No,
                };
            }
            _ => {}
        }
        match known {
            Known::Absent => Truth::No,
            Known::Nothing => Truth::Unknown,
            Known::Number(number) => match (right.as_u64(), &right["range"]) {
                (Some(right), _) => (*number == right).into(),
                (_, Value::Array(range)) => match (range[0].as_u64(), range[1].as_u64()) {
                    (Some(first), Some(last)) => (first..=last).contains(number).into(),
                    _ => Truth::Unknown,
                },
                _ => Truth::Unknown,
            },
            Known::Text(text) => match right {
                Value::String(pattern) => match pattern.strip_suffix('*') {
                    Some(start) => text.starts_with(start).into(),
                    None => (text == pattern).into(),
                },
                Value::Number(number) => (text == "udp" && number.as_u64() == Some(17)).into(),
                _ => Truth::Unknown,
            },
        }
    }

    fn any(&self, known: &Known, any: &[Value]) -> Truth {
        let truths: Vec<Truth> = any.iter().map(|value| self.equals(known, value)).collect();
        match () {
            () if truths.contains(&Truth::Yes) => Truth::Yes,
            () if truths.contains(&Truth::Unknown) => Truth::Unknown,
            () => Truth::No,
        }
    }
}

#[cfg(test)]
mod tests;
