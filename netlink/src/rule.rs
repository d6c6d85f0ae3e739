//! Policy rules: which routing table a packet asks, by priority.

use ipnet::IpNet;

use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use crate::socket::Doing;
use crate::{Handle, Result};

/// Address family of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Firewall mark to match: `packet.mark & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The bits expected.
    pub value: u32,
    /// The bits looked at.
    pub mask: u32,
}

/// What happens to a packet that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The table of this number is asked; no match there goes on to the next rule.
    Table(u32),
    /// Drops in silence.
    Blackhole,
    /// Drops and answers "network unreachable".
    Unreachable,
    /// Drops and answers "administratively prohibited".
    Prohibit,
    /// An action this crate does not write (goto, nop), by its kernel number.
    Other(u8),
}

/// One policy rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Its family: a rule for both is two rules.
    pub family: Family,
    /// Position, lower first; several rules may share one.
    pub priority: u32,
    /// Matches this mark only.
    pub mark: Option<Mark>,
    /// Matches packets from here only.
    pub source: Option<IpNet>,
    /// Matches packets to here only.
    pub destination: Option<IpNet>,
    /// Matches packets that came in by the link of this name only.
    pub input: Option<String>,
    /// What then happens.
    pub action: Action,
    /// Who installed it, as in [`crate::Route::protocol`].
    pub protocol: u8,
}

impl Rule {
    /// A rule that asks `table` for every packet, protocol static.
    pub fn lookup(family: Family, priority: u32, table: u32) -> Self {
        Self {
            family,
            priority,
            mark: None,
            source: None,
            destination: None,
            input: None,
            action: Action::Table(table),
            protocol: 4,
        }
    }
}

impl Handle {
    /// Every rule of both families, by family and priority.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub async fn rules(&self) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        // One family at a time: a dump of all would stop at a family this kernel lacks.
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RuleMessage::default();
            filter.header.family = family;
            let doing = Doing { action: "list", object: &"policy rules" };
            match self.route.dump(Message::GetRule(filter), doing).await {
                Ok(answers) => rules.extend(answers.iter().filter_map(|answer| match answer {
                    Message::NewRule(message) => Rule::from_message(message),
                    _ => None,
                })),
                Err(error) if error.errno() == Some(nix::errno::Errno::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rules)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// `is_taken` when an equal one exists.
    pub async fn add_rule(&self, rule: &Rule) -> Result<()> {
        let doing = Doing { action: "add", object: rule };
        self.route.acknowledge(Message::NewRule(rule.to_message()), NLM_F_CREATE | NLM_F_EXCL, doing).await
    }

    /// Removes one rule equal to `rule`.
    ///
    /// # Errors
    /// `is_missing` when it is not there.
    pub async fn remove_rule(&self, rule: &Rule) -> Result<()> {
        let doing = Doing { action: "remove", object: rule };
        self.route.acknowledge(Message::DelRule(rule.to_message()), 0, doing).await
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} rule {}", self.family, self.priority)?;
        if let Some(mark) = self.mark {
            write!(f, " fwmark {:#x}/{:#x}", mark.value, mark.mask)?;
        }
        match self.action {
            Action::Table(table) => write!(f, " lookup {table}"),
            other => write!(f, " {other:?}"),
        }
    }
}

impl Rule {
    fn to_message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = match self.family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        message.header.action = match self.action {
            Action::Table(_) => RuleAction::ToTable,
            Action::Blackhole => RuleAction::Blackhole,
            Action::Unreachable => RuleAction::Unreachable,
            Action::Prohibit => RuleAction::Prohibit,
            Action::Other(number) => RuleAction::from(number),
        };
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Protocol(RouteProtocol::from(self.protocol)));
        if let Action::Table(table) = self.action {
            attributes.push(RuleAttribute::Table(table));
        }
        if let Some(mark) = self.mark {
            attributes.push(RuleAttribute::FwMark(mark.value));
            attributes.push(RuleAttribute::FwMask(mark.mask));
        }
        if let Some(net) = self.source {
            message.header.src_len = net.prefix_len();
            attributes.push(RuleAttribute::Source(net.network()));
        }
        if let Some(net) = self.destination {
            message.header.dst_len = net.prefix_len();
            attributes.push(RuleAttribute::Destination(net.network()));
        }
        attributes.extend(self.input.clone().map(RuleAttribute::Iifname));
        message
    }

    pub(crate) fn from_message(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        let family = match header.family {
            AddressFamily::Inet => Family::V4,
            AddressFamily::Inet6 => Family::V6,
            _ => return None,
        };
        let mut rule = Self { protocol: 0, ..Self::lookup(family, 0, header.table.into()) };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Protocol(protocol) => rule.protocol = (*protocol).into(),
                RuleAttribute::Table(table) => rule.action = Action::Table(*table),
                RuleAttribute::FwMark(value) => mark(&mut rule).value = *value,
                RuleAttribute::FwMask(mask) => mark(&mut rule).mask = *mask,
                RuleAttribute::Source(address) => rule.source = IpNet::new(*address, header.src_len).ok(),
                RuleAttribute::Destination(address) => {
                    rule.destination = IpNet::new(*address, header.dst_len).ok();
                }
                RuleAttribute::Iifname(name) => rule.input = Some(name.clone()),
                _ => {}
            }
        }
        match header.action {
            RuleAction::ToTable => {}
            RuleAction::Blackhole => rule.action = Action::Blackhole,
            RuleAction::Unreachable => rule.action = Action::Unreachable,
            RuleAction::Prohibit => rule.action = Action::Prohibit,
            other => rule.action = Action::Other(other.into()),
        }
        // A mask of zero matches every packet: that is no match at all.
        rule.mark = rule.mark.filter(|mark| mark.mask != 0);
        Some(rule)
    }
}

fn mark(rule: &mut Rule) -> &mut Mark {
    rule.mark.get_or_insert(Mark { value: 0, mask: 0 })
}
