//! A policy's rules resolved against the network as it is: who sees whom, and what each node lets in.
//!
//! Resolving costs rules times nodes, once a change of the network; a node's filter then costs the rules, and a question
//! about a pair costs the rules. Semantics are those of Tailscale's own service, checked against its captures (`tests`).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use types::NodeId;
use types::overlay::{CGNAT, CHROMEOS, EXIT_ROUTES, ULA};
use wire::control::{CapMap, FilterRule, NetPortRange, PortRange};

use super::Subject;
use super::capability;
use super::document::{Document, Rule};
use super::ip_set::IpSet;
use super::term::{Definitions, Term};

/// `autogroup:internet`: public IPv4 and 2000::/3, that is everything but private, link-local and overlay addresses.
static INTERNET: LazyLock<IpSet> = LazyLock::new(|| {
    let v4 = |a, b, length| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length));
    let mut set = IpSet::from_iter([v4(0, 0, 0)]);
    for net in [v4(10, 0, 8), IpNet::V4(CGNAT), v4(169, 254, 16), v4(172, 16, 12), v4(192, 168, 16)] {
        set.remove(net);
    }
    set.insert(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)));
    set
});

/// Which nodes a side of a rule is about.
#[derive(Clone, Debug)]
pub(super) enum Nodes {
    All,
    Only(BTreeSet<NodeId>),
}

impl Nodes {
    pub(super) fn contains(&self, id: NodeId) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.contains(&id),
        }
    }
}

/// What a destination leads to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Anything,
    Internet,
    Nets(IpSet),
    Devices(BTreeSet<NodeId>),
}

/// One rule, resolved.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) sources: Nodes,
    /// Addresses of the sources, and routes behind them where the rule means them.
    pub(super) from: IpSet,
    destinations: Nodes,
    /// Addresses of the destinations; filled where capabilities are given.
    pub(super) to: IpSet,
    pub(super) targets: Vec<(Target, Vec<PortRange>)>,
    protocols: Vec<i32>,
    /// What the sources are granted towards the targets, instead of connections.
    capabilities: Option<CapMap>,
}

/// All rules, resolved.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    rules: Vec<Resolved>,
}

impl Compiled {
    pub(super) fn new(document: &Document, subjects: &[Subject]) -> Self {
        let resolver = Resolver { definitions: &document.definitions, subjects };
        let rules = document.rules.iter().flat_map(|rule| resolver.rule(rule)).collect();
        Self { rules }
    }

    /// Whether either of the two may start a connection to the other, or to a network behind it.
    pub fn sees(&self, one: NodeId, other: NodeId) -> bool {
        self.rules.iter().any(|rule| {
            let reaches = |a, b| rule.sources.contains(a) && rule.destinations.contains(b);
            reaches(one, other) || reaches(other, one)
        })
    }

    /// Whether `viewer` needs `route` of another node: to reach it, or to answer what comes from it.
    pub fn needs_route(&self, viewer: NodeId, route: IpNet) -> bool {
        let exit = EXIT_ROUTES.contains(&route);
        self.rules.iter().any(|rule| {
            let leads = |target: &Target| match target {
                Target::Anything => true,
                Target::Internet => exit,
                Target::Nets(set) => !exit && set.overlaps(route),
                Target::Devices(_) => false,
            };
            let reaches =
                rule.sources.contains(viewer) && rule.targets.iter().any(|(target, _)| leads(target));
            let answers = !exit && rule.destinations.contains(viewer) && rule.from.overlaps(route);
            reaches || answers
        })
    }

    /// What `subject` lets in: the part of each rule that leads to it or through it.
    pub fn filter(&self, subject: &Subject) -> Vec<FilterRule> {
        let mut filter: Vec<FilterRule> = Vec::new();
        for rule in &self.rules {
            if let Some(capabilities) = &rule.capabilities {
                filter.extend(capability::rules(rule, capabilities, subject));
                continue;
            }
            let dst_ports: Vec<_> = rule
                .targets
                .iter()
                .flat_map(|(target, ports)| destinations(target, ports, subject))
                .collect();
            if dst_ports.is_empty() || rule.from.is_empty() {
                continue;
            }
            let src_ips: Vec<_> = rule.from.texts().collect();
            match filter.last_mut() {
                Some(last) if last.src_ips == src_ips && last.ip_proto == rule.protocols => {
                    last.dst_ports.extend(dst_ports);
                }
                _ => filter.push(FilterRule {
                    src_ips,
                    dst_ports,
                    ip_proto: rule.protocols.clone(),
                    ..FilterRule::default()
                }),
            }
        }
        filter
    }
}

/// The entries of a filter for `target` on `subject`; none when it does not lead there.
fn destinations(target: &Target, ports: &[PortRange], subject: &Subject) -> Vec<NetPortRange> {
    let ips: Vec<String> = match target {
        Target::Anything => vec!["*".to_owned()],
        Target::Internet if subject.exit => INTERNET.texts().collect(),
        Target::Internet => Vec::new(),
        Target::Nets(set) => {
            let ours = |(first, last): &(IpAddr, IpAddr)| {
                let mut range = IpSet::default();
                range.insert_range(*first, *last);
                subject.is_in(&range)
            };
            set.ranges().zip(set.texts()).filter(|(range, _)| ours(range)).map(|(_, text)| text).collect()
        }
        Target::Devices(ids) if ids.contains(&subject.id) => {
            subject.addresses.iter().map(ToString::to_string).collect()
        }
        Target::Devices(_) => Vec::new(),
    };
    let entry = |ip: &String, ports| NetPortRange { ip: ip.clone(), bits: None, ports };
    ips.iter().flat_map(|ip| ports.iter().map(move |ports| entry(ip, *ports))).collect()
}

/// Resolves terms against the file's definitions and the nodes.
struct Resolver<'a> {
    definitions: &'a Definitions,
    subjects: &'a [Subject],
}

impl Resolver<'_> {
    /// A rule, and one more for each user where it leads to `autogroup:self`.
    fn rule(&self, rule: &Rule) -> Vec<Resolved> {
        let (own, others): (Vec<_>, Vec<_>) =
            rule.destinations.iter().cloned().partition(|(term, _)| *term == Term::Own);
        let mut resolved = Vec::new();
        if !others.is_empty() {
            let targets = others.into_iter().map(|(term, ports)| (self.target(&term), ports)).collect();
            let (sources, from) = self.sources(&rule.sources);
            resolved.push(self.resolved(sources, from, targets, rule));
        }
        if !own.is_empty() {
            for devices in self.devices_by_user(&rule.sources) {
                let target =
                    |(_, ports): &(Term, Vec<PortRange>)| (Target::Devices(devices.clone()), ports.clone());
                let from = self.addresses(&devices);
                let targets = own.iter().map(target).collect();
                resolved.push(self.resolved(Nodes::Only(devices.clone()), from, targets, rule));
            }
        }
        resolved
    }

    fn resolved(
        &self,
        sources: Nodes,
        from: IpSet,
        targets: Vec<(Target, Vec<PortRange>)>,
        rule: &Rule,
    ) -> Resolved {
        let destinations = if targets.iter().any(|(target, _)| matches!(target, Target::Anything)) {
            Nodes::All
        } else {
            let leads = |subject: &&Subject| {
                targets.iter().any(|(target, _)| match target {
                    Target::Anything => true,
                    Target::Internet => subject.exit,
                    Target::Nets(set) => subject.is_in(set),
                    Target::Devices(ids) => ids.contains(&subject.id),
                })
            };
            Nodes::Only(self.subjects.iter().filter(leads).map(|subject| subject.id).collect())
        };
        let capabilities = rule.capabilities.clone();
        let to = if capabilities.is_some() { self.target_set(&targets) } else { IpSet::default() };
        let protocols = rule.protocols.clone();
        Resolved { sources, from, destinations, to, targets, protocols, capabilities }
    }

    fn target_set(&self, targets: &[(Target, Vec<PortRange>)]) -> IpSet {
        let mut set = IpSet::default();
        for (target, _) in targets {
            match target {
                Target::Anything => set.extend(&self.everywhere()),
                Target::Internet => set.extend(&INTERNET),
                Target::Nets(nets) => set.extend(nets),
                Target::Devices(devices) => set.extend(&self.addresses(devices)),
            }
        }
        set
    }

    fn sources(&self, terms: &[Term]) -> (Nodes, IpSet) {
        let (mut ids, mut from) = (BTreeSet::new(), IpSet::default());
        for term in terms {
            match term {
                Term::Any => from.extend(&self.everywhere()),
                Term::Everyone => EXIT_ROUTES.into_iter().for_each(|net| from.insert(net)),
                Term::Nets(set) => {
                    ids.extend(
                        self.subjects.iter().filter(|subject| subject.is_in(set)).map(|subject| subject.id),
                    );
                    from.extend(set);
                }
                term => {
                    let devices = self.devices(term);
                    from.extend(&self.addresses(&devices));
                    ids.extend(devices);
                }
            }
        }
        let all = terms.contains(&Term::Any) || terms.contains(&Term::Everyone);
        (if all { Nodes::All } else { Nodes::Only(ids) }, from)
    }

    /// The overlay and every subnet route that is served.
    fn everywhere(&self) -> IpSet {
        let mut set = IpSet::from_iter([IpNet::V4(CGNAT), IpNet::V6(ULA)]);
        set.remove(IpNet::V4(CHROMEOS));
        for route in self.subjects.iter().flat_map(|subject| &subject.routes) {
            set.insert(*route);
        }
        set
    }

    fn target(&self, term: &Term) -> Target {
        match term {
            Term::Any => Target::Anything,
            Term::Internet => Target::Internet,
            Term::Nets(set) => Target::Nets(set.clone()),
            term => Target::Devices(self.devices(term)),
        }
    }

    /// The devices a term names, and no networks behind them.
    fn devices(&self, term: &Term) -> BTreeSet<NodeId> {
        let named = |subject: &&Subject| match term {
            Term::User(user) => subject.is_of(user),
            Term::Group(group) => self
                .definitions
                .groups
                .get(group)
                .is_some_and(|users| users.iter().any(|user| subject.is_of(user))),
            Term::Tag(tag) => subject.tags.contains(tag),
            Term::Member => subject.tags.is_empty(),
            Term::Tagged => !subject.tags.is_empty(),
            Term::Any | Term::Everyone => true,
            Term::Own | Term::Internet | Term::Nets(_) => false,
        };
        self.subjects.iter().filter(named).map(|subject| subject.id).collect()
    }

    /// For each user among the sources, that user's own devices.
    fn devices_by_user(&self, sources: &[Term]) -> Vec<BTreeSet<NodeId>> {
        let named: BTreeSet<NodeId> = sources.iter().flat_map(|term| self.devices(term)).collect();
        let owned = self.subjects.iter().filter(|subject| subject.tags.is_empty());
        let mut by_user = std::collections::BTreeMap::<&str, BTreeSet<NodeId>>::new();
        for subject in owned.filter(|subject| named.contains(&subject.id)) {
            by_user.entry(&subject.user).or_default().insert(subject.id);
        }
        by_user.into_values().collect()
    }

    fn addresses(&self, devices: &BTreeSet<NodeId>) -> IpSet {
        let subjects = self.subjects.iter().filter(|subject| devices.contains(&subject.id));
        subjects.flat_map(|subject| &subject.addresses).map(|addr| IpNet::from(*addr)).collect()
    }
}
