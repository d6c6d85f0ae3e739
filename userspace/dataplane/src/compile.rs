//! A packet filter as tables whose lookup costs the same for one rule and for ten thousand. Pure.
//!
//! Addresses that the same rules name are one class. For every prefix that a rule names as a source, its class is the set
//! of rules that name it or a prefix around it; for every local prefix, and every prefix inside one that a rule names as a
//! destination, likewise. A pair of classes gets the merged ranges of the rules both have, and source classes that may do
//! the same become one. So a packet needs two class lookups, one pair lookup and one binary search. Deliberately not
//! here: the kernel's maps (`install`).

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
    let matrix = Matrix::of(&sources, &destinations, &opened)?;

    let senders =
        sources.by_net.into_iter().filter_map(|(net, class)| Some((net, matrix.row_of[class as usize]?)));
    let classes: BTreeMap<_, _> = senders
        .map(|(net, row)| ((Side::Source, net), row))
        .chain(destinations.by_net.into_iter().map(|(net, class)| ((Side::Destination, net), class)))
        .collect();
    fits("address prefixes", classes.len(), MAX_PREFIXES)?;
    Ok(Compiled { classes, pairs: matrix.pairs, ranges: matrix.ranges })
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

/// What every sender may do to every receiver.
struct Matrix {
    /// By source class: its row, which equal classes share; none if it may do nothing.
    row_of: Vec<Option<u32>>,
    /// By row and destination class.
    pairs: BTreeMap<(u32, u32), Span>,
    ranges: Vec<PortRange>,
}

impl Matrix {
    fn of(sources: &Classes, destinations: &Classes, opened: &[Opened]) -> Result<Self, Error> {
        let reach = Reach::of(destinations, opened);
        let mut matrix = Self { row_of: Vec::new(), pairs: BTreeMap::new(), ranges: Vec::new() };
        let mut spans: BTreeMap<Vec<PortRange>, Span> = BTreeMap::new();
        let mut rows: BTreeMap<Vec<(u32, Span)>, u32> = BTreeMap::new();
        let mut work = 0;
        for rules in &sources.members {
            let reached = reach.from(rules, opened, &mut work)?;
            let row: Vec<(u32, Span)> = reached
                .into_iter()
                .map(|(destination, ranges)| (destination, matrix.span(merge(ranges), &mut spans)))
                .collect();
            fits("port ranges", matrix.ranges.len(), MAX_RANGES)?;
            let next = rows.len() as u32;
            let number = (!row.is_empty()).then(|| {
                *rows.entry(row).or_insert_with_key(|row| {
                    matrix.pairs.extend(row.iter().map(|(destination, span)| ((next, *destination), *span)));
                    next
                })
            });
            fits("pairs of sources and destinations", matrix.pairs.len(), MAX_PAIRS)?;
            matrix.row_of.push(number);
        }
        Ok(matrix)
    }

    /// Where these ranges are stored: once, however many pairs have them.
    fn span(&mut self, ranges: Vec<PortRange>, spans: &mut BTreeMap<Vec<PortRange>, Span>) -> Span {
        *spans.entry(ranges).or_insert_with_key(|ranges| {
            let start = self.ranges.len() as u32;
            self.ranges.extend(ranges);
            Span { start, count: ranges.len() as u32 }
        })
    }
}

/// By rule: the destination classes it opens, and which of its destinations does.
struct Reach(Vec<Vec<(u32, usize)>>);

impl Reach {
    fn of(destinations: &Classes, opened: &[Opened]) -> Self {
        let rules = opened.iter().map(|opened| opened.rule + 1).max().unwrap_or(0);
        let mut by_rule = vec![Vec::new(); rules];
        for (class, members) in destinations.members.iter().enumerate() {
            for position in members {
                by_rule[opened[*position].rule].push((class as u32, *position));
            }
        }
        Self(by_rule)
    }

    /// What a sender that these rules name may do, by destination class; `work` adds up over all senders.
    fn from(
        &self,
        rules: &[usize],
        opened: &[Opened],
        work: &mut usize,
    ) -> Result<BTreeMap<u32, Vec<PortRange>>, Error> {
        let mut reached: BTreeMap<u32, Vec<PortRange>> = BTreeMap::new();
        for (destination, position) in rules.iter().filter_map(|rule| self.0.get(*rule)).flatten() {
            let ranges = &opened[*position].ranges;
            *work += ranges.len() + 1;
            if *work > MAX_WORK {
                let what = "combinations of overlapping rules";
                return Err(Error::FilterTooLarge { what, have: *work, limit: MAX_WORK });
            }
            reached.entry(*destination).or_default().extend(ranges);
        }
        Ok(reached)
    }
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
