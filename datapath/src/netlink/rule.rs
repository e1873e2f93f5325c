//! Policy routing rules. Builds requests and parses answers; makes no decisions.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::route::MAIN;
use super::{Error, Family, Request, Socket, family};
use crate::constants::PROTOCOL;

/// What happens to a packet that matches a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is looked up in the rule's table.
    Lookup,
    /// Evaluation continues at the first rule with this priority.
    Goto(u32),
    /// Nothing: evaluation continues.
    Nop,
    /// It is dropped, or answered with an ICMP error: the kernel's number of the kind.
    Reject(u8),
}

/// A rule, most often one that sends matching packets to a table. Two rules with the same priority can differ only in their match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The family of the packets.
    pub family: Family,
    /// Lower values come first.
    pub priority: u32,
    /// What happens to a matching packet.
    pub action: Action,
    /// The table for the lookup; 0 for other actions.
    pub table: u32,
    /// Ignore routes of the table with this prefix length or a shorter one.
    pub suppress_prefix: Option<u32>,
    /// Ignore routes of the table over links of this group.
    pub suppress_group: Option<u32>,
    /// Value and mask of the packet mark.
    pub mark: Option<(u32, u32)>,
    /// Source prefix.
    pub from: Option<IpNet>,
    /// Destination prefix.
    pub to: Option<IpNet>,
    /// Name of the incoming link.
    pub iif: Option<String>,
    /// It applies to the packets that do not match.
    pub inverted: bool,
    /// It has further selectors, such as a port, that are not represented here.
    pub narrowed: bool,
    /// The program that created it; 0 if the kernel does not report it (before 4.17).
    pub protocol: u8,
}

impl Rule {
    /// All packets of `family` → `table`. With our protocol.
    #[must_use]
    pub const fn all(family: Family, priority: u32, table: u32) -> Self {
        Self {
            family,
            priority,
            action: Action::Lookup,
            table,
            suppress_prefix: None,
            suppress_group: None,
            mark: None,
            from: None,
            to: None,
            iif: None,
            inverted: false,
            narrowed: false,
            protocol: PROTOCOL,
        }
    }

    /// Packets of `family` whose mark is `value` under `mask` → `table`.
    #[must_use]
    pub fn mark(family: Family, priority: u32, value: u32, mask: u32, table: u32) -> Self {
        Self {
            mark: Some((value, mask)),
            ..Self::all(family, priority, table)
        }
    }

    /// Packets from the host address `from` → `table`.
    #[must_use]
    pub fn from(priority: u32, from: impl Into<IpAddr>, table: u32) -> Self {
        let from = from.into();
        Self {
            from: Some(from.into()),
            ..Self::all(Family::of(from), priority, table)
        }
    }

    /// A rule of `family` without a table. With our protocol.
    #[must_use]
    pub const fn without_table(family: Family, priority: u32, action: Action) -> Self {
        let mut rule = Self::all(family, priority, 0);
        rule.action = action;
        rule
    }

    /// Parses a `RTM_NEWRULE` or `RTM_DELRULE`; `None` for any other message or family.
    #[must_use]
    pub fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewRule(message) | RouteNetlinkMessage::DelRule(message)) =
            message
        else {
            return None;
        };
        let header = &message.header;
        let action = match header.action {
            RuleAction::ToTable => Action::Lookup,
            RuleAction::Goto => Action::Goto(0),
            RuleAction::Nop => Action::Nop,
            other => Action::Reject(other.into()),
        };
        let mut rule = Self {
            protocol: 0,
            action,
            inverted: header.flags.contains(RuleFlags::Invert),
            narrowed: header.tos != 0,
            ..Self::all(family::from_code(header.family)?, 0, header.table.into())
        };
        // The kernel omits the mask if it is all ones, and both if there is no mark.
        let (mut mark, mut mask) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Goto(target) => rule.action = Action::Goto(*target),
                // The kernel shows "none" as all ones.
                RuleAttribute::SuppressPrefixLen(length) => {
                    rule.suppress_prefix = Some(*length).filter(|length| *length != u32::MAX);
                }
                RuleAttribute::SuppressIfGroup(group) => {
                    rule.suppress_group = Some(*group).filter(|group| *group != u32::MAX);
                }
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::FwMark(value) => mark = Some(*value),
                RuleAttribute::FwMask(value) => mask = Some(*value),
                RuleAttribute::Source(ip) => rule.from = IpNet::new(*ip, header.src_len).ok(),
                RuleAttribute::Destination(ip) => rule.to = IpNet::new(*ip, header.dst_len).ok(),
                RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
                RuleAttribute::Protocol(protocol) => rule.protocol = (*protocol).into(),
                // It marks the route's user, and selects nothing.
                RuleAttribute::Realm(_) => {}
                _ => rule.narrowed = true,
            }
        }
        if mark.is_some() || mask.is_some_and(|m| m != 0) {
            rule.mark = Some((mark.unwrap_or(0), mask.unwrap_or(u32::MAX)));
        }
        Some(rule)
    }

    /// The same match, priority and table, with any protocol: the kernel would not distinguish the two.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        *self
            == Self {
                protocol: self.protocol,
                ..other.clone()
            }
    }
}

/// As `ip rule` prints it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.priority)?;
        if self.inverted {
            write!(f, " not")?;
        }
        match self.from {
            Some(from) => write!(f, " from {}", short(from))?,
            None => write!(f, " from all")?,
        }
        if let Some(to) = self.to {
            write!(f, " to {}", short(to))?;
        }
        if let Some((value, mask)) = self.mark {
            write!(f, " fwmark {value:#x}/{mask:#x}")?;
        }
        if let Some(iif) = &self.iif {
            write!(f, " iif {iif}")?;
        }
        if self.narrowed {
            write!(f, " ...")?;
        }
        match self.action {
            Action::Lookup if self.table == MAIN => write!(f, " lookup main"),
            Action::Lookup => write!(f, " lookup {}", self.table),
            Action::Goto(target) => write!(f, " goto {target}"),
            Action::Nop => write!(f, " nop"),
            Action::Reject(_) => write!(f, " reject"),
        }
    }
}

/// A single address without its length.
fn short(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// Adds the rule; `EEXIST` if an equal one exists.
#[must_use]
pub fn add(rule: &Rule) -> Request {
    Request::create("rule add", RouteNetlinkMessage::NewRule(message(rule)))
}

/// Removes the first rule that matches in all given properties; `ENOENT` if there is none.
#[must_use]
pub fn del(rule: &Rule) -> Request {
    Request::ack("rule del", RouteNetlinkMessage::DelRule(message(rule)), 0)
}

/// Lists all rules of a family.
#[must_use]
pub fn dump(family: Family) -> Request {
    let mut message = RuleMessage::default();
    message.header.family = family::code(family);
    Request::dump("rule dump", RouteNetlinkMessage::GetRule(message))
}

impl Socket {
    /// All rules of a family in the namespace, in the order in which the kernel evaluates them.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn rules(&mut self, family: Family) -> Result<Vec<Rule>, Error> {
        self.dump(&dump(family), Rule::from_message)
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family::code(rule.family);
    message.header.action = match rule.action {
        Action::Lookup => RuleAction::ToTable,
        Action::Goto(_) => RuleAction::Goto,
        Action::Nop => RuleAction::Nop,
        Action::Reject(kind) => RuleAction::from(kind),
    };
    if rule.inverted {
        message.header.flags = RuleFlags::Invert;
    }
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    if rule.table > 255 {
        attributes.push(RuleAttribute::Table(rule.table));
    }
    if let Action::Goto(target) = rule.action {
        attributes.push(RuleAttribute::Goto(target));
    }
    attributes.extend(rule.suppress_prefix.map(RuleAttribute::SuppressPrefixLen));
    attributes.extend(rule.suppress_group.map(RuleAttribute::SuppressIfGroup));
    if let Some((value, mask)) = rule.mark {
        attributes.extend([RuleAttribute::FwMark(value), RuleAttribute::FwMask(mask)]);
    }
    if let Some(net) = rule.from {
        message.header.src_len = net.prefix_len();
        attributes.push(RuleAttribute::Source(net.addr()));
    }
    if let Some(net) = rule.to {
        message.header.dst_len = net.prefix_len();
        attributes.push(RuleAttribute::Destination(net.addr()));
    }
    attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    if rule.protocol != 0 {
        attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)));
    }
    message
}
