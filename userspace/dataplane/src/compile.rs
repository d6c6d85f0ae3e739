//! A packet filter as tables whose lookup costs the same for one rule and for ten thousand. Pure.
//!
//! Addresses that the same rules name are one class. For every prefix that a rule names as a source, its class is the set
//! of rules that name it or a prefix around it; for every local prefix, and every prefix inside one that a rule names as a
//! destination, likewise. A pair of classes gets the merged ranges of the rules both have. So a packet needs two class
//! lookups, one pair lookup and one binary search. Deliberately not here: the kernel's maps (`install`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::{MAX_PAIRS, MAX_PREFIXES, MAX_RANGES, PortRange, Side, Span};
use ipnet::IpNet;
use node_core::filter::Filter;

use crate::Error;

/// Ranges collected before merging, over all pairs; more means rules that overlap beyond reason.
const MAX_WORK: usize = 64 << 20;

/// A filter's tables, without the generation they will have in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Class of each prefix; single addresses are prefixes of full length.
    pub classes: BTreeMap<(Side, IpNet), u32>,
    /// By source class and destination class: a stretch of `ranges`.
    pub pairs: BTreeMap<(u32, u32), Span>,
    /// Sorted and disjoint within each span; equal spans are stored once.
    pub ranges: Vec<PortRange>,
}

/// Compiles a filter.
///
/// # Errors
/// [`Error::FilterTooLarge`] when it does not fit the kernel's tables.
pub fn compile(filter: &Filter) -> Result<Compiled, Error> {
    let rules = if filter.shields_up { &[][..] } else { &filter.rules[..] };
    let opened: Vec<Opened> = rules
        .iter()
        .enumerate()
        .flat_map(|(rule, r)| r.destinations.iter().map(move |d| (rule, r, d)))
        .map(|(rule, r, d)| Opened { rule, net: d.net.trunc(), ranges: ranges(&r.protocols, &d.ports) })
        .collect();

    let mut sources: BTreeMap<IpNet, Vec<usize>> = BTreeMap::new();
    for (rule, r) in rules.iter().enumerate() {
        for net in &r.sources {
            sources.entry(net.trunc()).or_default().push(rule);
        }
    }
    let sources = Classes::of(sources);
    let destinations = Classes::of(local_destinations(&filter.local, &opened));
    let (pairs, ranges) = pairs(&sources, &destinations, &opened)?;

    let classes: BTreeMap<_, _> = [(Side::Source, sources), (Side::Destination, destinations)]
        .into_iter()
        .flat_map(|(side, classes)| classes.by_net.into_iter().map(move |(net, class)| ((side, net), class)))
        .collect();
    fits("address prefixes", classes.len(), MAX_PREFIXES)?;
    Ok(Compiled { classes, pairs, ranges })
}

/// One destination of one rule.
struct Opened {
    rule: usize,
    net: IpNet,
    ranges: Vec<PortRange>,
}

/// A rule's protocols and ports as ranges. A protocol without ports is open only where all ports are.
fn ranges(protocols: &[u8], ports: &std::ops::RangeInclusive<u16>) -> Vec<PortRange> {
    use packet::proto::{SCTP, TCP, UDP};
    let (first, last) = (*ports.start(), *ports.end());
    let all = (first, last) == (0, u16::MAX);
    protocols
        .iter()
        .filter(|protocol| all || matches!(**protocol, TCP | UDP | SCTP))
        .filter(|_| first <= last)
        .map(|protocol| PortRange {
            first: PortRange::point(*protocol, first),
            last: PortRange::point(*protocol, last),
        })
        .collect()
}

/// Which destinations are named at which prefix, cut down to what is local: a destination around a local prefix counts for
/// that prefix, one inside for itself, any other for nothing.
fn local_destinations(local: &[IpNet], opened: &[Opened]) -> BTreeMap<IpNet, Vec<usize>> {
    let mut named: BTreeMap<IpNet, Vec<usize>> = local.iter().map(|net| (net.trunc(), Vec::new())).collect();
    let locals: Vec<IpNet> = named.keys().copied().collect();
    let mut by_net: BTreeMap<IpNet, Vec<usize>> = BTreeMap::new();
    for (position, destination) in opened.iter().enumerate() {
        by_net.entry(destination.net).or_default().push(position);
    }
    for (net, positions) in by_net {
        if locals.iter().any(|local| local.contains(&net)) {
            named.entry(net).or_default().extend(&positions);
        } else {
            for local in locals.iter().filter(|local| net.contains(*local)) {
                named.entry(*local).or_default().extend(&positions);
            }
        }
    }
    named
}

/// Prefixes grouped by what names them.
struct Classes {
    by_net: BTreeMap<IpNet, u32>,
    /// By class: everything that names it, ascending.
    members: Vec<Vec<usize>>,
}

impl Classes {
    /// Each prefix inherits from the prefixes around it. The map's order puts those first, so a stack of open prefixes
    /// finds the nearest one.
    fn of(named: BTreeMap<IpNet, Vec<usize>>) -> Self {
        let mut classes = Self { by_net: BTreeMap::new(), members: Vec::new() };
        let mut known: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
        let mut around: Vec<(IpNet, u32)> = Vec::new();
        for (net, mut members) in named {
            while around.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
                around.pop();
            }
            if let Some((_, outer)) = around.last() {
                members.extend(&classes.members[*outer as usize]);
            }
            members.sort_unstable();
            members.dedup();
            let class = *known.entry(members).or_insert_with_key(|members| {
                classes.members.push(members.clone());
                classes.members.len() as u32 - 1
            });
            around.push((net, class));
            classes.by_net.insert(net, class);
        }
        classes
    }
}

type Pairs = BTreeMap<(u32, u32), Span>;

/// What every source class may do to every destination class.
fn pairs(
    sources: &Classes,
    destinations: &Classes,
    opened: &[Opened],
) -> Result<(Pairs, Vec<PortRange>), Error> {
    let rules = opened.iter().map(|o| o.rule + 1).max().unwrap_or(0);
    let mut by_rule: Vec<Vec<(u32, usize)>> = vec![Vec::new(); rules];
    for (class, members) in destinations.members.iter().enumerate() {
        for position in members {
            by_rule[opened[*position].rule].push((class as u32, *position));
        }
    }
    let (mut pairs, mut all, mut known) = (Pairs::new(), Vec::new(), BTreeMap::<Vec<PortRange>, Span>::new());
    let mut work = 0;
    for (source, members) in sources.members.iter().enumerate() {
        let mut reached: BTreeMap<u32, Vec<PortRange>> = BTreeMap::new();
        for (destination, position) in members.iter().filter_map(|rule| by_rule.get(*rule)).flatten() {
            let ranges = &opened[*position].ranges;
            work += ranges.len() + 1;
            reached.entry(*destination).or_default().extend(ranges);
        }
        if work > MAX_WORK {
            return Err(Error::FilterTooLarge {
                what: "combinations of overlapping rules",
                have: work,
                limit: MAX_WORK,
            });
        }
        for (destination, ranges) in reached {
            let merged = merge(ranges);
            let span = *known.entry(merged).or_insert_with_key(|merged| {
                let start = all.len() as u32;
                all.extend(merged);
                Span { start, count: merged.len() as u32 }
            });
            pairs.insert((source as u32, destination), span);
        }
        fits("pairs of sources and destinations", pairs.len(), MAX_PAIRS)?;
        fits("port ranges", all.len(), MAX_RANGES)?;
    }
    Ok((pairs, all))
}

/// Sorted, overlapping and touching ranges joined.
fn merge(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

fn fits(what: &'static str, have: usize, limit: u32) -> Result<(), Error> {
    let limit = limit as usize;
    if have > limit { Err(Error::FilterTooLarge { what, have, limit }) } else { Ok(()) }
}

impl Compiled {
    /// The class of an address: that of the longest prefix that contains it, as the kernel finds it.
    pub fn class(&self, side: Side, address: IpAddr) -> Option<u32> {
        let host = IpNet::from(address);
        let longest_first = (0..=host.max_prefix_len()).rev();
        longest_first
            .filter_map(|bits| IpNet::new(address, bits).ok())
            .find_map(|net| self.classes.get(&(side, net.trunc())))
            .copied()
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
